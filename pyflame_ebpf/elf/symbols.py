"""The symbols of an ELF file: functions by address, symbols by name, names by number.

A file has up to two tables: .symtab with all symbols, which strip removes, and .dynsym with those that other files may
use.  .symtab is found by the section headers, .dynsym by the dynamic section, which no strip removes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from pyflame_ebpf.elf.file import TABLE_MAX, BadElf, Extent
from pyflame_ebpf.elf.function_table import (
    NAME_MAX,
    SYMBOL,
    FunctionAt,
    Hit,
    SymbolTable,
    function_index,
    functions_at,
    string_at,
)
from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.elf.symbol_search import GnuHash, Symbol, scan

_SHT_SYMTAB = 2
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_STRINGS_MAX = 1 << 30  # bytes; they are read piece by piece, or a name at a time
_NAME_GUESS = 256  # bytes; most names take less than 100


class _Tables(NamedTuple):
    """The places of a symbol table and of its strings."""

    symbols: Extent
    strings: Extent

    @property
    def whole(self) -> int:
        """How many whole symbols the table has."""
        return self.symbols.size // SYMBOL.size


_NO_TABLES = _Tables(Extent(0, 0), Extent(0, 0))


class ElfSymbols:
    """The symbols of an open ELF file.  The places of the tables are found once, their bytes are read at each question.

    Every method and property raises BadElf where the file is damaged.
    """

    def __init__(self, image: ElfImage) -> None:
        self.image = image

    @property
    def build_id(self) -> bytes:
        """The build id of the file, empty without one."""
        return self.image.build_id

    @property
    def file_size(self) -> int:
        """The size of the file in bytes."""
        return self.image.file_size

    @property
    def count(self) -> int:
        """Symbols of both tables; those of .dynsym usually stand in .symtab, too."""
        return self.static_count + self._dynamic.whole

    @property
    def static_count(self) -> int:
        """Symbols of .symtab."""
        return self._static.whole

    @property
    def extents(self) -> list[Extent]:
        """The ranges of the file that hold symbols and their names."""
        return [*self._static, *self._dynamic]

    @property
    def stripped(self) -> bool:
        """True if the file has no .symtab that can be read."""
        return not self.static_count

    # Places of the tables

    @cached_property
    def _static(self) -> _Tables:
        """.symtab; empty if it was stripped, is too large or is damaged, since the other names do not depend on it."""
        sections = self.image.sections
        for section in sections:
            if section.kind == _SHT_SYMTAB and section.link < len(sections):
                strings = sections[section.link]
                tables = _Tables(Extent(section.offset, section.size), Extent(strings.offset, strings.size))
                return tables if self._fits(tables) else _NO_TABLES
        return _NO_TABLES

    @cached_property
    def _dynamic(self) -> _Tables:
        """.dynsym, empty if the file has none."""
        tags = self.image.dynamic
        if _DT_SYMTAB not in tags or _DT_STRTAB not in tags:
            return _NO_TABLES
        symbols = self.image.extent(tags[_DT_SYMTAB], SYMBOL.size * self._dynamic_count())
        tables = _Tables(symbols, self.image.extent(tags[_DT_STRTAB], tags.get(_DT_STRSZ, 0)))
        if not self._fits(tables):
            raise BadElf("its .dynsym does not fit into the file")
        return tables

    def _fits(self, tables: _Tables) -> bool:
        sized = tables.symbols.size <= TABLE_MAX and tables.strings.size <= _STRINGS_MAX
        return sized and all(offset + size <= self.image.file_size for offset, size in tables)

    def _dynamic_count(self) -> int:
        """Symbols in .dynsym: only the hash tables and the section headers tell."""
        tags = self.image.dynamic
        if _DT_HASH in tags:
            return int(struct.unpack("<II", self.image.read_virtual(tags[_DT_HASH], 8))[1])
        count = self._gnu_hash(tags[_DT_GNU_HASH]).count() if _DT_GNU_HASH in tags else 0
        if count is None:
            raise BadElf("its hash table has no end")
        # GNU ld's table of a file that exports nothing has a first symbol of 1, however many the file imports.
        section = self.image.section(".dynsym") if count <= 1 else None
        return max(count, section.size // SYMBOL.size if section else 0)

    def _gnu_hash(self, table: int) -> GnuHash:
        return GnuHash(self.image.read_virtual, self.image.read_virtual_up_to, table)

    # Symbols by name

    def symbol(self, name: str) -> Symbol | None:
        """The defined symbol of this name, dynamic or not."""
        return self.named([name]).get(name)

    def named(self, names: Iterable[str]) -> dict[str, Symbol]:
        """The defined symbols of these names, dynamic or not; .symtab is walked once for all of them."""
        found = {name: symbol for name in names if (symbol := self.dynamic_symbol(name))}
        others = [name for name in names if name not in found]
        return found | self._scan(self._static, others) if others else found

    def dynamic_symbol(self, name: str) -> Symbol | None:
        """The defined dynamic symbol of this name, found by the hash table if there is one."""
        tags = self.image.dynamic
        if not {_DT_GNU_HASH, _DT_SYMTAB, _DT_STRTAB} <= tags.keys():
            return self._scan(self._dynamic, [name]).get(name)
        wanted = name.encode() + b"\0"
        for index in self._gnu_hash(tags[_DT_GNU_HASH]).candidates(name):
            entry = SYMBOL.unpack(self.image.read_virtual(tags[_DT_SYMTAB] + SYMBOL.size * index, SYMBOL.size))
            if entry[3] and self.image.read_virtual(tags[_DT_STRTAB] + entry[0], len(wanted)) == wanted:
                return Symbol(name, entry[4], entry[5], entry[1] & 15)
        return None

    def _scan(self, tables: _Tables, names: Iterable[str]) -> dict[str, Symbol]:
        return scan(self._pieces_of(tables), self.image.pieces(tables.strings, "symbol names"), names)

    # Functions by address

    def functions(self, vaddrs: Iterable[int]) -> dict[int, Hit]:
        """The functions that hold addresses, by .symtab or, if that was stripped, by .dynsym."""
        return self.dynamic_functions(vaddrs) if self.stripped else self.static_functions(vaddrs)

    def function_at(self, vaddr: int) -> Hit | None:
        """The function that holds an address, None if no symbol covers it."""
        return self.functions([vaddr]).get(vaddr)

    def static_functions(self, vaddrs: Iterable[int]) -> dict[int, Hit]:
        """The functions of .symtab that hold addresses."""
        return functions_at(self._table(self._static), vaddrs, self._section_ends)

    def dynamic_functions(self, vaddrs: Iterable[int]) -> dict[int, Hit]:
        """The functions of .dynsym that hold addresses."""
        return functions_at(self._table(self._dynamic), vaddrs, whole=False)

    def static_index(self) -> FunctionAt:
        """An index of the functions of .symtab, for single addresses, usable while the file is open."""
        return function_index(self._table(self._static), self._section_ends)

    def dynamic_index(self) -> FunctionAt:
        """An index of the functions of .dynsym, for single addresses, usable while the file is open."""
        return function_index(self._table(self._dynamic), whole=False)

    @property
    def _section_ends(self) -> list[int]:
        return [section.vaddr + section.size for section in self.image.sections]

    # Bytes of the tables

    def dynamic_name(self, index: int) -> str:
        """The name of a symbol of .dynsym by its number, "" for none."""
        if not 0 < index < self._dynamic.whole:
            return ""
        place = Extent(self._dynamic.symbols.offset + index * SYMBOL.size, SYMBOL.size)
        return self._name(self._dynamic.strings, SYMBOL.unpack(self.image.read_extent(place, "symbols"))[0])

    def _table(self, tables: _Tables) -> SymbolTable:
        return SymbolTable(lambda: self._pieces_of(tables), lambda start: self._name(tables.strings, start))

    def _pieces_of(self, tables: _Tables) -> Iterator[bytes]:
        return self.image.pieces(tables.symbols, "symbols", SYMBOL.size)

    def _name(self, strings: Extent, start: int) -> str:
        """The name at an offset of a string table, cut at NAME_MAX bytes."""
        name = b""
        for limit in (_NAME_GUESS, NAME_MAX):
            size = min(limit, strings.size - start)
            name = self.image.read_extent(Extent(strings.offset + start, size), "symbol names") if size > 0 else b""
            if b"\0" in name:
                break
        return string_at(name, 0)
