"""Files of a process by their paths as the process sees them, in its own root, where nothing can be trusted.

Every open stays below that root (openat2, Linux 5.6), whatever links lie in the way, and gives regular files only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from pyflame_ebpf.host.process_directory import PidOrDirectory, directory_of

_OPENAT2 = 437  # the same number on every architecture: include/uapi/asm-generic/unistd.h
_NO_MAGIC_LINKS, _NO_LINKS, _IN_ROOT = 0x02, 0x04, 0x10  # RESOLVE_*: include/uapi/linux/openat2.h

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@contextlib.contextmanager
def root_of(process: PidOrDirectory | None) -> Iterator[int]:
    """A process's root directory, for None our own, as a descriptor.  Raises OSError, ProcessGone, ProcessDenied."""
    flags = os.O_PATH | os.O_DIRECTORY
    handle = directory_of(process).open("root", flags) if process else os.open("/", flags | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def open_below(root: int, path: str, *, links: bool = True) -> BinaryIO:
    """A regular file below a directory, the root of absolute paths and links.  Never blocks.  Raises OSError."""
    handle = _open_below(root, path, _IN_ROOT | _NO_MAGIC_LINKS | (0 if links else _NO_LINKS))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        # What was checked is what is opened, whatever the name leads to by now.
        again = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        return os.fdopen(again, "rb", buffering=0)
    finally:
        os.close(handle)


def _open_below(root: int, path: str, resolve: int) -> int:
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, resolve)
    if "\0" in path:
        raise OSError(errno.EINVAL, "not a path", path)
    name = ctypes.c_char_p(os.fsencode(path))
    handle = int(_libc.syscall(_OPENAT2, root, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))))
    if handle < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return handle
