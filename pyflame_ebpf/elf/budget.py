"""How much time and memory the files of strangers may take: the budgets, and what counts against them.

A file can say that its tables are huge and take no room on the disk.  So each purpose has a budget in seconds of the
thread's CPU time, which a busy host does not shorten, and in bytes that are in memory at once.  Loops ask their budget
between two pieces of work of a millisecond at the most, which is where signals are handled, too.

| purpose | of one file | of one process | what is lost beyond |
|---|---|---|---|
| identify (interpreter, segments, build id) | 0.1 s, 64 MB | 1 s | the file counts as one without an interpreter |
| find unwind data | 0.1 s, 64 MB | 1 s | the functions behind have no rows: stacks end there |
| make the rows of slow pages | 0.1 s in all | | the file's other pages have no rows |
| name | 2 s, 128 MB | 10 s, then 0.05 s a file | the file's functions are named ``file+0xoffset`` |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyflame_ebpf.elf.bad_elf import OverBudget, ProcessOverBudget

FILE_SECONDS = 0.1  # of CPU time; libpython takes 0.001, an unstripped Chromium 0.05
FILE_BYTES = 64 << 20
PROCESS_SECONDS = 1.0  # of CPU time for all files of one process; 300 libraries take 0.2
NAMING_SECONDS = 2.0  # of CPU time; 1.3 million symbols of Chromium take 0.3
NAMING_BYTES = 128 << 20
NAMING_PROCESS_SECONDS = 10.0  # of CPU time for all files of one process
NAMING_ENDED_SECONDS = 60.0  # of CPU time for the files of all processes that have ended
NAMING_STRAINED_SECONDS = 0.05  # of CPU time for each file beyond; half a million symbols

Clock = Callable[[], float]


class Budget:
    """The CPU seconds and bytes that one purpose may take of one file, from now on."""

    __slots__ = ("_began", "_clock", "seconds", "size", "strained")

    def __init__(self, seconds: float = FILE_SECONDS, size: int = FILE_BYTES, clock: Clock = time.thread_time) -> None:
        self.seconds = seconds
        self.size = size
        self.strained = False  # less than usual, for what came before
        self._clock = clock
        self._began = clock()

    @property
    def spent(self) -> float:
        """Seconds since the budget was made."""
        return self._clock() - self._began

    def check(self, what: str) -> None:
        """Raise OverBudget, with ``what`` in its message, once the time is spent."""
        if self.spent > self.seconds:
            raise OverBudget(f"its {what} takes more than {self.seconds:g} s of CPU time: over its budget")

    def check_size(self, size: int, what: str) -> None:
        """Raise OverBudget if so many bytes may not be in memory at once."""
        if size > self.size:
            raise OverBudget(f"its {what} takes more than {self.size >> 20} MB: over its budget")


class SharedBudget:
    """What all files of one process may take together.

    A file is begun only while there is enough left for its whole budget, so what is found in it does not depend on the
    files that came before.  Otherwise it is refused or, with ``strained_seconds``, has so much and is marked.
    """

    def __init__(
        self,
        seconds: float = PROCESS_SECONDS,
        file_seconds: float = FILE_SECONDS,
        size: int = FILE_BYTES,
        strained_seconds: float = 0.0,
        clock: Clock = time.thread_time,
    ) -> None:
        self._seconds = seconds
        self._strained_seconds = strained_seconds
        self._left = seconds
        self._file_seconds = file_seconds
        self._size = size
        self._clock = clock

    @contextmanager
    def file(self) -> Iterator[Budget]:
        """The budget of the next file.  Raises ProcessOverBudget if too little is left."""
        strained = self._left < self._file_seconds
        if strained and not self._strained_seconds:
            raise ProcessOverBudget(f"its process's files take more than {self._seconds:g} s of CPU time: over budget")
        budget = Budget(self._strained_seconds if strained else self._file_seconds, self._size, self._clock)
        budget.strained = strained
        try:
            yield budget
        finally:
            self._left -= budget.spent
