"""Several BPF programs are verified at the same time; bcc's part is played by the test."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from pyflame_ebpf.sampling.program_loading import LOADERS, captured_stderr, load_together, said

KINDS = {f"program_{number}": number for number in range(3 * LOADERS)}


class Module:
    """Loads what is not ``refused``, each program once; each of the first waits until as many are being loaded."""

    def __init__(self, refused: tuple[str, ...] = (), together: int = 1) -> None:
        self.funcs: dict[bytes, tuple[bytes, int]] = {}
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.broken = threading.Event()
        self._refused = refused
        self._together = threading.Barrier(together)
        self._first = set(list(KINDS)[:together])

    def load_func(self, func_name: bytes, prog_type: int) -> tuple[bytes, int]:
        name = func_name.decode()
        if func_name in self.funcs:
            return self.funcs[func_name]
        self.begun.append(name)
        try:
            if name in self._first:
                self._together.wait(timeout=10)
            if name in self._refused:
                raise Exception(f"the kernel refused {name}")  # noqa: TRY002 - as bcc does
        finally:
            self.ended.append(name)
        self.funcs[func_name] = func_name, prog_type
        return self.funcs[func_name]

    @property
    def under_way(self) -> int:
        return len(self.begun) - len(self.ended)


def test_every_program_is_loaded_once_as_what_it_is() -> None:
    module = Module()
    assert load_together(module, KINDS) == {name: (name.encode(), kind) for name, kind in KINDS.items()}
    assert sorted(module.begun) == sorted(KINDS)


def test_as_many_programs_as_there_are_loaders_are_loaded_at_the_same_time() -> None:
    module = Module(together=LOADERS)
    load_together(module, KINDS)
    assert not module._together.broken
    assert set(module.begun[:LOADERS]) == set(list(KINDS)[:LOADERS])


def test_of_several_refused_programs_the_first_is_said_last() -> None:
    module = Module(refused=("program_1", "program_2"))
    with pytest.raises(Exception, match="the kernel refused program_1"):
        load_together(module, KINDS)
    assert module.begun[-1] == "program_1"
    assert module.under_way == 0


def test_programs_are_loaded_one_by_one_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    module = Module()
    load_together(module, KINDS)
    assert module.begun == list(KINDS)


class Interrupt(BaseException):
    """As Ctrl-C raises it."""


def interrupt(*_: object) -> None:
    raise Interrupt


@contextmanager
def on_signal(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


class Signalled(Module):
    """Sends signals once as many programs as possible are under way, and ends none of them before that is noticed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, signals: int = 1) -> None:
        super().__init__(together=LOADERS)
        self._signals = signals
        self._looks = 0
        self._noticed = threading.Event()
        self._pending: Callable[[], set[signal.Signals]] = signal.sigpending
        monkeypatch.setattr(signal, "sigpending", self._look)

    def _look(self) -> set[signal.Signals]:
        found = self._pending()
        self._looks += bool(found)
        if self._looks == 2:  # what follows the first has been done
            self._noticed.set()
        return found

    def load_func(self, func_name: bytes, prog_type: int) -> tuple[bytes, int]:
        is_first = func_name == b"program_0" and not self.funcs.get(func_name)
        loaded = super().load_func(func_name, prog_type)
        for _ in range(self._signals * is_first):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert self._noticed.wait(timeout=10)
        return loaded


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interrupt_is_raised_once_the_programs_under_way_are_loaded(
    monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    module = Signalled(monkeypatch, signals)
    with on_signal(interrupt), pytest.raises(Interrupt):
        load_together(module, KINDS)
    assert sorted(module.begun) == sorted(module.ended) == list(KINDS)[:LOADERS]


def test_a_signal_whose_handler_returns_leaves_all_programs_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[int] = []
    module = Signalled(monkeypatch)
    with on_signal(lambda number, _frame: received.append(number)):
        load_together(module, KINDS)
    assert received == [signal.SIGUSR1]
    assert sorted(module.funcs) == sorted(name.encode() for name in KINDS)


def test_signals_are_held_no_longer_than_threads_load() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    load_together(Module(), KINDS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("runs", [True, False], ids=["the thread runs", "the thread does not run yet"])
def test_an_interrupt_while_a_thread_starts_leaves_no_loader_behind(
    monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """Of a signal that another thread took: between the start of a loader and the note that it was started."""
    begun, never = threading.Event(), threading.Event()
    start = threading.Thread.start
    late: list[threading.Thread] = []

    class Begun(Module):
        entered = 0

        def load_func(self, func_name: bytes, prog_type: int) -> tuple[bytes, int]:
            self.entered += 1
            begun.set()
            never.wait(0.05)  # as the kernel takes its time
            return super().load_func(func_name, prog_type)

    def interrupted(thread: threading.Thread) -> None:
        if runs:
            start(thread)
            assert begun.wait(timeout=10)
        else:
            late.append(thread)
        raise Interrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    module = Begun()
    with pytest.raises(Interrupt):
        load_together(module, KINDS)
    loaded = list(module.begun)
    assert (bool(loaded), len(module.ended)) == (runs, module.entered)
    for thread in late:
        start(thread)
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert module.begun == loaded


def test_the_last_lines_of_what_is_printed_to_the_descriptor_are_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with captured_stderr() as captured:
        os.write(2, b"".join(b"line %d\n" % number for number in range(20)))
        lines = said(captured)
    os.write(2, b"later")
    assert lines.splitlines() == [f"line {number}" for number in range(5, 20)]
    assert capfd.readouterr().err == "later"
