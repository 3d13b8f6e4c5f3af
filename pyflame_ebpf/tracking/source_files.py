"""Files of processes that were sampled, read as the process would: below its root, and with its user's rights.

A program chooses the file names in its code objects.  Were they opened with root's rights, a program could have the
contents of files put into a report that its user may not read.  So what reads is a thread of its own that has taken the
user's identity for file access; threads have one each, as long as libc is not asked (setfsuid(2), NOTES).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import posixpath
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.proc import Credentials
from pyflame_ebpf.host.target_files import open_below
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.source_text import FILE_MAX

WATCHED_MAX = 1 << 16
ROOTS_MAX = 256
_SETGROUPS, _SETFSUID, _SETFSGID = 116, 122, 123  # arch/x86/entry/syscalls/syscall_64.tbl
_NOBODY = ctypes.c_uint(-1)  # of setfsuid and setfsgid: change nothing, tell what is

_libc = ctypes.CDLL(None, use_errno=True)
_RootIdentity = tuple[int, int, int]  # mount namespace, device and inode of the root


@dataclass(frozen=True, slots=True)
class _View:
    """How a process sees files: its root as a descriptor, its working directory below that, its user."""

    root: int
    directory: str
    user: Credentials


class SourceFiles:
    """Keeps the roots of processes open, so that files can be read when they are over."""

    def __init__(self, is_running: Callable[[Identity], bool]) -> None:
        self._is_running = is_running
        self._views: dict[Identity, _View | None] = {}
        self._roots: dict[_RootIdentity, int] = {}

    def watch(self, identity: Identity) -> None:
        """Looks how a process sees files, once."""
        if identity in self._views or len(self._views) >= WATCHED_MAX:
            return
        self._views[identity] = None
        with contextlib.suppress(PyflameError, OSError, ValueError, IndexError):
            view = self._view(identity.tgid)
            if self._is_running(identity):  # else the PID may be another's by now
                self._views[identity] = view

    def _view(self, pid: int) -> _View:
        root = f"/proc/{pid}/root"
        status = os.stat(root)  # noqa: PTH116 - the status of what it leads to
        key = os.stat(f"/proc/{pid}/ns/mnt").st_ino, status.st_dev, status.st_ino  # noqa: PTH116
        if key not in self._roots:
            if len(self._roots) >= ROOTS_MAX:
                raise OSError("too many roots")
            self._roots[key] = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        directory = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115
        outside = os.readlink(root)  # noqa: PTH115 - what chroot left of it, as we see it
        return _View(self._roots[key], _below(outside, directory), proc.credentials(pid))

    def read(self, identity: Identity, file: str) -> bytes:
        """A file by its name in the process, at most one byte more than FILE_MAX; b"" where it cannot be had."""
        view = self._views.get(identity)
        if view is None:
            return b""
        return _read_as(self._user(identity, view), view.root, posixpath.join(view.directory, file))

    def _user(self, identity: Identity, view: _View) -> Credentials:
        """Whose rights the process has by now, while it runs: a server that starts as root gives them up later."""
        with contextlib.suppress(PyflameError, OSError, ValueError, IndexError):
            user = proc.credentials(identity.tgid)
            if self._is_running(identity):
                return user
        return view.user

    def close(self) -> None:
        """Lets go of the roots."""
        for root in self._roots.values():
            os.close(root)
        self._roots.clear()
        self._views.clear()


def _below(root: str, directory: str) -> str:
    """A directory as seen from a root that has it, both as we see them."""
    prefix = root.rstrip("/")
    return directory[len(prefix) :] or "/" if f"{directory}/".startswith(f"{prefix}/") else directory


def _read_as(user: Credentials, root: int, path: str) -> bytes:
    content = b""

    def read() -> None:
        nonlocal content
        with contextlib.suppress(OSError, ValueError):
            _become(user)
            with open_below(root, path) as file:
                content = file.read(FILE_MAX + 1) or b""

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    return content


def _become(user: Credentials) -> None:
    """Give this thread, and no other thread, a user's rights on files; OSError."""
    if os.geteuid() == user.uid:
        return
    groups = (ctypes.c_uint * len(user.groups))(*user.groups)
    if _libc.syscall(_SETGROUPS, ctypes.c_size_t(len(groups)), groups) < 0:
        raise OSError(ctypes.get_errno(), "setgroups")
    for call, wanted in ((_SETFSGID, user.gid), (_SETFSUID, user.uid)):
        _libc.syscall(call, ctypes.c_uint(wanted))
        if _libc.syscall(call, _NOBODY) != wanted:
            raise OSError("the user's rights cannot be taken")
