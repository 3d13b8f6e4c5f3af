"""Names, users, times and threads of processes, as /proc/PID has them.

All of the kernel's texts are bytes here, cut by line and place: a process chooses its own name, any bytes.  Processes
end while they are read; a question about an ended one raises ProcessGone, and ProcessDenied where reading is forbidden.
"""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass

from pyflame_ebpf.host.guarded_reads import ReadGivenUp
from pyflame_ebpf.host.process_directory import PidOrDirectory, ProcessGone, directory_of
from pyflame_ebpf.host.process_stat import ProcessStat, parse_stat

_CPUCLOCK_SCHED = 2  # include/linux/posix-timers.h: the clock of the CPU time that the scheduler charged


@dataclass(frozen=True, slots=True)
class Credentials:
    """User, group and further groups that decide what files may be opened."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def pids() -> list[int]:
    """Every process that runs, in rising order of PID."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - strings wanted


def process_stat(process: PidOrDirectory) -> ProcessStat:
    """Name, state, parent, flags, number of threads and start of a process."""
    directory = directory_of(process)
    text = directory.read("stat")
    if not text:
        raise ProcessGone(directory.pid)
    return parse_stat(text)


def is_alive(process: PidOrDirectory) -> bool:
    """Whether the process runs: it exists and is no zombie."""
    try:
        return process_stat(process).alive
    except ReadGivenUp:  # it is stuck
        return True
    except ProcessGone:
        return False


def arguments(process: PidOrDirectory) -> tuple[str, ...]:
    """The command line's words; empty for kernel threads and zombies."""
    text = directory_of(process).read("cmdline").rstrip(b"\0")
    return tuple(os.fsdecode(word) for word in text.split(b"\0")) if text else ()


def command_line(process: PidOrDirectory) -> str:
    """The command line as it would be typed; a title that a process gave itself (setproctitle) as it stands."""
    words = arguments(process)
    return words[0] if len(words) == 1 else shlex.join(words)


def name(process: PidOrDirectory) -> str:
    """The kernel's name (comm) of the process."""
    return _name(directory_of(process).read("comm"))


def thread_ids(process: PidOrDirectory) -> list[int]:
    """The TIDs of a process, in rising order."""
    return sorted(int(tid) for tid in directory_of(process).names("task"))


def thread_name(process: PidOrDirectory, tid: int) -> str:
    """The kernel's name of one thread."""
    return _name(directory_of(process).read(f"task/{tid}/comm"))


def _name(text: bytes) -> str:
    """A name without the line end that the kernel adds; the name itself may hold others."""
    return text.removesuffix(b"\n").decode("utf-8", "replace")


def status_field(text: bytes, field: bytes) -> list[bytes]:
    """The words of one line of /proc/PID/status, none where it has no such line.

    The first line is the name.  The kernel escapes line ends in it and nothing else, so whatever it holds stays there.
    """
    for line in text.split(b"\n")[1:]:
        key, _, value = line.partition(b":")
        if key == field:
            return value.split()
    return []


def user_id(process: PidOrDirectory) -> int:
    """The real user id that the process runs under."""
    return int(status_field(directory_of(process).read("status"), b"Uid")[0])


def credentials(process: PidOrDirectory) -> Credentials:
    """With whose rights the process opens files, in ids of our user namespace."""
    text = directory_of(process).read("status")
    uids, gids, groups = (status_field(text, field) for field in (b"Uid", b"Gid", b"Groups"))
    return Credentials(int(uids[3]), int(gids[3]), tuple(map(int, groups)))


def namespace_pids(process: PidOrDirectory) -> tuple[int, ...]:
    """The PIDs of a process in each PID namespace it is in, ours first."""
    directory = directory_of(process)
    numbers = status_field(directory.read("status"), b"NSpid")
    return tuple(map(int, numbers)) or (directory.pid,)


def cpu_seconds(process: PidOrDirectory) -> float:
    """CPU time of all threads of a process, ended ones included, to the nanosecond; needs no permission."""
    directory = directory_of(process)
    try:
        seconds = time.clock_gettime_ns((~directory.pid << 3) | _CPUCLOCK_SCHED) / 1e9
    except OSError as error:  # EINVAL: the clock of no process
        raise ProcessGone(directory.pid) from error
    directory.confirm()  # the clock is named by PID: it was this process's if this process still has it
    return seconds
