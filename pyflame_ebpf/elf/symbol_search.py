"""Symbols by name: through the GNU hash table of dynamic symbols, or by scanning a table.

The tables are hostile input: a chain of the hash table is followed for 4,096 symbols, and a scan looks at 256 names and
at 256 places for each.

Source: "GNU Hash ELF Sections", Oracle's description of DT_GNU_HASH, for no standard describes it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from pyflame_ebpf.elf.function_table import SYMBOL

_WORDS = struct.Struct("<IIII")
_CHAIN_MAX = 4096  # symbols of one hash bucket
_SCAN_MAX = 256  # names that end like the wanted one; places where the bytes of its offset occur by chance

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
        buckets = struct.unpack(f"<{self._buckets}I", self._read(self._buckets_at, 4 * self._buckets))
        last = max(buckets, default=0)
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


def scan(symbols: bytes, strings: bytes, name: str) -> Symbol | None:
    """The defined symbol of this name; a search in the tables' bytes is 100 times faster than unpacking them."""
    wanted = name.encode() + b"\0"
    for at in islice(_occurrences(strings, wanted), _SCAN_MAX):
        for position in islice(_occurrences(symbols, struct.pack("<I", at)), _SCAN_MAX):
            if position % SYMBOL.size == 0:
                _, info, _, section, vaddr, size = SYMBOL.unpack_from(symbols, position)
                if section:
                    return Symbol(name, vaddr, size, info & 15)
    return None


def _occurrences(data: bytes, wanted: bytes) -> Iterator[int]:
    position = data.find(wanted)
    while position >= 0:
        yield position
        position = data.find(wanted, position + 1)
