"""Several BPF programs are verified at the same time; bcc's part is played by the test."""

from __future__ import annotations

import signal
import threading

import pytest

from pyflame_ebpf.sampling.program_loading import LOADERS, load_together

KINDS = {f"program_{number}": number for number in range(3 * LOADERS)}


class Module:
    """Loads what is not ``refused``, each program once; each of the first waits until as many are being loaded."""

    def __init__(self, refused: tuple[str, ...] = (), together: int = 1) -> None:
        self.funcs: dict[bytes, tuple[bytes, int]] = {}
        self.begun: list[str] = []
        self.under_way = 0
        self._refused = refused
        self._together = threading.Barrier(together)
        self._first = set(list(KINDS)[:together])

    def load_func(self, name: bytes, kind: int) -> tuple[bytes, int]:
        if name in self.funcs:
            return self.funcs[name]
        self.under_way += 1
        self.begun.append(name.decode())
        try:
            if name.decode() in self._first:
                self._together.wait(timeout=10)
            if name.decode() in self._refused:
                raise Exception(f"the kernel refused {name.decode()}")  # noqa: TRY002 - as bcc does
        finally:
            self.under_way -= 1
        self.funcs[name] = name, kind
        return self.funcs[name]


def test_every_program_is_loaded_once_as_what_it_is() -> None:
    module = Module()
    assert load_together(module, KINDS) == {name: (name.encode(), kind) for name, kind in KINDS.items()}
    assert sorted(module.begun) == sorted(KINDS)


def test_as_many_programs_as_there_are_loaders_are_loaded_at_the_same_time() -> None:
    module = Module(together=LOADERS)
    load_together(module, KINDS)
    assert not module._together.broken
    assert set(module.begun[:LOADERS]) == set(list(KINDS)[:LOADERS])


def test_of_several_refused_programs_the_first_is_said_last_and_no_thread_is_left() -> None:
    module = Module(refused=("program_1", "program_2"))
    with pytest.raises(Exception, match="the kernel refused program_1"):
        load_together(module, KINDS)
    assert module.begun[-1] == "program_1"
    assert module.under_way == 0


class Interrupt(BaseException):
    """As Ctrl-C raises it."""


def test_an_interrupt_is_raised_once_the_programs_under_way_are_loaded() -> None:
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise Interrupt

    class Interrupting(Module):
        def load_func(self, name: bytes, kind: int) -> tuple[bytes, int]:
            if not interrupted.is_set() and name == b"program_0":
                signal.raise_signal(signal.SIGUSR1)
            interrupted.wait(timeout=10)
            return super().load_func(name, kind)

    module = Interrupting()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupt):
            load_together(module, KINDS)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert 1 <= len(module.funcs) == len(module.begun)
    assert module.under_way == 0
