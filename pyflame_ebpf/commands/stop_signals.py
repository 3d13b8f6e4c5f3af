"""Ctrl-C and its kin: what they mean depends on how far the recording is."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any

from pyflame_ebpf.errors import Interrupted

SAME_REQUEST = 0.5  # seconds: timeout(1) signals its child and then the group, which is one request and not two
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDING_A_VIEW = (*STOPPING, signal.SIGQUIT)  # which would leave the terminal as the view needs it


class StopSignals(contextlib.AbstractContextManager["StopSignals"]):
    """Takes SIGINT, SIGTERM and SIGHUP, or others: they raise Interrupted, or are only noted after ``note_only``.

    SIGHUP stays ignored where it was, as nohup wants it.  SIGINT does not: shells ignore it for all background jobs,
    and there it is the way to end a recording.
    """

    def __init__(self, numbers: Sequence[int] = STOPPING) -> None:
        self.noted: list[int] = []
        self._numbers = numbers
        self._raises = True
        self._last = float("-inf")
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        """Take the signals."""
        for number in self._numbers:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._take)
        return self

    def _take(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        repeated = now - self._last < SAME_REQUEST
        self._last = now
        if repeated:
            return
        self.noted.append(number)
        if self._raises:
            raise Interrupted(number)

    def note_only(self) -> None:
        """From now on signals are noted and raise nothing."""
        self._raises = False

    @contextlib.contextmanager
    def raising(self, already: int) -> Iterator[None]:
        """Inside, a signal raises Interrupted; one noted after the first ``already`` does so at once."""
        if len(self.noted) > already:
            raise Interrupted(self.noted[-1])
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
