"""A process's directory in /proc, held open, so that its PID can be used again without another process answering."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import BinaryIO

from pyflame_ebpf.elf.file import open_regular
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.process_stat import parse_stat

TEXT_MAX = 1 << 20  # bytes
_PART = 1 << 16  # bytes of one read
_GONE = (errno.ENOENT, errno.ESRCH)
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
        """The first ``limit`` bytes of a file in it.  Raises ProcessGone, ProcessDenied."""
        with self._errors():
            text = self._read(name, limit)
        self._confirm_path()
        return text

    def link(self, name: str) -> str:
        """Where a link in it leads, as the kernel spells it.  Raises ProcessGone, ProcessDenied."""
        with self._errors():
            target = os.readlink(f"{self._place}{name}", dir_fd=self._descriptor)
        self._confirm_path()
        return target

    def status(self, name: str) -> os.stat_result:
        """The stat of what a name in it leads to.  Raises ProcessGone, ProcessDenied."""
        with self._errors():
            status = os.stat(f"{self._place}{name}", dir_fd=self._descriptor)
        self._confirm_path()
        return status

    def names(self, name: str) -> list[str]:
        """What a directory in it holds.  Raises ProcessGone, ProcessDenied."""
        handle = self.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._errors():
                return os.listdir(handle)  # noqa: PTH208 - a descriptor has no path
        finally:
            os.close(handle)

    def open_regular(self, name: str) -> BinaryIO:
        """What a name in it leads to, if that is a regular file.  Raises OSError, BadElf, ProcessGone."""
        try:
            file = open_regular(f"{self._place}{name}", self._descriptor)
        except OSError as error:
            if not self.exists():
                raise ProcessGone(self.pid) from error
            raise
        try:
            self._confirm_path()
        except BaseException:
            file.close()
            raise
        return file

    def _read(self, name: str, limit: int) -> bytes:
        handle = os.open(f"{self._place}{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            parts = []
            while limit > 0 and (part := os.read(handle, min(_PART, limit))):
                parts.append(part)
                limit -= len(part)
            return b"".join(parts)
        finally:
            os.close(handle)

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


PidOrDirectory = int | ProcessDirectory  # a PID where nothing depends on whether it was used again


def directory_of(process: PidOrDirectory) -> ProcessDirectory:
    """The directory of a process that is given by either."""
    return process if isinstance(process, ProcessDirectory) else ProcessDirectory(process)
