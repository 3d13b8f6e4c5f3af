"""New directories and files for outputs, made by root in places that others may write to.

Nothing that exists is overwritten.  Files are made relative to a descriptor of their directory, with O_EXCL and
O_NOFOLLOW, so that a symbolic link in the last place of a path is never followed.  Root gives what it makes to the user
who ran sudo, through a descriptor of the file, and nothing that was there before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pyflame_ebpf.errors import PyflameError

FULL = (errno.ENOSPC, errno.EDQUOT)
PLACES_WITH_ROOM = ("/var/tmp", "/tmp", "/dev/shm", "/run")  # noqa: S108 - mkstemp, for when the disk is full
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Write = Callable[[BinaryIO], None]


class OutputExists(PyflameError):
    """The output is there already, and is never overwritten."""

    exit_code = 13


class OutputUnwritable(PyflameError):
    """The output cannot be made or written."""

    exit_code = 14


class DiskFull(PyflameError):
    """There is no room for the output."""

    exit_code = 15


def sudo_user() -> tuple[int, int] | None:
    """Returns (uid, gid) of the user who ran sudo, None for a user who is root without sudo, or is not root."""
    if os.geteuid() != 0:
        return None
    try:
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None
    return (uid, gid) if uid > 0 and gid >= 0 else None


def _give_to_sudo_user(descriptor: int) -> None:
    owner = sudo_user()
    if owner is not None:
        with contextlib.suppress(OSError):  # file systems without owners, or that squash root
            os.fchown(descriptor, *owner)


def write_error(path: str, error: OSError) -> PyflameError:
    """The error for the user when ``path`` could not be written."""
    if error.errno in FULL:
        return DiskFull(f"{path} cannot be written: {error.strerror}", "Make room, or choose another --output.")
    return OutputUnwritable(f"{path} cannot be written: {error.strerror or error}", "Choose another --output.")


@contextlib.contextmanager
def _parent(path: Path) -> Iterator[int]:
    """A descriptor of the directory that ``path`` is to be in.  Raises OutputUnwritable."""
    try:
        descriptor = os.open(path.parent, _DIRECTORY)
    except OSError as error:
        raise OutputUnwritable(
            f"{path} cannot be made: {path.parent}: {error.strerror}",
            f"Make the directory first (mkdir -p {path.parent}), or choose another --output.",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _create(directory: int, name: str, shown: str) -> BinaryIO:
    try:
        descriptor = os.open(name, _NEW_FILE, 0o644, dir_fd=directory)
    except FileExistsError as error:
        raise OutputExists(f"{shown} exists already", "Move it away, or choose another --output.") from error
    except OSError as error:
        raise write_error(shown, error) from error
    _give_to_sudo_user(descriptor)
    return os.fdopen(descriptor, "wb")


def _write_whole(directory: int, name: str, shown: str, write: Write) -> None:
    """Makes a file in a directory, and removes it again if it cannot be written whole."""
    file = _create(directory, name, shown)
    try:
        with file:
            write(file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        if isinstance(error, OSError):
            raise write_error(shown, error) from error
        raise


def write_new_file(path: Path, write: Write) -> None:
    """Makes one file.  Raises OutputExists, OutputUnwritable, DiskFull."""
    with _parent(path) as parent:
        _write_whole(parent, path.name, str(path), write)


def save_elsewhere(write: Write, suffix: str) -> Path | None:
    """Writes to the first of PLACES_WITH_ROOM that takes the whole file.  Returns its path, None if there is none."""
    for place in PLACES_WITH_ROOM:
        try:
            descriptor, name = tempfile.mkstemp(prefix="pyflame-ebpf-", suffix=suffix, dir=place)
        except OSError:
            continue
        try:
            with os.fdopen(descriptor, "wb") as file:
                _give_to_sudo_user(descriptor)
                write(file)
        except OSError:
            Path(name).unlink(missing_ok=True)
        else:
            return Path(name)
    return None


class OutputDirectory(contextlib.AbstractContextManager["OutputDirectory"]):
    """A directory for outputs, made before the recording so that it fails early, and removed if it stays empty.

    A directory that exists is taken only when it is empty.  Raises OutputExists, OutputUnwritable, DiskFull.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path)) if path.name in ("", "..") else path  # noqa: PTH100 - no link followed
        with _parent(self.path) as parent:
            self._made = self._make(parent)
            self._descriptor = self._open(parent)
        try:
            self._claim()
        except BaseException:
            self.close()
            raise

    def _make(self, parent: int) -> bool:
        try:
            os.mkdir(self.path.name, 0o755, dir_fd=parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise write_error(str(self.path), error) from error
        return True

    def _open(self, parent: int) -> int:
        try:
            return os.open(self.path.name or ".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:  # a file, or a symbolic link, which root does not follow
            raise OutputExists(
                f"{self.path} exists already and is not a directory",
                "Move it away, or choose another --output.",
            ) from error

    def _claim(self) -> None:
        if os.listdir(self._descriptor):  # noqa: PTH208 - a descriptor has no path
            raise OutputExists(f"{self.path} exists already and is not empty", "Choose another --output.")
        if self._made:
            _give_to_sudo_user(self._descriptor)
        self._check_writable()

    def _check_writable(self) -> None:
        """Makes a file and removes it, so that a read-only file system or a full disk is known before the recording."""
        name = f".pyflame-ebpf-{os.getpid()}"
        _write_whole(self._descriptor, name, str(self.path), lambda file: file.flush())
        os.unlink(name, dir_fd=self._descriptor)

    def write(self, name: str, write: Write) -> Path:
        """Makes a file in it and returns its path.  Raises OutputExists, OutputUnwritable, DiskFull."""
        _write_whole(self._descriptor, name, str(self.path / name), write)
        return self.path / name

    def close(self) -> None:
        """Removes the directory if it was made here and is empty."""
        os.close(self._descriptor)
        if self._made:
            with contextlib.suppress(OSError):  # not empty, or moved away
                self.path.rmdir()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()
