"""A process's directory in /proc, held open, so that its PID can be used again without another process answering."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import BinaryIO

from pyflame_ebpf.elf.file import BadElf
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import guarded_reads, read_operations
from pyflame_ebpf.host.guarded_reads import FILE_PATIENCE, PATIENCE, Answer, FileStatus, ReadGivenUp, Subject
from pyflame_ebpf.host.process_stat import parse_stat

TEXT_MAX = 1 << 20  # bytes
FilePlace = tuple[int, int]  # device and inode
_NOBODY = -1  # a user that is not known
_GONE = (errno.ENOENT, errno.ESRCH)
# All else waits for a lock (exec_update_lock) that a process holds while it executes a program.  It may then wait for a
# file system in user space, which is told of each file that is closed by that.
_NEVER_HANG = ("comm", "status")
_NOWHERE = "/proc/0/"  # no process has this PID


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


class ProcessDirectory:
    """The directory of one process in /proc: held open by a descriptor, or reached by its PID each time.

    A held directory belongs to its process whatever the PID is used for later (fs/proc/base.c: its inode refers to a
    ``struct pid``, not to a number), so reads raise ProcessGone once the process was reaped.  A directory that is
    reached by PID compares the start time at every read if ``start_ticks`` is given, and trusts the PID if not.
    """

    __slots__ = ("_descriptor", "_place", "_start_ticks", "_trusts_pid", "pid")

    def __init__(self, pid: int, start_ticks: int | None = None) -> None:
        self.pid = pid
        self._descriptor: int | None = None
        self._place = f"/proc/{pid}/"
        self._start_ticks = start_ticks
        self._trusts_pid = start_ticks is None

    @classmethod
    def held(cls, pid: int) -> ProcessDirectory:
        """A directory held open; its user closes it.  Raises ProcessGone, and OSError without a free descriptor."""
        directory = cls(pid)
        with directory._errors():
            directory._descriptor = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        directory._place, directory._trusts_pid = "", False
        return directory

    @property
    def is_held(self) -> bool:
        """Whether it has a descriptor."""
        return self._descriptor is not None

    def close(self) -> None:
        """Ends its use: from now on it answers as if the process were gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._start_ticks, self._trusts_pid = None, None, False
        self._place = _NOWHERE

    def exists(self) -> bool:
        """Whether the process still has its PID: it runs, or is a zombie."""
        if self._start_ticks is None:
            return os.access(f"{self._place}stat", os.F_OK, dir_fd=self._descriptor)
        try:
            return parse_stat(self._read("stat", TEXT_MAX)).start_ticks == self._start_ticks
        except (OSError, IndexError):  # gone, or gone between opening and reading
            return False

    def confirm(self) -> None:
        """Raises ProcessGone if the process has lost its PID, so that what was asked by PID until now is another's."""
        if not self._trusts_pid and not self.exists():
            raise ProcessGone(self.pid)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of a file or directory in it, for the caller to close.  Raises ProcessGone, ProcessDenied."""
        with self._errors():
            handle = os.open(f"{self._place}{name}", flags | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            self._confirm_path()
        except BaseException:
            os.close(handle)
            raise
        return handle

    def read(self, name: str, limit: int = TEXT_MAX) -> bytes:
        """The first ``limit`` bytes of a file in it.  Raises ProcessGone, ProcessDenied, ReadGivenUp."""
        with self._errors():
            text = self._read(name, limit)
        self._confirm_path()
        return text

    def link(self, name: str) -> str:
        """Where a link in it leads, as the kernel spells it.  Raises ProcessGone, ProcessDenied, ReadGivenUp."""
        with self._errors():
            target: str = self.ask("link", name).value
        self._confirm_path()
        return target

    def status(self, name: str) -> FileStatus:
        """The stat of what a name in it leads to.  Raises ProcessGone, ProcessDenied, ReadGivenUp."""
        with self._errors():
            status = FileStatus(*self.ask("status", name).value)
        self._confirm_path()
        return status

    def statuses(self, names: list[str]) -> list[FileStatus | None]:
        """The stat of what each name in it leads to, None where it cannot be had.

        Raises ProcessGone, ProcessDenied, ReadGivenUp.
        """
        with self._errors():
            found = self.ask("statuses", [f"{self._place}{name}" for name in names]).value
        self._confirm_path()
        return [None if status is None else FileStatus(*status) for status in found]

    def folder(self, name: str) -> tuple[int, FileStatus]:
        """A descriptor, for the caller to close, of a directory that a name in it leads to, and its stat.

        Raises ProcessGone, ProcessDenied, ReadGivenUp.
        """
        with self._errors():
            answer = self.ask("folder", name)
        try:
            self._confirm_path()
        except BaseException:
            os.close(answer.handle)
            raise
        return answer.handle, FileStatus(*answer.value)

    def memory(self, address: int, size: int) -> bytes:
        """Exactly ``size`` bytes of the process's memory.  Raises OSError, ReadGivenUp."""
        data: bytes = self.ask("memory", "mem", self.pid, address, size).value
        return data

    def names(self, name: str) -> list[str]:
        """What a directory in it holds.  Raises ProcessGone, ProcessDenied."""
        handle = self.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._errors():
                return os.listdir(handle)  # noqa: PTH208 - a descriptor has no path
        finally:
            os.close(handle)

    def open_regular(self, name: str, place: FilePlace | None = None) -> tuple[BinaryIO, FileStatus]:
        """What a name in it leads to, if that is a regular file, and its stat.

        A file on a file system that may stall is copied into memory.  ``place`` is given up if it does not answer,
        None: the process.  Raises OSError, BadElf, ProcessGone, ReadGivenUp.
        """
        try:
            answer = self.ask("opened", name, guarded_reads.copies(), place=place, patience=FILE_PATIENCE)
        except ReadGivenUp:
            raise
        except OSError as error:
            if not self.exists():
                raise ProcessGone(self.pid) from error
            if error.errno == errno.EINVAL:
                raise BadElf(error.strerror or name) from error
            raise
        status = FileStatus(*answer.value)
        file = os.fdopen(guarded_reads.file_of(answer.handle, status), "rb", buffering=0)
        try:
            self._confirm_path()
        except BaseException:
            file.close()
            raise
        return file, status

    def ask(
        self,
        operation: str,
        name: str | list[str],
        *arguments: object,
        place: FilePlace | None = None,
        patience: float = PATIENCE,
    ) -> Answer:
        """Has what may hang done with a name in it.  Raises OSError, ReadGivenUp."""
        return guarded_reads.reads().ask(
            operation,
            name if isinstance(name, list) else f"{self._place}{name}",
            *arguments,
            directory=self._descriptor,
            subject=lambda: self.subject(place),
            patience=patience,
        )

    def subject(self, place: FilePlace | None = None) -> Subject:
        """What is given up where this process's reads do not return: a file at a place, None: the process.

        With a file on a device that is no disk, as of servers and of programs, all files of that device are given up.
        """
        name, user = "?", _NOBODY
        with contextlib.suppress(OSError, IndexError, ValueError):
            name = self._read("comm", TEXT_MAX).removesuffix(b"\n").decode("utf-8", "replace")
            user = _real_user(self._read("status", TEXT_MAX))
        process = f"process {self.pid} ({name})"
        if place is None:
            return Subject(("process", self.pid), user, process)
        device = f"device {os.major(place[0])}:{os.minor(place[0])}"
        if os.major(place[0]):
            return Subject(("file", *place), user, f"file {place[1]} of {device}, as of {process}")
        return Subject(("device", place[0]), user, f"files of {device}, as of {process}")

    def _read(self, name: str, limit: int) -> bytes:
        if name.rpartition("/")[2] in _NEVER_HANG:
            return read_operations.text(self._descriptor, f"{self._place}{name}", limit)
        text: bytes = self.ask("text", name, limit).value
        return text

    def _confirm_path(self) -> None:
        """As ``confirm``, for what was reached through ``_place``: below a held directory it is this process's."""
        if self._descriptor is None:
            self.confirm()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns the errors of a system call into ours; others pass."""
        try:
            yield
        except PermissionError as error:
            raise ProcessDenied(self.pid) from error
        except OSError as error:
            if error.errno in _GONE:
                raise ProcessGone(self.pid) from error
            raise


def _real_user(status: bytes) -> int:
    """The real user id in a text of /proc/PID/status, whose first line is the name, which may hold anything else."""
    line = next((line for line in status.split(b"\n")[1:] if line.startswith(b"Uid:")), b"")
    return int(line.split()[1])


PidOrDirectory = int | ProcessDirectory  # a PID where nothing depends on whether it was used again


def directory_of(process: PidOrDirectory) -> ProcessDirectory:
    """The directory of a process that is given by either."""
    return process if isinstance(process, ProcessDirectory) else ProcessDirectory(process)
