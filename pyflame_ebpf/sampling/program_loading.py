"""Hands compiled programs to the kernel, several at once, and keeps what bcc and LLVM print meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections import deque
from collections.abc import Iterator
from threading import Lock, Thread
from typing import Any, BinaryIO, Protocol

LOADERS = 4  # programs that are verified at the same time, each on one CPU
_LOOK = 0.02  # seconds between two looks for signals
_LINES_SAID = 15


class Module(Protocol):
    """Compiled programs, as ``bcc.BPF`` has them."""

    def load_func(self, func_name: bytes, prog_type: int) -> Any:
        """Load a program, or return it if it is loaded.  Raises Exception if the kernel refuses it."""


def load_together(module: Module, kinds: dict[str, int]) -> dict[str, Any]:
    """Load programs, given as {name: program type}, and return what bcc makes of each by its name.

    The kernel verifies the first of ``kinds`` first.  bcc's ``load_func`` may run in several threads: it only reads
    what was compiled, and errno is the thread's own.  After a signal no further program is begun, and its handler runs
    once no program is being loaded.
    """
    with _held_signals():
        _load_in_threads(module, kinds)
    # bcc keeps loaded programs.  A refused one fails again, alone, so that the kernel's last message is about it.
    return {name: module.load_func(name.encode(), kind) for name, kind in kinds.items()}


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Hold back signals that have a handler, for this thread and those that it starts; then the handlers run."""
    handled = {number for number in signal.valid_signals() if callable(signal.getsignal(number))}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _load_in_threads(module: Module, kinds: dict[str, int]) -> None:
    """Load as many programs as can be loaded, until a signal is pending; then no thread works any more."""
    waiting = deque(kinds.items())
    working = [Lock() for _ in range(LOADERS)]
    loaders = [Thread(target=_load_waiting, args=(module, waiting, lock), daemon=True) for lock in working]
    try:
        for loader in loaders:
            loader.start()
        for loader in loaders:
            while loader.is_alive():
                loader.join(_LOOK)
                if signal.sigpending():
                    waiting.clear()
    except RuntimeError:
        return  # no more threads can be started: programs are loaded one by one
    finally:
        # A signal that another thread takes raises here all the same, and in the middle of a thread's start nobody
        # knows whether it runs.  A thread that takes its lock later than this finds nothing to load.
        waiting.clear()
        for lock in working:
            with lock:
                pass


def _load_waiting(module: Module, waiting: deque[tuple[str, int]], working: Lock) -> None:
    """Load programs until none waits or one is refused; holds the lock all the time."""
    with working:
        while waiting:
            with contextlib.suppress(IndexError):  # another thread was faster
                name, kind = waiting.popleft()
                try:
                    module.load_func(name.encode(), kind)
                except Exception:  # noqa: BLE001 - bcc raises nothing more special; it is loaded again, alone
                    waiting.clear()


@contextlib.contextmanager
def captured_stderr() -> Iterator[BinaryIO]:
    """Collect in a file what libbcc and LLVM print straight to file descriptor 2."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def said(captured: BinaryIO) -> str:
    """The last 15 lines of what was collected."""
    captured.seek(0)
    lines = captured.read().decode("utf-8", "replace").strip().split("\n")
    return "\n".join(lines[-_LINES_SAID:])
