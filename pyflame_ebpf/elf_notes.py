"""The notes of an ELF file, among which its build id is.

Source: System V ABI, "Note Section".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator


def notes_in(data: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """(type, owner, start of descriptor, its size) of each note, entries 4-byte aligned."""
    position = 0
    while position + 12 <= len(data):
        owner_size, size, kind = struct.unpack_from("<III", data, position)
        start = position + 12 + (owner_size + 3) // 4 * 4
        if start + size > len(data):
            return
        yield kind, data[position + 12 : position + 12 + owner_size], start, size
        position = start + (size + 3) // 4 * 4
