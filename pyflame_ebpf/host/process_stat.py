"""The fields of /proc/PID/stat."""

from __future__ import annotations

from dataclasses import dataclass

_PF_KTHREAD = 0x00200000  # include/linux/sched.h


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc/PID/stat says; ``start_ticks`` counts clock ticks since the host started."""

    name: str
    state: str
    parent: int
    flags: int
    threads: int
    start_ticks: int

    @property
    def kernel_thread(self) -> bool:
        """Whether it is a thread of the kernel."""
        return bool(self.flags & _PF_KTHREAD)

    @property
    def alive(self) -> bool:
        """Whether it still has memory: neither a zombie nor dead."""
        return self.state not in "ZXx"


def parse_stat(text: bytes) -> ProcessStat:
    """The fields of a text of /proc/PID/stat, of which the name may hold any bytes: blanks, parentheses, line ends."""
    head, _, tail = text.rpartition(b")")
    fields = tail.split()
    return ProcessStat(
        name=head.partition(b"(")[2].decode("utf-8", "replace"),
        state=fields[0].decode("ascii"),
        parent=int(fields[1]),
        flags=int(fields[6]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
    )
