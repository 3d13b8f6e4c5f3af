"""Reads that may never return: memory of processes, what /proc tells of it, and files on whatever file system.

A process is a descriptor of its directory and names below that, or None and paths.  Nothing here waits for anything but
the kernel; ``guarded_reads`` has it done by a process that may hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import Any

from pyflame_ebpf.host.confinement import without_file_capabilities
from pyflame_ebpf.host.file_systems import may_stall

COPY_MAX = 64 << 20  # bytes of a file that lies on a file system which may stall
_PART = 1 << 20  # bytes of one read
_OPENAT2 = 437  # the same number on every architecture: include/uapi/asm-generic/unistd.h
NO_MAGIC_LINKS, NO_LINKS, IN_ROOT = 0x02, 0x04, 0x10  # RESOLVE_*: include/uapi/linux/openat2.h
_STATX_SIZE = 256  # bytes
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC, _STATX_BASIC = 0x1000, 0x4000, 0x7FF  # include/uapi/linux/stat.h, fcntl.h
_SETGROUPS, _SETFSUID, _SETFSGID = 116, 122, 123  # arch/x86/entry/syscalls/syscall_64.tbl
_NOBODY = ctypes.c_uint(-1)  # of setfsuid and setfsgid: change nothing, tell what is
_libc = ctypes.CDLL(None, use_errno=True)


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


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

Directory = int | None  # descriptor of the directory that relative names begin at
Status = tuple[int, int, int, int, int, int, int]  # device, inode, mode, size, mtime and ctime in ns, owner
Copied = list[Status] | None  # status of the files of which there are copies
Resolve = int  # RESOLVE_* of openat2


# ---- processes ----


def text(directory: Directory, name: str, limit: int) -> bytes:
    """The first ``limit`` bytes of a file of /proc.  Raises OSError."""
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        parts = []
        while limit > 0 and (part := os.read(handle, min(_PART, limit))):
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def link(directory: Directory, name: str) -> str:
    """Where a link of /proc leads, as the kernel spells it.  Raises OSError."""
    return os.readlink(name, dir_fd=directory)


def memory(directory: Directory, name: str, pid: int, address: int, size: int) -> bytes:
    """Exactly ``size`` bytes of a process's memory; ``name`` is its file mem.  Raises OSError."""
    buffer = ctypes.create_string_buffer(size)
    local, remote = _IoVector(ctypes.addressof(buffer), size), _IoVector(address, size)
    done = _process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    number = 0 if done == size else ctypes.get_errno() if done < 0 else errno.EFAULT
    if not number:
        return buffer.raw
    if number in (errno.EPERM, errno.ENOSYS):  # a seccomp filter of a container; /proc may still be open to us
        return _memory_by_file(directory, name, address, size)
    raise OSError(number, os.strerror(number))


def _memory_by_file(directory: Directory, name: str, address: int, size: int) -> bytes:
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        data = os.pread(handle, size, address)
    except OverflowError as error:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from error
    finally:
        os.close(handle)
    if len(data) != size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return data


def status(directory: Directory, name: str) -> Status:
    """The status of what a name leads to, as the kernel remembers it.  Raises OSError."""
    handle = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
    try:
        return _remembered(handle)
    finally:
        os.close(handle)


def statuses(directory: Directory, names: list[str]) -> list[Status | None]:
    """The status of what each name leads to as the kernel remembers it, None where it cannot be had."""
    return [_status_or_none(directory, name) for name in names]


def _status_or_none(directory: Directory, name: str) -> Status | None:
    try:
        return status(directory, name)
    except OSError:
        return None


def _status_of(found: os.stat_result) -> Status:
    return (
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_uid,
    )


def _remembered(handle: int) -> Status:
    """What the kernel knows of an open file without asking a server.  Raises OSError."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    if _libc.statx(handle, b"", flags, _STATX_BASIC, buffer) < 0:
        raise OSError(ctypes.get_errno(), "statx")
    # struct statx: mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask; four times
    # (seconds, nanoseconds) from byte 64 on: access, birth, change, modification; then the devices.
    uid, mode = struct.unpack_from("<I4xH", buffer, 20)
    inode, size = struct.unpack_from("<QQ", buffer, 32)
    changed, modified = (struct.unpack_from("<qI", buffer, place) for place in (96, 112))
    major, minor = struct.unpack_from("<II", buffer, 136)
    return os.makedev(major, minor), inode, mode, size, _ns(modified), _ns(changed), uid


def _ns(time: tuple[int, int]) -> int:
    return time[0] * 1_000_000_000 + time[1]


# ---- files ----


def opened(directory: Directory, name: str, copied: Copied) -> tuple[int, Status]:
    """Opens a regular file; a FIFO or a device is neither waited for nor woken.

    Of a file on a file system that may stall, the descriptor is a copy's, in memory, or -1 if it is among those that
    were ``copied``; without ``copied`` nothing is copied.  Raises OSError: EINVAL for other
    kinds of files, EFBIG for what is too large to be copied.
    """
    return _opened(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory), name, copied)


def _opened(found: int, name: str, copied: Copied) -> tuple[int, Status]:
    """Opens for reading what was found, and closes that."""
    file = _readable(found, name)
    try:
        facts = _status_of(os.fstat(file))
        if copied is None or not may_stall(file):
            kept, file = file, -1
            return kept, facts
        return -1 if facts in copied else _copy(file, facts[3]), facts
    finally:
        if file >= 0:
            os.close(file)


def _readable(found: int, name: str) -> int:
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(errno.EINVAL, f"{name} is not a regular file")
        # What was checked is what is opened, whatever the name leads to by now.
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(found)


def _copy(file: int, size: int) -> int:
    """The whole content of an open file, in memory.  Raises OSError, EFBIG over COPY_MAX."""
    if size > COPY_MAX:
        raise OSError(errno.EFBIG, "it lies on a file system that may stall, and is too large to be copied")
    copied = os.memfd_create("copy")
    try:
        place = 0
        while place < COPY_MAX and (part := os.pread(file, min(_PART, COPY_MAX - place), place)):
            os.pwrite(copied, part, place)
            place += len(part)
    except BaseException:
        os.close(copied)
        raise
    return copied


def below(root: int, path: str, resolve: Resolve, copied: Copied) -> tuple[int, Status]:
    """Opens a regular file below a directory, as ``opened`` does.  Raises OSError."""
    return _opened(_found_below(root, path, resolve), path, copied)


def _found_below(root: int, path: str, resolve: Resolve) -> int:
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, resolve)
    if "\0" in path:
        raise OSError(errno.EINVAL, "not a path")
    name = ctypes.c_char_p(os.fsencode(path))
    handle = int(_libc.syscall(_OPENAT2, root, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))))
    if handle < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return handle


def folder(directory: Directory, name: str) -> tuple[int, Status]:
    """A descriptor of a directory, for paths below it, and its status.  Raises OSError."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    return handle, _remembered(handle)


def content_as(root: int, path: str, resolve: Resolve, user: tuple[int, int, tuple[int, ...]], limit: int) -> bytes:
    """What a user may read of a regular file, at most ``limit`` bytes.  Raises OSError.

    Capabilities that open every file are put down meanwhile: the kernel takes them from root that becomes a user, and
    leaves them to a user who becomes another.
    """
    own = os.geteuid(), os.getegid(), tuple(os.getgroups())
    with without_file_capabilities() if user[0] else contextlib.nullcontext():
        try:
            _become(*user)
            file = _readable(_found_below(root, path, resolve), path)
            try:
                return os.pread(file, limit, 0)
            finally:
                os.close(file)
        finally:
            _become_again(own)


def _become_again(own: tuple[int, int, tuple[int, ...]]) -> None:
    """Takes this process's own rights back.  Raises RuntimeError: nothing more may be read with the wrong rights."""
    try:
        _become(*own)
    except OSError as error:
        raise RuntimeError("this process's rights cannot be taken back") from error


def _become(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Gives this thread, and no other thread, a user's rights on files.  Raises OSError."""
    if os.geteuid() == uid != 0 and _libc.syscall(_SETFSUID, _NOBODY) == uid:
        return  # this process's own user: groups cannot be changed without a capability
    numbers = (ctypes.c_uint * len(groups))(*groups)
    if _libc.syscall(_SETGROUPS, ctypes.c_size_t(len(groups)), numbers) < 0:
        code = ctypes.get_errno()
        if code == errno.EPERM and uid == os.geteuid() and _libc.syscall(_SETFSUID, _NOBODY) == uid:
            return  # root without a capability: likewise
        raise OSError(code, "setgroups")
    for call, wanted in ((_SETFSGID, gid), (_SETFSUID, uid)):
        _libc.syscall(call, ctypes.c_uint(wanted))
        if _libc.syscall(call, _NOBODY) != wanted:
            raise OSError(errno.EPERM, "the user's rights cannot be taken")


OPERATIONS: dict[str, Callable[..., Any]] = {
    operation.__name__: operation
    for operation in (text, link, memory, status, statuses, opened, below, folder, content_as)
}
WITH_FILE = frozenset(("opened", "below", "folder"))  # operations that return (descriptor, facts)
