"""Ctrl-C and other signals that end a recording; their effect depends on how far it is."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from pyflame_ebpf.errors import Interrupted

SAME_REQUEST = 0.5  # seconds: timeout(1) signals its child, then the child's group; both are one request
# By default SIGQUIT would lose a recording, and leave the terminal in the mode of the live view.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class StopSignals(contextlib.AbstractContextManager["StopSignals"]):
    """Takes the signals of ``STOPPING``: each raises Interrupted; after ``note_only`` it is noted.

    An ignored SIGHUP stays ignored, as nohup wants it.  An ignored SIGINT does not: shells ignore it for background
    jobs, and it is the way to end a recording there.
    """

    def __init__(self) -> None:
        self.noted: list[int] = []
        self._raises = True
        self._last = float("-inf")
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        """Take the signals."""
        for number in STOPPING:
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
        """Note signals from now on; they raise nothing."""
        self._raises = False

    @contextlib.contextmanager
    def raising(self, already: int) -> Iterator[None]:
        """Let signals raise Interrupted inside.  Raises it at once if more than ``already`` signals were noted."""
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
