"""An open file that may be anything: read with pread, never mapped, and parts of it from memory once they were held.

A file that shrinks under a mapping kills the reader; one that is written to while it is read contradicts what was found
in it before.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from pyflame_ebpf.errors import PyflameError

TABLE_MAX = 128 << 20  # bytes of one symbol or string table

FileIdentity = tuple[int, int, int, int]  # device, inode, change time in ns, size


def identity_of(file: BinaryIO) -> FileIdentity:
    """What tells an open file from others, and from what it was before it was written to."""
    return _identity(os.fstat(file.fileno()))


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


class BadElf(PyflameError):
    """A file is not a regular file, not ELF for a 64-bit little-endian machine, or contradicts itself."""

    exit_code = 12


class Extent(NamedTuple):
    """Bytes of the file."""

    offset: int
    size: int


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading without ever blocking on or waking a FIFO or device; OSError, BadElf."""
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadElf(f"{path} is not a regular file")
        # What was checked is what is opened, whatever the name leads to by now.
        return open(f"/proc/self/fd/{handle}", "rb", buffering=0)  # noqa: PTH123 - the caller closes it
    finally:
        os.close(handle)


class RegularFile:
    """A regular file of which every part is checked against its size; BadElf for what is none."""

    def __init__(self, file: BinaryIO) -> None:
        self._source = file  # kept, so that it stays open
        self._file = file.fileno()
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise BadElf("not a regular file")
        self.size = status.st_size
        self.identity = _identity(status)
        self._held: list[tuple[int, bytes]] = []

    def close(self) -> None:
        """Ends the use of the file."""
        self._source.close()

    def duplicate(self) -> BinaryIO:
        """The same open file once more, for the caller to close."""
        return os.fdopen(os.dup(self._file), "rb", buffering=0)

    def read(self, offset: int, size: int, what: str, limit: int = TABLE_MAX) -> bytes:
        """Exactly these bytes; BadElf."""
        if size > limit or offset + size > self.size:
            raise BadElf(f"its {what} does not fit into the file")
        for start, held in self._held:
            if start <= offset and offset + size <= start + len(held):
                return held[offset - start : offset - start + size]
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise BadElf(f"its {what} is cut short")
        return self._with_held(offset, data) if self._held else data

    def _with_held(self, offset: int, data: bytes) -> bytes:
        """What was read from an offset on, with what is held of it in its place."""
        mixed = bytearray(data)
        for start, held in self._held:
            begin, end = max(start, offset), min(start + len(held), offset + len(data))
            if begin < end:
                mixed[begin - offset : end - offset] = held[begin - start : end - start]
        return bytes(mixed)

    def hold(self, extents: Iterable[Extent], facts: object) -> bytes:
        """Reads parts into memory, where nobody writes to them; the digest of them and of what is known already."""
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=20)
        held = [(offset, self.read(offset, size, "contents")) for offset, size in extents]
        for offset, data in held:
            digest.update(b"%d %d " % (offset, len(data)))
            digest.update(data)
        self._held = held
        return digest.digest()

    @property
    def held(self) -> int:
        """Bytes that are in memory."""
        return sum(len(data) for _, data in self._held)
