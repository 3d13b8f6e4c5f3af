"""The lock that keeps two profilers on one host apart.

Whoever can open a file can lock it (flock(2)), so the lock is for root alone: a file of mode 0600 in a directory of
mode 0700.  What lies in its place and is not so (a link, a pipe, another user's file) goes.  A process with the
capabilities to record and without root's identity uses a directory that was made for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.whole_file import PRIVATE_DIRECTORY, PRIVATE_FILE, private

LOCK_FILE = "/run/pyflame-ebpf/lock"
_LOOK = 0.1  # seconds between two attempts while another profiler has the lock
_ATTEMPTS = 10  # to open a lock that others put in order at the same time
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A lock that is held, as /proc/locks has it (proc_locks(5)); those who wait for one have "->" after the number.
_HELD = re.compile(rb"[0-9]+: FLOCK +ADVISORY +WRITE ([0-9]+) ([0-9a-f]+):([0-9a-f]+):([0-9]+) ")


class AlreadyRecording(PyflameError):
    """Another profiler records on this host."""

    exit_code = 8


class LockUnusable(PyflameError):
    """The lock cannot be opened, so another profiler may be recording."""

    exit_code = 20


@contextlib.contextmanager
def only_one_profiler(wait: Callable[[str], None] | None = None) -> Iterator[TextIO]:
    """Hold the host's lock; every forked copy of this process that has the file open holds it too.

    With ``wait`` it waits until no other profiler has the lock, and calls ``wait`` once with who has it.  Raises
    AlreadyRecording while another profiler has the lock, LockUnusable if it cannot be opened.
    """
    with _locked(wait) as lock:
        yield lock


def _locked(wait: Callable[[str], None] | None) -> TextIO:
    is_told = False
    while True:
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(_open_lock())
            if _take(lock):
                if _is_in_place(lock):
                    undo.pop_all()
                    return lock
                continue  # another profiler put the lock's file in order between the opening and the locking
            holder = holder_of(lock)
        if wait is None:
            raise _already_recording(holder)
        if not is_told:
            is_told = True
            wait(_named(holder))
        time.sleep(_LOOK)


def _take(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_in_place(lock: TextIO) -> bool:
    try:
        return os.path.samestat(os.stat(LOCK_FILE, follow_symlinks=False), os.fstat(lock.fileno()))  # noqa: PTH116
    except OSError:
        return False


def holder_of(lock: TextIO) -> int | None:
    """The PID of the process that has locked a file and runs; None if that cannot be told."""
    status = os.fstat(lock.fileno())
    try:
        text = Path("/proc/locks").read_bytes()
    except OSError:
        return None
    for found in filter(None, map(_HELD.match, text.split(b"\n"))):
        place = os.makedev(int(found[2], 16), int(found[3], 16)), int(found[4])
        if place == (status.st_dev, status.st_ino) and _has_open(int(found[1]), status):
            return int(found[1])
    return None


def _has_open(pid: int, status: os.stat_result) -> bool:
    """Whether a process runs and has a file open; a lock outlives who took it where a forked copy has the file."""
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(descriptor.stat(), status):
                    return proc.is_alive(pid)
    except OSError:
        return False
    return False


def _already_recording(holder: int | None) -> AlreadyRecording:
    who = f" (PID {holder})" if holder is not None else ""
    end = f", or end it: kill -INT {holder}. It writes what it has" if holder is not None else ""
    return AlreadyRecording(
        f"another pyflame-ebpf is recording on this host{who}",
        f"Wait until it has ended (--wait does){end}.",
    )


def _named(holder: int | None) -> str:
    """Who has the lock, in words."""
    if holder is None:
        return "another pyflame-ebpf"
    with contextlib.suppress(PyflameError, OSError):
        return f"PID {holder} ({shlex.join(proc.arguments(holder))})"
    return f"PID {holder}"


# ---- the lock's file and its directory ----


def _open_lock() -> TextIO:
    """Raises LockUnusable."""
    failure = OSError()
    for _ in range(_ATTEMPTS):
        opened = _try_to_open()
        if not isinstance(opened, OSError):
            return opened
        failure = opened
        if not isinstance(opened, FileExistsError | FileNotFoundError):  # as when others put it in order, too
            break
    raise _unusable(failure) from failure


def _try_to_open() -> TextIO | OSError:
    path = Path(LOCK_FILE)
    try:
        directory = _open_directory(path.parent)
        try:
            return os.fdopen(_open_file(directory, path.name), "r+")
        finally:
            os.close(directory)
    except OSError as error:
        return error


def _unusable(error: OSError) -> LockUnusable:
    folder = Path(LOCK_FILE).parent
    hint = f"It must be a plain file in a directory of root's; see what is there: ls -la {folder}"
    if os.geteuid() != 0:
        hint = f"Run as root, or let root make its directory: install -d -m 700 -o {os.geteuid()} {folder}"
    return LockUnusable(
        f"the lock that keeps two profilers apart cannot be opened: {LOCK_FILE}: {error.strerror}", hint
    )


def _open_directory(path: Path) -> int:
    """A descriptor of the lock's directory, to which nobody else has access from now on.

    Raises FileExistsError if something else was in its place, which is removed; and OSError.
    """
    with contextlib.suppress(FileExistsError), private():
        path.mkdir(mode=PRIVATE_DIRECTORY)
    if not stat.S_ISDIR(path.lstat().st_mode):
        path.unlink()
        raise FileExistsError(errno.EEXIST, "it was no directory")
    descriptor = os.open(path, _DIRECTORY)
    try:
        _keep_from_others(descriptor, PRIVATE_DIRECTORY)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_file(directory: int, name: str) -> int:
    """A descriptor of the lock's file, made if there is none.

    Raises FileExistsError if something else was in its place, which is removed; and OSError.
    """
    with private():
        try:
            descriptor = os.open(name, _FILE | os.O_CREAT | os.O_EXCL, PRIVATE_FILE, dir_fd=directory)
        except FileExistsError:
            pass
        else:
            _keep_from_others(descriptor, PRIVATE_FILE)
            return descriptor
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if _is_private(status):
        descriptor = os.open(name, _FILE, dir_fd=directory)
        if os.path.samestat(os.fstat(descriptor), status):
            return descriptor
        os.close(descriptor)
    else:
        _put_away(directory, name, status)
    raise FileExistsError(errno.EEXIST, "it was not for the profiler alone")


def _owners() -> tuple[int, ...]:
    """To whom the lock may belong: root, and this user if it has the capabilities and is not root."""
    return (0, os.geteuid())


def _keep_from_others(descriptor: int, mode: int) -> None:
    """Take a file or directory from any other owner, and give it to root if that is allowed.  Raises OSError."""
    status = os.fstat(descriptor)
    if status.st_uid:
        try:
            os.fchown(descriptor, 0, 0)
        except PermissionError:
            if status.st_uid not in _owners():
                raise
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)


def _is_private(status: os.stat_result) -> bool:
    """Whether nobody else can have opened the file."""
    is_alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return is_alone and stat.S_IMODE(status.st_mode) == PRIVATE_FILE and status.st_uid in _owners()


def _put_away(directory: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        os.rename(name, f"{name}.{os.getpid()}.{time.monotonic_ns()}", src_dir_fd=directory, dst_dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)
