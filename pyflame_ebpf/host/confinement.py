"""Gives up rights of this process for good: capabilities, root's identity, descriptors, system calls.

Everything here is for the calling thread and the threads and processes that it starts later.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import os
import resource
from collections.abc import Callable, Iterator

NOBODY = 65534  # the user and group to which nothing belongs: include/uapi/linux/highuid.h
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, include/uapi/linux/capability.h
_SET_NO_NEW_PRIVS, _SET_DUMPABLE, _CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 38, 4, 47, 4  # include/uapi/linux/prctl.h
_WORD = 0xFFFFFFFF
# CAP_FS_SET, include/linux/capability.h: what setfsuid(2) takes from root that becomes another user, from nobody else
_FILE_CAPABILITIES = sum(1 << bit for bit in (0, 1, 2, 3, 4, 9, 27, 32))

# What a program does that computes, reads from its pipe and writes to it.  All other calls fail with EPERM.
_CALLS_OF_A_FILTER = (
    *("read", "write", "close", "poll", "ppoll", "fstat", "newfstatat", "lseek", "ioctl"),
    *("brk", "mmap", "munmap", "mremap", "mprotect", "madvise"),
    *("futex", "sched_yield", "clock_gettime", "gettimeofday", "nanosleep", "clock_nanosleep", "getrandom"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("getpid", "gettid", "exit", "exit_group"),
)

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def keep_only(bits: int) -> None:
    """Give up every capability that has no bit here, so that no program executed later gains any.  Raises OSError."""
    words = _held()
    for at, word in enumerate(words):
        word.permitted &= bits >> 32 * at & _WORD
        word.effective &= word.permitted
        word.inheritable = 0
    _hold(words)
    _prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    _prctl(_SET_NO_NEW_PRIVS, 1)


@contextlib.contextmanager
def without_file_capabilities() -> Iterator[None]:
    """Inside, this thread has no capability by which it could open what its user may not.  Raises OSError."""
    words = _held()
    effective = [word.effective for word in words]
    for at, word in enumerate(words):
        word.effective &= ~(_FILE_CAPABILITIES >> 32 * at) & _WORD
    _hold(words)
    try:
        yield
    finally:
        for word, before in zip(words, effective, strict=True):
            word.effective = before
        _hold(words)


def _held() -> ctypes.Array[_Word]:
    words = (_Word * 2)()
    _checked(_libc.capget(ctypes.byref(_Header(_VERSION, 0)), words), "capget")
    return words


def _hold(words: ctypes.Array[_Word]) -> None:
    _checked(_libc.capset(ctypes.byref(_Header(_VERSION, 0)), words), "capset")


def become_nobody() -> None:
    """Take on the identity of a user to whom no file belongs, where this process may.  Raises OSError elsewhere."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def compute_only(*, memory: int, cpu: int, descriptors: int) -> bool:
    """Keep only the right to compute and to use the descriptors that are open.  Raises OSError.

    ``memory`` is the address space in bytes, ``cpu`` the seconds of CPU time from now on, ``descriptors`` a number
    above every open descriptor.  No file can be opened or grow, no process started, no capability regained.  Returns
    whether a filter of system calls is in force too, for which libseccomp's own binding is needed (python3-seccomp).
    """
    install_filter = _system_call_filter()
    with contextlib.suppress(
        OSError
    ):  # not root, or no such user in this namespace: capabilities are given up all the same
        become_nobody()
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + cpu
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, descriptors),
    ):
        _lower(limit, most)
    _prctl(_SET_DUMPABLE, 0)
    keep_only(0)
    return install_filter()


def _lower(limit: int, most: int) -> None:
    """Set a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(limit)
    lowest = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (lowest, lowest))


def has_system_call_filter() -> bool:
    """Whether ``compute_only`` can put a filter in force: the binding is there."""
    return importlib.util.find_spec("seccomp") is not None


def _system_call_filter() -> Callable[[], bool]:
    """Returns the function that puts the filter in force, prepared while files can still be opened."""
    try:
        import seccomp  # noqa: PLC0415 - only a process that is to be confined needs it
    except ImportError:
        return lambda: False
    wanted = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in _CALLS_OF_A_FILTER:
        wanted.add_rule(seccomp.ALLOW, name)

    def install() -> bool:
        with contextlib.suppress(OSError, RuntimeError):  # a kernel without CONFIG_SECCOMP_FILTER
            wanted.load()
            return True
        return False

    return install


def _prctl(option: int, value: int) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def _checked(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
