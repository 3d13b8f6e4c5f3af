"""The lock that keeps two profilers on one host apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TextIO

from pyflame_ebpf.errors import PyflameError

LOCK_FILE = "/run/pyflame-ebpf.lock"


class AlreadyRecording(PyflameError):
    """Another profiler records on this host."""

    exit_code = 8


class LockUnusable(PyflameError):
    """The lock cannot be opened, so another profiler may be recording."""

    exit_code = 20


@contextlib.contextmanager
def only_one_profiler() -> Iterator[TextIO]:
    """Hold the host's lock; every forked copy of this process that has the file open holds it too.

    Raises AlreadyRecording while another profiler has the lock, LockUnusable if it cannot be opened.
    """
    with _open_lock() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = lock.read().strip() or "unknown"
            raise AlreadyRecording(
                f"another pyflame-ebpf is recording on this host (PID {owner})",
                f"Wait until it has ended, or end it: kill -INT {owner}. It writes what it has.",
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock


def _open_lock() -> TextIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(LOCK_FILE, flags, 0o644), "r+")
    except OSError as error:
        raise LockUnusable(
            f"the lock that keeps two profilers apart cannot be opened: {LOCK_FILE}: {error.strerror}",
            "It must be a plain file that root may write; remove what is there.",
        ) from error
