"""Function names of addresses, from the bytes of an ELF symbol table.

A large library has half a million symbols and a profile asks for a few hundred addresses.  So all addresses of a file
are looked up together: array operations set aside the symbols far from any address, at some 60 ns a symbol.

The tables are hostile input: a look-up takes time and memory in proportion to the symbols, of which at most two million
are read.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import compress
from typing import NamedTuple

SYMBOL = struct.Struct("<IBBHQQ")
NAME_MAX = 4096  # bytes

_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_SYMBOLS_MAX = 1 << 21  # 50 MB; Chromium has 1.3 million
_INDEX_BITS = 32
_LOOK_BACK = 16  # the nearest functions before an address, aliases included, are asked whether they hold it
_BLOCK_SHIFT = 16  # blocks of 64 KiB: an array of 16-bit numbers has the block of an address without arithmetic
_BLOCKS = 1 << 16
_IS_FUNCTION = bytes(info & 15 in (_STT_FUNC, _STT_GNU_IFUNC) for info in range(256))
_IS_SET = bytes(map(bool, range(256)))

Hit = tuple[str, int]  # function, offset in it in bytes
FunctionAt = Callable[[int], Hit | None]


class SymbolTable(NamedTuple):
    """A symbol table as bytes, and a function that gives the name at an offset of its strings."""

    symbols: bytes
    name_at: Callable[[int], str]


def functions_at(
    table: SymbolTable, vaddrs: Iterable[int], section_ends: Sequence[int] = (), *, whole: bool = True
) -> dict[int, Hit]:
    """The function that holds each address: the innermost one, by the plainest of its names.

    ``section_ends`` has the first address after each section, by section number: a function of size 0 ends there.  If
    ``whole`` is False (.dynsym), unlisted functions may exist, so a function of size 0 holds nothing.
    """
    wanted = set(vaddrs)
    if not wanted:
        return {}
    nearby = _Nearby(table, _keys_near(table.symbols, wanted), section_ends if whole else None)
    return {vaddr: hit for vaddr in wanted if (hit := nearby.at(vaddr))}


def function_index(table: SymbolTable, section_ends: Sequence[int] = (), *, whole: bool = True) -> FunctionAt:
    """``functions_at`` for single addresses: an index that takes some 150 bytes for each function of the table."""
    return _Nearby(table, _keys_near(table.symbols, None), section_ends if whole else None).at


class _Nearby:
    """Functions sorted by address; all that may hold a wanted address are among them."""

    def __init__(self, table: SymbolTable, keys: list[int], section_ends: Sequence[int] | None) -> None:
        self._symbols = table.symbols
        self._name_at = cache(table.name_at)
        self._section_ends = section_ends
        self._starts = [key >> _INDEX_BITS for key in keys]
        self._indices = [key & (1 << _INDEX_BITS) - 1 for key in keys]

    def at(self, vaddr: int) -> Hit | None:
        end = bisect_right(self._starts, vaddr)
        holder = -1
        names = []
        for index in range(end - 1, max(end - 1 - _LOOK_BACK, -1), -1):
            start = self._starts[index]
            if holder >= 0 and start != holder:
                break
            name, _, _, section, _, size = SYMBOL.unpack_from(self._symbols, self._indices[index] * SYMBOL.size)
            if vaddr - start < (size or self._size_without_one(index, end, section)):
                holder = start
                names.append(self._name_at(name).partition("@")[0])  # without its version
        names = [name for name in names if name]
        return (min(names, key=_plainness), vaddr - holder) if names else None

    def _size_without_one(self, index: int, end: int, section: int) -> int:
        """The size of a function of size 0, as assembler makes them: up to the next one or to its section's end."""
        start = self._starts[index]
        if self._section_ends is None or start != self._starts[end - 1]:
            return 0
        limit = self._section_ends[section] if section < len(self._section_ends) else 0
        return max(limit - start, 0) if limit else 1 << 64


def _keys_near(symbols: bytes, wanted: set[int] | None) -> list[int]:
    """Sorted keys ``address << 32 | symbol number`` of the functions in and before the blocks of wanted addresses.

    None for ``wanted`` stands for all addresses.
    """
    symbols = symbols[: min(len(symbols) // SYMBOL.size, _SYMBOLS_MAX) * SYMBOL.size]
    kinds = _function_flags(symbols)
    indices = compress(range(len(kinds)), kinds)
    vaddrs = array("Q", symbols)[1 :: SYMBOL.size // 8]
    halves = array("H", vaddrs.tobytes())
    if wanted is not None and not any(
        halves[place::4].tobytes().strip(b"\0") for place in (2, 3)
    ):  # below 4 GiB, as nearly all files
        blocks = list(compress(halves[1::4], kinds))
        chosen = _chosen_blocks(Counter(blocks), {vaddr >> _BLOCK_SHIFT for vaddr in wanted})
        indices = compress(indices, map(chosen.__getitem__, blocks))
    return sorted([vaddrs[index] << _INDEX_BITS | index for index in indices])


def _function_flags(symbols: bytes) -> bytes:
    """A byte for each symbol: 1 for a defined function, 0 for anything else."""
    functions, *section = (
        int.from_bytes(symbols[place :: SYMBOL.size].translate(table), "little")
        for place, table in ((4, _IS_FUNCTION), (6, _IS_SET), (7, _IS_SET))
    )
    return (functions & (section[0] | section[1])).to_bytes(len(symbols) // SYMBOL.size, "little")


def _chosen_blocks(functions: Counter[int], wanted: Iterable[int]) -> bytearray:
    """A byte for each block: 1 for the wanted ones and for the ones before them that a look back may reach."""
    chosen = bytearray(_BLOCKS)
    populated = sorted(functions)
    for block in wanted:
        reached = 0
        for before in reversed(populated[: bisect_left(populated, block)]):
            if reached >= _LOOK_BACK:
                break
            chosen[before] = 1
            reached += functions[before]
        if block < _BLOCKS:
            chosen[block] = 1
    return chosen


def _plainness(name: str) -> tuple[int, int, str]:
    """A sort key: ``puts`` comes before ``_IO_puts`` and ``__GI_puts``."""
    return len(name) - len(name.lstrip("_")), len(name), name


def string_at(strings: bytes, start: int) -> str:
    """The NUL-terminated name at an offset, cut at NAME_MAX bytes."""
    end = strings.find(b"\0", start, start + NAME_MAX)
    return strings[start : end if end >= 0 else start + NAME_MAX].decode("utf-8", "replace")
