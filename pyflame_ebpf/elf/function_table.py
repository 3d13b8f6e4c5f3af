"""Function names of addresses, from the bytes of an ELF symbol table.

A large library has half a million symbols and a profile asks for a few hundred addresses.  So all addresses of a file
are looked up together: array operations set aside the symbols far from any address, at some 100 ns a symbol.

The tables are hostile input: a look-up takes time in proportion to the symbols, of which at most two million are read,
a piece of the table at a time, and memory in proportion to the functions around the wanted addresses.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import compress
from typing import NamedTuple

from pyflame_ebpf.elf.bad_elf import OverBudget

SYMBOL = struct.Struct("<IBBHQQ")
NAME_MAX = 4096  # bytes

_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_SYMBOLS_MAX = 1 << 21  # 50 MB; Chromium has 1.3 million
_SYMBOLS_ABOVE_MAX = 1 << 18  # of a file with functions at 4 GiB and above, as kernels' vDSOs, which have a dozen
SELECTED_MAX = 1 << 19  # functions; 60 MB.  A profile with 2,000 places in a library of large functions has 300,000
_NAMES_LATELY = 1024  # of 4 KB at the most; aliases of one function are asked for again and again
_INDEX_BITS = 32
_LOOK_BACK = 16  # the nearest functions before an address, aliases included, are asked whether they hold it
_BLOCK_SHIFT = 16  # blocks of 64 KiB: an array of 16-bit numbers has the block of an address without arithmetic
_BLOCKS = 1 << 16
_IS_FUNCTION = bytes(info & 15 in (_STT_FUNC, _STT_GNU_IFUNC) for info in range(256))
_IS_SET = bytes(map(bool, range(256)))

Hit = tuple[str, int]  # function, offset in it in bytes
FunctionAt = Callable[[int], Hit | None]


class SymbolTable(NamedTuple):
    """A symbol table, read piece by piece, and a function that gives the name at an offset of its strings."""

    pieces: Callable[[], Iterable[bytes]]  # of whole symbols; called for each pass over the table
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
    nearby = _Nearby(table, _functions_near(table, wanted), section_ends if whole else None)
    return {vaddr: hit for vaddr in wanted if (hit := nearby.at(vaddr))}


def function_index(table: SymbolTable, section_ends: Sequence[int] = (), *, whole: bool = True) -> FunctionAt:
    """``functions_at`` for single addresses: an index that takes some 150 bytes for each function of the table."""
    return _Nearby(table, _functions_near(table, None), section_ends if whole else None).at


class _Functions(NamedTuple):
    """Functions of a table: keys ``address << 32 | number``, and their symbols, which the numbers count."""

    keys: list[int]
    symbols: bytearray


class _Nearby:
    """Functions sorted by address; all that may hold a wanted address are among them."""

    def __init__(self, table: SymbolTable, found: _Functions, section_ends: Sequence[int] | None) -> None:
        self._symbols = found.symbols
        self._name_at = lru_cache(_NAMES_LATELY)(table.name_at)
        self._section_ends = section_ends
        self._starts = array("Q", [key >> _INDEX_BITS for key in found.keys])
        self._indices = array("L", [key & (1 << _INDEX_BITS) - 1 for key in found.keys])

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


def _functions_near(table: SymbolTable, wanted: set[int] | None) -> _Functions:
    """The functions in and before the blocks of wanted addresses; None for ``wanted`` stands for all addresses.

    Raises OverBudget for more than SELECTED_MAX.
    """
    limit = _SYMBOLS_MAX
    chosen = None
    if wanted is not None:
        populated: Counter[int] = Counter()
        for piece in _first(table.pieces(), limit):
            halves = array("H", _vaddrs(piece).tobytes())
            kinds = _function_flags(piece)
            if _any_above_4_gib(halves, kinds):  # in hardly any file: its functions are not set aside by blocks
                limit = _SYMBOLS_ABOVE_MAX
                break
            populated.update(compress(halves[1::4], kinds))
        else:
            chosen = _chosen_blocks(populated, {vaddr >> _BLOCK_SHIFT for vaddr in wanted})
    found = _Functions([], bytearray())
    for piece in _first(table.pieces(), limit):
        _select(found, piece, chosen)
    found.keys.sort()
    return found


def _select(found: _Functions, piece: bytes, chosen: bytearray | None) -> None:
    """Add the functions of a piece of the table that are in chosen blocks.  Raises OverBudget."""
    keys, symbols = found
    kinds = _function_flags(piece)
    vaddrs = _vaddrs(piece)
    indices = compress(range(len(kinds)), kinds)
    if chosen is not None:
        blocks = compress(array("H", vaddrs.tobytes())[1::4], kinds)
        indices = compress(indices, map(chosen.__getitem__, blocks))
    for index in indices:
        keys.append(vaddrs[index] << _INDEX_BITS | len(keys))
        symbols += piece[index * SYMBOL.size : (index + 1) * SYMBOL.size]
    if len(keys) > SELECTED_MAX:
        raise OverBudget(f"it has more than {SELECTED_MAX:,} functions around the wanted ones: over its budget")


def _first(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The pieces up to so many symbols, each of whole symbols."""
    for piece in pieces:
        count = min(len(piece) // SYMBOL.size, limit)
        limit -= count
        if count:
            yield piece[: count * SYMBOL.size]


def _vaddrs(symbols: bytes) -> array[int]:
    return array("Q", symbols)[1 :: SYMBOL.size // 8]


def _any_above_4_gib(halves: array[int], kinds: bytes) -> bool:
    above = [halves[place::4] for place in (2, 3)]
    return any(half.tobytes().strip(b"\0") and any(compress(half, kinds)) for half in above)


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


def string_at(strings: bytes, start: int, limit: int = NAME_MAX) -> str:
    """The NUL-terminated name at an offset, cut at ``limit`` bytes."""
    end = strings.find(b"\0", start, start + limit)
    return strings[start : end if end >= 0 else start + limit].decode("utf-8", "replace")
