"""A new file that has its name only once it is whole.

The file is written without a name (O_TMPFILE), so that whatever ends the writing, SIGKILL too, leaves nothing behind.
Where the file system or the host lacks that, it is written under a hidden name beside its own, which an error removes.
Nothing that exists is replaced, and no symbolic link in the last place of a path is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from typing import BinaryIO

PRIVATE_FILE, PRIVATE_DIRECTORY = 0o600, 0o700  # command lines and source text are nobody else's business
_OWN_DESCRIPTORS = "/proc/self/fd"
_UNNAMED = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
_NAMED = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)  # open(2), O_TMPFILE: BUGS and ERRORS
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # as vfat and some network file systems answer

Write = Callable[[BinaryIO], object]
Give = Callable[[int], None]  # gives the file of a descriptor to whom it is for


@contextlib.contextmanager
def private() -> Iterator[None]:
    """What is made inside has exactly the mode it is made with, whatever the umask is, and nothing for others."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_whole_file(directory: int, name: str, write: Write, give: Give) -> None:
    """Makes a file of mode 0600 in the directory of a descriptor.

    Raises FileExistsError if the name is taken, OSError if the file cannot be made or written, and what ``write``
    raises; then there is no file.
    """
    with _aside(directory, name) as (file, descriptor, hidden):
        write(file)
        file.flush()
        _give_name(directory, descriptor, hidden, name)
        give(descriptor)


def check_writable(directory: int) -> None:
    """Makes a file in the directory of a descriptor and removes it.  Raises OSError."""
    with _aside(directory, "probe") as (file, _, _):
        file.flush()


@contextlib.contextmanager
def _aside(directory: int, name: str) -> Iterator[tuple[BinaryIO, int, str]]:
    """A new file as (stream, descriptor, its hidden name), "" for one without a name; a hidden name goes at the end."""
    descriptor, hidden = _make(directory, name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, descriptor, hidden
    finally:
        if hidden:
            with contextlib.suppress(OSError):  # it has its own name by now, or the directory is gone
                os.unlink(hidden, dir_fd=directory)


def _make(directory: int, name: str) -> tuple[int, str]:
    with private():
        if os.path.isdir(_OWN_DESCRIPTORS):  # noqa: PTH112 - by which an unnamed file gets its name
            try:
                return os.open(".", _UNNAMED, PRIVATE_FILE, dir_fd=directory), ""
            except OSError as error:
                if error.errno not in _NO_UNNAMED:
                    raise
        hidden = f".{name[:64]}.{secrets.token_hex(8)}.part"
        return os.open(hidden, _NAMED, PRIVATE_FILE, dir_fd=directory), hidden


def _give_name(directory: int, descriptor: int, hidden: str, name: str) -> None:
    if not hidden:
        os.link(f"{_OWN_DESCRIPTORS}/{descriptor}", name, dst_dir_fd=directory)
        return
    try:
        os.link(hidden, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename(directory, hidden, name)


def _rename(directory: int, hidden: str, name: str) -> None:
    """Renames a file where there are no hard links; between the look and the renaming another file may come."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
