"""A limit of time for patterns of the command line, which are matched with names that strangers choose.

A pattern such as ``(a+)+$`` takes time that doubles with each ``a`` of a process's name.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from pyflame_ebpf.errors import UsageError

MATCHING_MAX = 30.0  # seconds; the most samples that a profile can have are selected in five


@contextlib.contextmanager
def limited_matching(seconds: float = MATCHING_MAX) -> Iterator[None]:
    """Raises UsageError where selecting samples by patterns takes longer.  Other threads than the main one may not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _expired)  # the engine of regular expressions looks for signals
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _expired(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise UsageError(
        "matching --process with the names of the processes takes too long",
        "Give a simpler pattern: a repetition within a repetition, as in (a+)+, takes time without end.",
    )
