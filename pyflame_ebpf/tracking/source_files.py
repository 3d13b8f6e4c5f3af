"""Files of processes that were sampled, read as the process would: below its root, and with its user's rights.

A program chooses the file names in its code objects.  If they were opened with root's rights, a program could have a
file put into a report that its own user may not read.  So a thread reads each file after it has taken the user's
identity for file access; each thread has its own, as long as libc is not asked (setfsuid(2), NOTES).
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
from pyflame_ebpf.host.process_directory import ProcessDirectory
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
    """Keeps the roots of processes open, so that files can be read when the processes are over.

    ``directory_of`` gives the directory in /proc of a process that runs, and raises ProcessGone for any other.
    """

    def __init__(self, directory_of: Callable[[Identity], ProcessDirectory]) -> None:
        self._directory_of = directory_of
        self._views: dict[Identity, _View | None] = {}
        self._roots: dict[_RootIdentity, int] = {}

    def watch(self, identity: Identity) -> None:
        """Looks how a process sees files, once."""
        if identity in self._views or len(self._views) >= WATCHED_MAX:
            return
        self._views[identity] = None
        with contextlib.suppress(PyflameError, OSError, ValueError, IndexError):
            self._views[identity] = self._view(self._directory_of(identity))

    def _view(self, process: ProcessDirectory) -> _View:
        status = process.status("root")
        key = process.status("ns/mnt").st_ino, status.st_dev, status.st_ino
        if key not in self._roots:
            if len(self._roots) >= ROOTS_MAX:
                raise OSError("too many roots")
            self._roots[key] = process.open("root", os.O_PATH | os.O_DIRECTORY)
        directory, outside = process.link("cwd"), process.link("root")  # both as we see them
        return _View(self._roots[key], _below(outside, directory), proc.credentials(process))

    def read(self, identity: Identity, file: str) -> bytes:
        """A file by its name in the process: FILE_MAX + 1 bytes at the most, b"" where it cannot be had."""
        view = self._views.get(identity)
        if view is None:
            return b""
        return _read_as(self._user(identity, view), view.root, posixpath.join(view.directory, file))

    def _user(self, identity: Identity, view: _View) -> Credentials:
        """Whose rights the process has by now, if it runs: a server that starts as root gives them up later."""
        with contextlib.suppress(PyflameError, OSError, ValueError, IndexError):
            return proc.credentials(self._directory_of(identity))
        return view.user

    def close(self) -> None:
        """Lets go of the roots."""
        for root in self._roots.values():
            os.close(root)
        self._roots.clear()
        self._views.clear()


def _below(root: str, directory: str) -> str:
    """A directory as a process with this root sees it; both are given as we see them."""
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
    """Gives this thread, and no other thread, a user's rights on files.  Raises OSError."""
    if os.geteuid() == user.uid:
        return
    groups = (ctypes.c_uint * len(user.groups))(*user.groups)
    if _libc.syscall(_SETGROUPS, ctypes.c_size_t(len(groups)), groups) < 0:
        raise OSError(ctypes.get_errno(), "setgroups")
    for call, wanted in ((_SETFSGID, user.gid), (_SETFSUID, user.uid)):
        _libc.syscall(call, ctypes.c_uint(wanted))
        if _libc.syscall(call, _NOBODY) != wanted:
            raise OSError("the user's rights cannot be taken")
