"""The only reader of /proc/PID: mappings, mapped files, memory, names and times of processes.

Processes end while they are read: whatever is asked about one that is gone raises ProcessGone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pyflame_ebpf.elf.image import open_regular
from pyflame_ebpf.errors import PyflameError

_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_CPUCLOCK_SCHED = 2  # include/linux/posix-timers.h: the clock of the CPU time that the scheduler charged
_MAPS_MAX = 64 << 20  # bytes
_TEXT_MAX = 1 << 20
_MEMORY_MAX = 64 << 20
_DELETED = b" (deleted)"
_GONE = (errno.ENOENT, errno.ESRCH)


class ProcessGone(PyflameError):
    """A process ended, or never was."""

    exit_code = 10

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} does not exist", "it may have ended; ps -e lists those that run")
        self.pid = pid


class ProcessDenied(PyflameError):
    """A process of which the kernel does not let us read what is needed."""

    exit_code = 11

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} may not be read by this user", "run as root, in the initial user namespace")
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps; ``path`` is "" for anonymous memory, ``device`` as st_dev."""

    start: int
    end: int
    offset: int
    executable: bool
    device: int
    inode: int
    path: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Credentials:
    """User, group and further groups that decide what files may be opened."""

    uid: int
    gid: int
    groups: tuple[int, ...]


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


@contextmanager
def _of_process(pid: int) -> Iterator[None]:
    """Turn the errors of a read below /proc/PID into ours; others pass."""
    try:
        yield
    except PermissionError as error:
        raise ProcessDenied(pid) from error
    except OSError as error:
        if error.errno in _GONE:
            raise ProcessGone(pid) from error
        raise


def _read(pid: int, name: str, limit: int = _TEXT_MAX) -> bytes:
    """A file of /proc/PID, cut at ``limit`` bytes."""
    with _of_process(pid), open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - a path object costs more
        return file.read(limit)


def pids() -> list[int]:
    """Every process that runs, in rising order of PID."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - strings wanted


def parse_maps(text: bytes) -> list[Mapping]:
    """The lines of /proc/PID/maps; a line cut short is left out."""
    return [mapping for line in text.split(b"\n") if (mapping := _parse_mapping(line)) is not None]


def _parse_mapping(line: bytes) -> Mapping | None:
    fields = line.split(None, 5)
    if len(fields) < 5:  # noqa: PLR2004 - address, permissions, offset, device, inode
        return None
    start, _, end = fields[0].partition(b"-")
    major, _, minor = fields[3].partition(b":")
    # The path may begin with blanks: it starts at column 73, or after one blank where the columns before are wider.
    path = line[max(73, _end_of_fields(line)) :] if len(fields) > 5 else b""  # noqa: PLR2004
    deleted = path.endswith(_DELETED)
    if deleted:
        path = path[: -len(_DELETED)]
    return Mapping(
        int(start, 16),
        int(end, 16),
        int(fields[2], 16),
        b"x" in fields[1],
        os.makedev(int(major, 16), int(minor, 16)),
        int(fields[4]),
        os.fsdecode(path.replace(b"\\012", b"\n")),
        deleted,
    )


_FIVE_FIELDS = re.compile(rb"(?:\S+ ){4}\S+ ")


def _end_of_fields(line: bytes) -> int:
    found = _FIVE_FIELDS.match(line)
    return found.end() if found else 0


def mappings(pid: int) -> list[Mapping]:
    """What a process has mapped, by rising address; empty for kernel threads and zombies."""
    return parse_maps(_read(pid, "maps", _MAPS_MAX))


def open_mapped_file(pid: int, mapping: Mapping) -> BinaryIO:
    """Open the very file that is mapped, deleted or not, in whatever mount namespace; OSError, BadElf, ProcessGone.

    /proc/PID/map_files needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.  Without, the path is opened in the process's
    own root.  Either way the inode must be the mapped one, unless the devices differ too: overlayfs and btrfs show
    others in maps than stat does.
    """
    try:
        file = open_regular(f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}")
    except OSError as error:
        if not Path(f"/proc/{pid}").exists():
            raise ProcessGone(pid) from error
        if mapping.deleted or not mapping.path.startswith("/"):
            raise
        file = open_regular(f"/proc/{pid}/root{mapping.path}")
    # The mapping may have been replaced since maps was read; a path may lead anywhere.
    status = os.fstat(file.fileno())
    if status.st_ino != mapping.inode and (status.st_dev == mapping.device or not mapping.inode):
        file.close()
        raise OSError(errno.ESTALE, "another file is mapped there now", mapping.path)
    return file


def parse_stat(text: bytes) -> ProcessStat:
    """The text of /proc/PID/stat, whose second field may hold blanks and parentheses."""
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


def process_stat(pid: int) -> ProcessStat:
    """Name, state, parent, flags and start of a process."""
    text = _read(pid, "stat")
    if not text:
        raise ProcessGone(pid)
    return parse_stat(text)


def is_alive(pid: int) -> bool:
    """Whether the process runs: it exists and is no zombie."""
    try:
        return process_stat(pid).alive
    except ProcessGone:
        return False


def arguments(pid: int) -> tuple[str, ...]:
    """The command line's words; empty for kernel threads and zombies."""
    text = _read(pid, "cmdline").rstrip(b"\0")
    return tuple(os.fsdecode(word) for word in text.split(b"\0")) if text else ()


def command_line(pid: int) -> str:
    """The command line as it would be typed; a title that a process gave itself (setproctitle) as it stands."""
    words = arguments(pid)
    return words[0] if len(words) == 1 else shlex.join(words)


def name(pid: int) -> str:
    """The kernel's name (comm) of the process."""
    return _read(pid, "comm").decode("utf-8", "replace").rstrip("\n")


def thread_ids(pid: int) -> list[int]:
    """The TIDs of a process, in rising order."""
    with _of_process(pid):
        return sorted(int(tid) for tid in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - strings wanted


def thread_name(pid: int, tid: int) -> str:
    """The kernel's name of one thread."""
    return _read(pid, f"task/{tid}/comm").decode("utf-8", "replace").rstrip("\n")


def _status_field(pid: int, field: str) -> list[str]:
    for line in _read(pid, "status").decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return value.split()
    return []


def user_id(pid: int) -> int:
    """The real user id that the process runs under."""
    return int(_status_field(pid, "Uid")[0])


def credentials(pid: int) -> Credentials:
    """With whose rights the process opens files, in ids of our user namespace."""
    uids, gids, groups = (_status_field(pid, field) for field in ("Uid", "Gid", "Groups"))
    return Credentials(int(uids[3]), int(gids[3]), tuple(map(int, groups)))


def namespace_pids(pid: int) -> tuple[int, ...]:
    """The PIDs of a process in each PID namespace it is in, ours first."""
    return tuple(int(number) for number in _status_field(pid, "NSpid")) or (pid,)


def executable_path(pid: int) -> str:
    """Where the process's program was, as the process sees it; with " (deleted)" where it is gone."""
    with _of_process(pid):
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - as it stands


def executable_status(pid: int) -> os.stat_result:
    """The stat of the process's program."""
    with _of_process(pid):
        return Path(f"/proc/{pid}/exe").stat()


def executable_identity(pid: int, mapped: list[Mapping]) -> tuple[int, int]:
    """(device, inode) of the process's program as its mappings have them, (0, 0) when it is not among them.

    By stat, else by path: under overlayfs and btrfs stat shows another device than maps.
    """
    status = executable_status(pid)
    if any((mapping.device, mapping.inode) == (status.st_dev, status.st_ino) for mapping in mapped):
        return status.st_dev, status.st_ino
    path = executable_path(pid).removesuffix(_DELETED.decode())
    return next(((mapping.device, mapping.inode) for mapping in mapped if mapping.path == path), (0, 0))


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, ended ones included, to the nanosecond; needs no permission."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9
    except OSError as error:  # EINVAL: the clock of no process
        raise ProcessGone(pid) from error


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_process_vm_readv = _libc.process_vm_readv
_process_vm_readv.restype = ctypes.c_ssize_t
_process_vm_readv.argtypes = (
    ctypes.c_int,
    ctypes.POINTER(_IoVector),
    ctypes.c_ulong,
    ctypes.POINTER(_IoVector),
    ctypes.c_ulong,
    ctypes.c_ulong,
)


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Exactly ``size`` bytes of a process's memory; OSError when not all can be read, ProcessGone."""
    if not 0 <= size <= _MEMORY_MAX or not 0 <= address < 1 << 64:
        raise OSError(errno.EINVAL, f"{size} bytes at {address:#x} cannot be asked for")
    buffer = ctypes.create_string_buffer(size)
    local = _IoVector(ctypes.addressof(buffer), size)
    remote = _IoVector(address, size)
    done = _process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    if done == size:
        return buffer.raw
    number = ctypes.get_errno() if done < 0 else errno.EFAULT
    if number == errno.ESRCH:
        raise ProcessGone(pid)
    if number in (errno.EPERM, errno.ENOSYS):  # a seccomp filter of a container; /proc may still be open to us
        return _read_memory_file(pid, address, size)
    raise OSError(number, f"{size} bytes at {address:#x} of process {pid}: {os.strerror(number)}")


def _read_memory_file(pid: int, address: int, size: int) -> bytes:
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered
            data = os.pread(file.fileno(), size, address)
    except OverflowError as error:
        raise OSError(errno.EFAULT, f"no memory of a process is at {address:#x}") from error
    if len(data) != size:
        raise OSError(errno.EFAULT, f"{size} bytes at {address:#x} of process {pid} cannot be read")
    return data
