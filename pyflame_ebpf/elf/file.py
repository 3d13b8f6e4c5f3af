"""An open file that may be anything: regular, within its size, and partly held in memory where it must not change.

The file is read with pread and never mapped, since a file that shrinks under a mapping kills the reader.  A file that
is written to between two reads contradicts what was found first, so parts of it can be held in memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from pyflame_ebpf.elf.bad_elf import BadElf
from pyflame_ebpf.elf.budget import Budget

__all__ = ["BadElf", "Extent", "FileIdentity", "RegularFile", "identity_of", "open_regular"]

TABLE_MAX = 128 << 20  # bytes of one table
PIECE = 1 << 20  # bytes that are read of a large table at once: half a millisecond

FileIdentity = tuple[int, int, int, int]  # device, inode, change time in ns, size in bytes


def identity_of(file: BinaryIO) -> FileIdentity:
    """The identity of an open file; it changes when the file is written to.  Raises OSError."""
    return _identity(os.fstat(file.fileno()))


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


class Extent(NamedTuple):
    """A range of a file, in bytes."""

    offset: int
    size: int


def open_regular(path: str, directory: int | None = None) -> BinaryIO:
    """Open a regular file for reading; a FIFO or a device is neither waited for nor woken.

    A relative path starts at ``directory``, a descriptor.
    Raises OSError, and BadElf for a file of another kind.
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadElf(f"{path} is not a regular file")
        # The handle that was checked is opened, since the name may lead elsewhere by now.
        return open(f"/proc/self/fd/{handle}", "rb", buffering=0)  # noqa: PTH123 - the caller closes it
    finally:
        os.close(handle)


class RegularFile:
    """Reads a regular file, each range checked against the file's size.  Raises BadElf for a file of another kind."""

    def __init__(self, file: BinaryIO) -> None:
        self._source = file  # kept, so that it stays open
        self._file = file.fileno()
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise BadElf("not a regular file")
        self.size = status.st_size
        self.identity = _identity(status)
        self._held: list[tuple[int, bytes]] = []  # offset, bytes
        self.budget: Budget | None = None  # what reading may take now; None: no more than each limit says

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def duplicate(self) -> BinaryIO:
        """Another descriptor of the same open file, for the caller to close."""
        return os.fdopen(os.dup(self._file), "rb", buffering=0)

    def read(self, offset: int, size: int, what: str, limit: int = TABLE_MAX) -> bytes:
        """Exactly ``size`` bytes from an offset.

        Raises BadElf, with ``what`` in its message, if the range is larger than the limit or leaves the file.
        """
        if size > limit or offset + size > self.size:
            raise BadElf(f"its {what} does not fit into the file")
        if self.budget is not None:
            self.budget.check(what)
            self.budget.check_size(size, what)
        for start, held in self._held:
            if start <= offset and offset + size <= start + len(held):
                return held[offset - start : offset - start + size]
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise BadElf(f"its {what} is cut short")
        return self._with_held(offset, data) if self._held else data

    def pieces(self, extent: Extent, what: str, unit: int = 1) -> Iterator[bytes]:
        """The bytes of a range piece by piece, each of whole units of so many bytes; a rest of the range is left out.

        Raises BadElf if the range leaves the file, and OverBudget between two pieces.
        """
        end = extent.offset + extent.size - extent.size % unit
        if end > self.size:
            raise BadElf(f"its {what} does not fit into the file")
        step = PIECE - PIECE % unit
        for offset in range(extent.offset, end, step):
            yield self.read(offset, min(step, end - offset), what)

    def _with_held(self, offset: int, data: bytes) -> bytes:
        """The data that was read from an offset, with the held bytes in place of the file's."""
        mixed = bytearray(data)
        for start, held in self._held:
            begin, end = max(start, offset), min(start + len(held), offset + len(data))
            if begin < end:
                mixed[begin - offset : end - offset] = held[begin - start : end - start]
        return bytes(mixed)

    def hold(self, extents: Iterable[Extent], facts: object) -> bytes:
        """Read ranges into memory and use them from there.  Raises BadElf.

        Returns a digest of the ranges, their places and ``facts``, which the caller has read before.
        """
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=20)
        held = [(offset, self.read(offset, size, "contents")) for offset, size in extents]
        for offset, data in held:
            digest.update(b"%d %d " % (offset, len(data)))
            digest.update(data)
        self._held = held
        return digest.digest()

    @property
    def held(self) -> int:
        """Bytes that are held in memory."""
        return sum(len(data) for _, data in self._held)
