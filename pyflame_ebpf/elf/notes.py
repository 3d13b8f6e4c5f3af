"""The notes of an ELF file, and the GNU build id among them.

Source: System V ABI, "Note Section"; the GNU tools pad name and descriptor to 4 bytes in 64-bit files, too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = struct.Struct("<III")  # size of the name, size of the descriptor, type
_ALIGNMENT = 4  # bytes
_NT_GNU_BUILD_ID = 3


class Note(NamedTuple):
    """One note; ``start`` and ``size`` are its descriptor's place in the notes, in bytes."""

    kind: int
    owner: bytes  # with its terminating NUL
    start: int
    size: int


def notes_in(data: bytes) -> Iterator[Note]:
    """The notes up to the first that does not fit into the data."""
    position = 0
    while position + _HEADER.size <= len(data):
        owner_size, size, kind = _HEADER.unpack_from(data, position)
        owner_at = position + _HEADER.size
        start = owner_at + _padded(owner_size)
        if start + size > len(data):
            return
        yield Note(kind, data[owner_at : owner_at + owner_size], start, size)
        position = start + _padded(size)


def build_id_in(data: bytes) -> Note | None:
    """The first GNU build id among the notes, None without one."""
    return next((note for note in notes_in(data) if (note.kind, note.owner) == (_NT_GNU_BUILD_ID, b"GNU\0")), None)


def _padded(size: int) -> int:
    return (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
