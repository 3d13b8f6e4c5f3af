"""Functions by address, from the bytes of ELF symbol tables: (symbols, strings) → address → name.

The tables come from untrusted files: building one takes time and memory in proportion to its symbols, whose number is
bounded, and a lookup takes neither.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

SYMBOL = struct.Struct("<IBBHQQ")

_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_NAME_MAX = 4096
_SYMBOLS_MAX = 1 << 21  # 50 MB of them; Chromium has 1.3 million
_INDEX_BITS = 32


class SymbolTable(NamedTuple):
    """A symbol table with its strings, as bytes."""

    symbols: bytes
    strings: bytes


NO_SYMBOLS = SymbolTable(b"", b"")


class FunctionTable:
    """Functions sorted by address, looked up by address.

    ``section_ends`` has the first address after each section, by number: a function without a size ends there.  A table
    that is not ``whole`` lacks functions, any of which may follow one without a size, so such a one holds nothing.
    """

    _LOOK_BACK = 16  # functions that start before an address and may still hold it, aliases included

    def __init__(self, table: SymbolTable, section_ends: Sequence[int] = (), *, whole: bool = True) -> None:
        self._symbols, self._strings = table
        self._section_ends = section_ends
        self._whole = whole
        size = min(len(self._symbols) // SYMBOL.size, _SYMBOLS_MAX) * SYMBOL.size
        # One number for each, the address above the index, takes a third of the memory of a tuple.
        keys = [
            vaddr << _INDEX_BITS | index
            for index, (_, info, _, section, vaddr, _) in enumerate(SYMBOL.iter_unpack(self._symbols[:size]))
            if section and info & 15 in (_STT_FUNC, _STT_GNU_IFUNC)
        ]
        keys.sort()
        self._starts = array("Q", [key >> _INDEX_BITS for key in keys])
        self._indices = array("I", [key & 0xFFFFFFFF for key in keys])

    def __len__(self) -> int:
        """Count the functions."""
        return len(self._starts)

    @property
    def memory(self) -> int:
        """Bytes that it keeps, about."""
        return len(self._symbols) + len(self._strings) + 12 * len(self._starts)

    def at(self, vaddr: int) -> tuple[str, int] | None:
        """(function, offset in it): of the innermost one, by the plainest of its names."""
        end = bisect_right(self._starts, vaddr)
        holder = -1
        names = []
        for index in range(end - 1, max(end - 1 - self._LOOK_BACK, -1), -1):
            start = self._starts[index]
            if holder >= 0 and start != holder:
                break
            name, _, _, section, _, size = SYMBOL.unpack_from(self._symbols, self._indices[index] * SYMBOL.size)
            if vaddr - start < (size or self._size_without_one(index, end, section)):
                holder = start
                names.append(string_at(self._strings, name).partition("@")[0])  # without its version
        names = [name for name in names if name]
        return (min(names, key=_plainness), vaddr - holder) if names else None

    def _size_without_one(self, index: int, end: int, section: int) -> int:
        """A function written in assembler may have no size: it reaches to the next one, or to its section's end."""
        start = self._starts[index]
        if not self._whole or start != self._starts[end - 1]:
            return 0
        limit = self._section_ends[section] if section < len(self._section_ends) else 0
        return max(limit - start, 0) if limit else 1 << 64


def _plainness(name: str) -> tuple[int, int, str]:
    """Sorts ``puts`` before ``_IO_puts`` and ``__GI_puts``."""
    return len(name) - len(name.lstrip("_")), len(name), name


def string_at(strings: bytes, start: int) -> str:
    """The NUL-terminated name at an offset, cut where it is too long."""
    end = strings.find(b"\0", start, start + _NAME_MAX)
    return strings[start : end if end >= 0 else start + _NAME_MAX].decode("utf-8", "replace")
