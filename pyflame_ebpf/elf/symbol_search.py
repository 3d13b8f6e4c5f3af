"""Symbols by name: through the GNU hash table of dynamic symbols, or by scanning a table.

The tables are hostile input: a chain of the hash table is followed for 4,096 symbols, and a scan takes time in
proportion to the tables, which it reads piece by piece, so that a budget can end it.

Source: "GNU Hash ELF Sections", Oracle's description of DT_GNU_HASH, for no standard describes it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pyflame_ebpf.elf.bad_elf import BadElf
from pyflame_ebpf.elf.function_table import SYMBOL

_WORDS = struct.Struct("<IIII")
_CHAIN_MAX = 4096  # symbols of one hash bucket
_SCAN_MAX = 256  # names that end like a wanted one
_BUCKETS_MAX = 1 << 22  # 16 MB; linkers make fewer buckets than symbols, and Chromium has 1.3 million symbols
_BUCKETS_PIECE = 1 << 16  # buckets that are read at once

Read = Callable[[int, int], bytes]  # (address, size) → bytes; raises BadElf


class Symbol(NamedTuple):
    """A defined symbol; ``kind`` is the ELF symbol type."""

    name: str
    vaddr: int
    size: int
    kind: int


class GnuHash:
    """The hash table at an address: ``read`` gives exactly the wanted bytes, ``read_up_to`` as many as there are.

    Every method raises BadElf where the table leaves the file.
    """

    def __init__(self, read: Read, read_up_to: Read, table: int) -> None:
        self._read = read
        self._read_up_to = read_up_to
        self._buckets, self._first_hashed, self._bloom_words, self._shift = _WORDS.unpack(read(table, _WORDS.size))
        self._bloom_at = table + _WORDS.size
        self._buckets_at = self._bloom_at + 8 * self._bloom_words

    def _chain(self, index: int) -> bytes:
        at = self._buckets_at + 4 * self._buckets + 4 * (index - self._first_hashed)
        chain = self._read_up_to(at, 4 * _CHAIN_MAX)
        return chain[: len(chain) // 4 * 4]

    def count(self) -> int | None:
        """The number of dynamic symbols, which is where the last chain ends; None if that chain has no end."""
        if self._buckets > _BUCKETS_MAX:
            raise BadElf("its hash table has too many buckets")
        last = 0
        for first in range(0, self._buckets, _BUCKETS_PIECE):
            size = 4 * min(_BUCKETS_PIECE, self._buckets - first)
            largest = max(array("I", self._read(self._buckets_at + 4 * first, size)), default=0)
            last = max(last, largest)
        if last < self._first_hashed:
            return int(self._first_hashed)
        for index, (value,) in enumerate(struct.iter_unpack("<I", self._chain(last))):
            if value & 1:
                return int(last) + index + 1
        return None

    def candidates(self, name: str) -> Iterator[int]:
        """The numbers of the symbols whose hash is that of this name."""
        wanted = _hash(name.encode())
        if not self._buckets or not self._bloom_words:
            return
        bloom = int.from_bytes(self._read(self._bloom_at + 8 * (wanted // 64 % self._bloom_words), 8), "little")
        if not (bloom >> wanted % 64 & 1 and bloom >> (wanted >> (self._shift & 31)) % 64 & 1):
            return
        index = int.from_bytes(self._read(self._buckets_at + 4 * (wanted % self._buckets), 4), "little")
        if index < self._first_hashed:
            return
        for (value,) in struct.iter_unpack("<I", self._chain(index)):
            if value | 1 == wanted | 1:
                yield index
            if value & 1:
                return
            index += 1


def _hash(name: bytes) -> int:
    """The hash of DT_GNU_HASH: Bernstein's, times 33, 32 bits."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def scan(symbols: Iterable[bytes], strings: Iterable[bytes], names: Iterable[str]) -> dict[str, Symbol]:
    """The defined symbols of these names, from the pieces of the tables; symbols are not cut by a piece's end.

    Of several symbols with a name the first counts.  Numbers are searched without unpacking the symbols.
    """
    offsets = _offsets(strings, {name: name.encode() + b"\0" for name in names})
    found: dict[str, Symbol] = {}
    for piece in symbols if offsets else ():
        numbers = array("I", piece)[:: SYMBOL.size // 4]
        if offsets.keys().isdisjoint(numbers):
            continue
        for index, number in enumerate(numbers):
            if number in offsets and offsets[number] not in found:
                _, info, _, section, vaddr, size = SYMBOL.unpack_from(piece, index * SYMBOL.size)
                if section:
                    found[offsets[number]] = Symbol(offsets[number], vaddr, size, info & 15)
    return found


def _offsets(strings: Iterable[bytes], wanted: dict[str, bytes]) -> dict[int, str]:
    """Name by offset of each string, or end of a string, that is a wanted one; 256 of each name at the most."""
    longest = max(map(len, wanted.values()), default=1)
    offsets: dict[int, str] = {}
    counts = dict.fromkeys(wanted, 0)
    before, at = b"", 0  # the end of the pieces so far, and its offset
    for piece in strings:
        data = before + piece
        for name, ending in wanted.items():
            position = data.find(ending)
            while position >= 0 and counts[name] < _SCAN_MAX:
                if position + len(ending) > len(before):  # else it was found in the piece before
                    offsets[at + position] = name
                    counts[name] += 1
                position = data.find(ending, position + 1)
        before = data[max(len(data) - longest + 1, 0) :]
        at += len(data) - len(before)
    return offsets
