"""Files of processes that were sampled, read as the process would: below its root, and with its user's rights.

A program chooses the file names in its code objects.  If they were opened with root's rights, a program could have a
file put into a report that its own user may not read.  So whoever reads a file (``host.read_worker``) takes the user's
identity for file access meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.proc import Credentials
from pyflame_ebpf.host.process_directory import ProcessDirectory
from pyflame_ebpf.host.target_files import content_below
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.source_text import FILE_MAX

WATCHED_MAX = 1 << 16
ROOTS_MAX = 256
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
        handle, status = process.folder("root")
        try:
            key = process.status("ns/mnt").st_ino, status.st_dev, status.st_ino
            if key not in self._roots:
                if len(self._roots) >= ROOTS_MAX:
                    raise OSError("too many roots")
                self._roots[key], handle = handle, -1
        finally:
            if handle >= 0:
                os.close(handle)
        directory, outside = process.link("cwd"), process.link("root")  # both as we see them
        return _View(self._roots[key], _below(outside, directory), proc.credentials(process))

    def read(self, identity: Identity, file: str) -> bytes:
        """A file by its name in the process: FILE_MAX + 1 bytes at the most, b"" where it cannot be had."""
        view = self._views.get(identity)
        if view is None:
            return b""
        user, path = self._user(identity, view), posixpath.join(view.directory, file)
        rights = user.uid, user.gid, user.groups
        with contextlib.suppress(OSError, ValueError):
            return content_below(view.root, path, user=rights, limit=FILE_MAX + 1, whose=f"process {identity.tgid}")
        return b""

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
