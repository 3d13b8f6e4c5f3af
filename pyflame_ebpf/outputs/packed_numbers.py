"""Columns of numbers, as the report's page unpacks them.

A column is unsigned 32-bit numbers: all their lowest bytes first, then all their second bytes, and so on.  Most of the
high bytes are 0, which costs nothing once compressed.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

_NUMBER_MAX = 0xFFFFFFFF  # no honest recording has a larger one; a damaged profile may


class Columns:
    """Columns of numbers, transposed by bytes, one after the other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, numbers: Iterable[int]) -> dict[str, int]:
        """Add a column.  Returns where it begins, in bytes, and how many numbers it has."""
        content = array("I", [min(max(number, 0), _NUMBER_MAX) for number in numbers])
        if sys.byteorder == "big":
            content.byteswap()
        place = {"at": self._size, "count": len(content)}
        whole = content.tobytes()
        self._parts += [whole[byte::4] for byte in range(4)]
        self._size += len(whole)
        return place

    def content(self) -> bytes:
        """All columns that were added."""
        return b"".join(self._parts)
