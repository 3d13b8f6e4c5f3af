"""What went wrong for single processes while the recording went on for all others.

A process can have anything in its memory and files.  What cannot be read in time is given up, and an exception that
nobody expected costs the one process its names: both are counted, told once, and logged.
"""

from __future__ import annotations

from collections.abc import Callable

from pyflame_ebpf.host import guarded_reads
from pyflame_ebpf.identity import Identity

TOLD_MAX = 8  # processes and files that are named in warnings; all are counted
FILES_MAX = 1 << 14  # files over their budget that are counted
OF_ALL = 0  # the PID that stands for all processes
READS_GIVEN_UP, DEFECTS, FILES_OVER_BUDGET = "reads_given_up", "defects", "files_over_budget"  # counters

Tell = Callable[[str], None]
Report = Callable[[Exception], object]  # saves what is known of a defect, and returns where


class Mishaps:
    """Counts what went wrong.  ``tell`` is given each warning, ``report`` the first defect of each kind."""

    def __init__(self, tell: Tell = lambda _text: None, report: Report = lambda _error: None) -> None:
        self._tell = tell
        self._report = report
        self._told = 0
        self._kinds: set[tuple[type[Exception], int]] = set()
        self._processes: set[Identity | int] = set()
        self.defects = 0
        self._over_budget: set[str] = set()  # files, as they are told

    def defect(self, error: Exception, process: Identity | int) -> None:
        """Notes that an exception which nobody expected has cost a process, given by identity or PID, something."""
        self.defects += 1
        if process in self._processes:
            return
        self._processes.add(process)
        kind = type(error), _line_of(error)
        where = "" if kind in self._kinds or len(self._kinds) >= TOLD_MAX else self._report(error)
        self._kinds.add(kind)
        pid = process.tgid if isinstance(process, Identity) else process
        whose = f"process {pid}" if pid != OF_ALL else "the recording"
        saved = f"; what is known of it is in {where}; please send it to the project" if where else ""
        self._warn(f"{whose} may lack names, for a defect in pyflame-ebpf: {type(error).__name__}: {error}{saved}")

    def over_budget(self, file: str) -> None:
        """Notes that a mapped file, as it is to be told, takes too much time or memory to read."""
        if file not in self._over_budget and len(self._over_budget) < FILES_MAX:
            self._over_budget.add(file)
            self._warn(f"{file} takes too much time or memory to read: stacks may end in it")

    def look(self) -> None:
        """Tells what was given up since the last look."""
        reads = guarded_reads.reads()
        if isinstance(reads, guarded_reads.GuardedReads):
            for name in reads.names_given_up():
                self._warn(f"given up: reading {name} did not return")

    def _warn(self, text: str) -> None:
        self._told += 1
        if self._told <= TOLD_MAX:
            self._tell(text)
        elif self._told == TOLD_MAX + 1:
            self._tell("there is more of that kind, which is counted only")

    def counters(self) -> dict[str, int]:
        """The counters as the profile has them."""
        reads = guarded_reads.reads()
        given_up = reads.given_up if isinstance(reads, guarded_reads.GuardedReads) else 0
        return {READS_GIVEN_UP: given_up, DEFECTS: self.defects, FILES_OVER_BUDGET: len(self._over_budget)}


def _line_of(error: Exception) -> int:
    """The line where an exception arose, which with its type tells defects apart."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else 0
