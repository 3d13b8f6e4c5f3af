"""New directories and files for outputs, made by root in places that others may write to.

Nothing that exists is overwritten, and what is made is for its owner alone.  Files are made relative to a descriptor of
their directory, and have their names once they are whole (``whole_file``).  Root gives what it makes to the user who
ran sudo, through a descriptor of the file, and nothing that was there before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.whole_file import PRIVATE_DIRECTORY, Write, check_writable, private, write_whole_file

FULL = (errno.ENOSPC, errno.EDQUOT)
PLACES_WITH_ROOM = ("/var/tmp", "/tmp", "/dev/shm", "/run")  # noqa: S108 - by names that nobody can guess, when the disk is full
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_ID = (1 << 32) - 1  # which chown(2) takes for "leave it"; ids are smaller
_ID = re.compile(r"[0-9]{1,10}")


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
    uid, gid = (_id(os.environ.get(name, "")) for name in ("SUDO_UID", "SUDO_GID"))
    return (uid, gid) if uid and gid is not None else None


def _id(text: str) -> int | None:
    """The id of a user or group that a text holds, None if it holds none."""
    number = int(text) if _ID.fullmatch(text) else _NO_ID
    return number if number < _NO_ID else None


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


def _write_whole(directory: int, name: str, shown: str, write: Write) -> None:
    """Makes a file in a directory.  Raises OutputExists, OutputUnwritable, DiskFull; then there is no file."""
    try:
        write_whole_file(directory, name, write, _give_to_sudo_user)
    except FileExistsError as error:
        raise OutputExists(f"{shown} exists already", "Move it away, or choose another --output.") from error
    except OSError as error:
        raise write_error(shown, error) from error


def write_new_file(path: Path, write: Write) -> None:
    """Makes one file.  Raises OutputExists, OutputUnwritable, DiskFull."""
    with _parent(path) as parent:
        if _exists(parent, path.name):  # known before the work of writing
            raise OutputExists(f"{path} exists already", "Move it away, or choose another --output.")
        _write_whole(parent, path.name, str(path), write)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def save_elsewhere(
    write: Write, suffix: str, prefix: str = "pyflame-ebpf-", places: Sequence[str] | None = None
) -> Path | None:
    """Writes to the first of these places that takes the whole file.  Returns its path, None if there is none.

    Without ``places`` these are PLACES_WITH_ROOM.
    """
    for place in PLACES_WITH_ROOM if places is None else places:
        name = f"{prefix}{secrets.token_hex(8)}{suffix}"
        with contextlib.suppress(OSError):
            directory = os.open(place, _DIRECTORY)
            try:
                write_whole_file(directory, name, write, _give_to_sudo_user)
            finally:
                os.close(directory)
            return Path(place, name)
    return None


class OutputDirectory(contextlib.AbstractContextManager["OutputDirectory"]):
    """A directory for outputs, made before the recording so that it fails early, and removed if it stays empty.

    A directory that exists is taken only when it is empty.  All is done through its descriptor, so that whoever renames
    or replaces it meanwhile changes neither where files are made nor what is removed.  Raises OutputExists,
    OutputUnwritable, DiskFull.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path)) if path.name in ("", "..") else path  # noqa: PTH100 - no link followed
        with contextlib.ExitStack() as undo:
            self._parent = os.dup(undo.enter_context(_parent(self.path)))
            undo.callback(os.close, self._parent)
            self._made = self._make()
            self._descriptor = self._open()
            undo.pop_all()
        try:
            self._claim()
        except BaseException:
            self.close()
            raise

    def _make(self) -> bool:
        try:
            with private():
                os.mkdir(self.path.name, PRIVATE_DIRECTORY, dir_fd=self._parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise write_error(str(self.path), error) from error
        return True

    def _open(self) -> int:
        try:
            return os.open(self.path.name or ".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._parent)
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
        try:
            check_writable(self._descriptor)  # a read-only file system or a full disk is known before the recording
        except OSError as error:
            raise write_error(str(self.path), error) from error

    def write(self, name: str, write: Write) -> Path:
        """Makes a file in it and returns its path.  Raises OutputExists, OutputUnwritable, DiskFull."""
        _write_whole(self._descriptor, name, str(self.path / name), write)
        return self.path / name

    def place(self) -> Path | None:
        """Where the directory is by now: ``path``, another path if it was moved, None if it was removed."""
        ours = os.fstat(self._descriptor)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path, follow_symlinks=False), ours):  # noqa: PTH116 - link not followed
                return self.path
        with contextlib.suppress(OSError):
            found = Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))  # noqa: PTH115 - of a descriptor
            if os.path.samestat(os.stat(found, follow_symlinks=False), ours):  # noqa: PTH116 - not one "(deleted)"
                return found
        return None

    def confirm(self) -> None:
        """Raises OutputUnwritable if ``path`` does not lead to the directory any more, with where its files are."""
        place = self.place()
        if place is None:
            raise OutputUnwritable(f"{self.path} was removed meanwhile, with its files", "Choose another --output.")
        if place != self.path:
            raise OutputUnwritable(
                f"{self.path} was moved or replaced meanwhile; the files are in {place}",
                "Whoever may write to the directory above can do that; choose another --output.",
            )

    def close(self) -> None:
        """Removes the directory if it was made here, is empty, and is still in its place."""
        try:
            if self._made and self._is_in_place():
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(self.path.name, dir_fd=self._parent)
        finally:
            os.close(self._descriptor)
            os.close(self._parent)

    def _is_in_place(self) -> bool:
        try:
            found = os.stat(self.path.name, dir_fd=self._parent, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._descriptor))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()
