"""Files of a process by their paths as the process sees them, in its own root, where nothing can be trusted.

Every open stays below that root (openat2, Linux 5.6), whatever links lie in the way, and gives regular files only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from pyflame_ebpf.host import guarded_reads
from pyflame_ebpf.host.guarded_reads import FILE_PATIENCE, FileStatus, Subject
from pyflame_ebpf.host.process_directory import PidOrDirectory, directory_of
from pyflame_ebpf.host.read_operations import IN_ROOT, NO_LINKS, NO_MAGIC_LINKS


@contextlib.contextmanager
def root_of(process: PidOrDirectory | None) -> Iterator[int]:
    """A process's root directory, for None our own, as a descriptor.  Raises OSError, ProcessGone, ProcessDenied."""
    if process:
        handle, _ = directory_of(process).folder("root")
    else:
        handle = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def open_below(root: int, path: str, *, links: bool = True, whose: str = "this host") -> BinaryIO:
    """A regular file below a directory, as ``find_below`` finds it.  Raises OSError, ReadGivenUp."""
    return find_below(root, path, links=links, whose=whose)[0]


def find_below(root: int, path: str, *, links: bool, whose: str) -> tuple[BinaryIO, FileStatus]:
    """A regular file below a directory, the root of absolute paths and links, and its stat.

    Never blocks for long: a file on a file system that may stall is copied into memory, and if it does not answer, the
    folder of the path as seen by the process ``whose`` root it is is given up.  Raises OSError, ReadGivenUp.
    """
    answer = guarded_reads.reads().ask(
        "below",
        path,
        IN_ROOT | NO_MAGIC_LINKS | (0 if links else NO_LINKS),
        guarded_reads.copies(),
        directory=root,
        subject=lambda: folder_subject(path, whose),
        patience=FILE_PATIENCE,
    )
    status = FileStatus(*answer.value)
    return os.fdopen(guarded_reads.file_of(answer.handle, status), "rb", buffering=0), status


def folder_subject(path: str, whose: str) -> Subject:
    """What is given up where a file does not answer: its folder."""
    folder = os.path.dirname(path)  # noqa: PTH120 - a path as the process spells it
    return Subject(("folder", whose, folder), name=f"files in {folder!r} of {whose}")


def content_below(root: int, path: str, *, user: tuple[int, int, tuple[int, ...]], limit: int, whose: str) -> bytes:
    """The content of a regular file below a directory as far as a user may read it.  Raises OSError, ReadGivenUp."""
    data: bytes = (
        guarded_reads.reads()
        .ask(
            "content_as",
            path,
            IN_ROOT | NO_MAGIC_LINKS,
            user,
            limit,
            directory=root,
            subject=lambda: folder_subject(path, whose),
            patience=FILE_PATIENCE,
        )
        .value
    )
    return data
