"""An open ELF file as facts: segments, build id, symbols.

The file may be anything that a hostile process has mapped: it is read with pread, never mapped (a file that shrinks
under a mapping kills the reader), every size is checked against the file and a limit before it is read, and whatever
is wrong with it ends in BadElf.  The few structures needed are unpacked here: importing pyelftools and building its
objects takes longer than the whole detection of an interpreter may.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import cached_property
from typing import BinaryIO, NamedTuple

from pyflame_ebpf.elf.file import TABLE_MAX, BadElf, Extent, FileIdentity, RegularFile, open_regular
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
from pyflame_ebpf.elf.symbol_search import GnuHash, Symbol, scan

__all__ = ["BadElf", "ElfImage", "ElfType", "Extent", "Section", "Segment", "open_regular"]

PF_X = 1

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PAIR = struct.Struct("<QQ")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_SHT_SYMTAB, _SHT_NOBITS = 2, 8
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_DEBUG, _DT_GNU_HASH = 0, 4, 5, 6, 10, 21, 0x6FFFFEF5
_PT_GNU_EH_FRAME = 0x6474E550
_NT_GNU_BUILD_ID = 3

_SEGMENTS_MAX = 256
_SECTIONS_MAX = 4096
_NOTES_MAX = 1 << 16  # bytes
_DYNAMIC_MAX = 1 << 16  # bytes
_NAME_GUESS = 256  # bytes; most names take less than 100


class ElfType(IntEnum):
    """How the file is placed in memory."""

    EXEC = 2  # at the addresses it names
    DYN = 3  # anywhere: shared libraries and position-independent executables


class Segment(NamedTuple):
    """One program header; addresses and sizes in bytes."""

    kind: int
    flags: int
    offset: int
    vaddr: int
    file_size: int
    memory_size: int


class Section(NamedTuple):
    """One section header."""

    name: str
    kind: int
    vaddr: int
    offset: int
    size: int
    link: int


class _Tables(NamedTuple):
    """Where a symbol table and its strings are."""

    symbols: Extent
    strings: Extent


_NO_TABLES = _Tables(Extent(0, 0), Extent(0, 0))


class ElfImage:
    """What an ELF file says; reads the file lazily, so keep it open for as long as this is asked."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = RegularFile(file)
        self._read = self._file.read
        self.file_size = self._file.size
        (ident, kind, self.machine, _, self.entry, segments_at, self._sections_at, _, _, size, count, *sections) = (
            _HEADER.unpack(self._read(0, _HEADER.size, "header"))
        )
        self._section_size, self._section_count, self._section_names = sections
        if ident[:6] != b"\x7fELF\x02\x01":
            raise BadElf("not an ELF file for a 64-bit little-endian machine")
        if kind not in (ElfType.EXEC, ElfType.DYN) or size != _SEGMENT.size or count > _SEGMENTS_MAX:
            raise BadElf("not an ELF executable or shared library")
        self.type = ElfType(kind)
        headers = _SEGMENT.iter_unpack(self._read(segments_at, size * count, "program headers"))
        self.all_segments = tuple(
            Segment(p_type, flags, offset, vaddr, file_size, memory_size)
            for p_type, flags, offset, vaddr, _, file_size, memory_size, _ in headers
        )
        self.segments = tuple(segment for segment in self.all_segments if segment.kind == _PT_LOAD)

    def close(self) -> None:
        """Ends the use of the file."""
        self._file.close()

    def duplicate(self) -> BinaryIO:
        """The same open file once more, for the caller to close."""
        return self._file.duplicate()

    @property
    def identity(self) -> FileIdentity:
        """What tells its file from others."""
        return self._file.identity

    def hold(self, extents: Iterable[Extent], facts: object) -> bytes:
        """Reads parts of it from memory from now on; their digest and that of ``facts``; BadElf."""
        return self._file.hold(extents, facts)

    @property
    def held(self) -> int:
        """Bytes of it that are in memory."""
        return self._file.held

    def read_virtual(self, vaddr: int, size: int) -> bytes:
        """Bytes of the file at an address of the image; BadElf where the file has none."""
        return self._read(*self.extent(vaddr, size), f"data at {vaddr:#x}")

    def extent(self, vaddr: int, size: int) -> Extent:
        """Where in the file the bytes at an address are; BadElf."""
        for segment in self.segments:
            inside = vaddr - segment.vaddr
            if inside >= 0 and inside + size <= segment.file_size:
                return Extent(segment.offset + inside, size)
        raise BadElf(f"nothing in the file is loaded at {vaddr:#x}")

    def read_virtual_up_to(self, vaddr: int, limit: int) -> bytes:
        """As many bytes as the file's segment has from an address on, at the most ``limit``; BadElf for none."""
        for segment in self.segments:
            inside = vaddr - segment.vaddr
            if 0 <= inside < segment.file_size:
                return self._read(
                    segment.offset + inside, min(segment.file_size - inside, limit), f"data at {vaddr:#x}"
                )
        raise BadElf(f"nothing in the file is loaded at {vaddr:#x}")

    def vaddr_of(self, offset: int) -> int | None:
        """Where an offset in the file is loaded, an executable segment first; None when it is not."""
        for segment in sorted(self.segments, key=lambda segment: not segment.flags & PF_X):
            page_slack = segment.offset & 4095  # the whole first page is mapped
            if segment.offset - page_slack <= offset < segment.offset + segment.file_size:
                return segment.vaddr - segment.offset + offset
        return None

    @property
    def interpreted(self) -> bool:
        """Whether it asks for a dynamic linker."""
        return any(segment.kind == _PT_INTERP for segment in self.all_segments)

    @property
    def unwind_index(self) -> Segment | None:
        """Where .eh_frame_hdr is; None in a file without one."""
        return next((segment for segment in self.all_segments if segment.kind == _PT_GNU_EH_FRAME), None)

    @property
    def first_text_vaddr(self) -> int:
        """The lowest executable segment's address, which the kernel keeps as mm->start_code; -1 without one.

        Source: load_elf_binary() in fs/binfmt_elf.c since Linux 5.6; before, all segments counted.
        """
        return min((segment.vaddr for segment in self.segments if segment.flags & PF_X), default=-1)

    @property
    def dynamic_vaddr(self) -> int:
        """Address of the dynamic section; 0 without one."""
        return next((segment.vaddr for segment in self.all_segments if segment.kind == _PT_DYNAMIC), 0)

    @cached_property
    def dynamic_entries(self) -> list[tuple[int, int]]:
        """(tag, value) up to DT_NULL, in order."""
        entries: list[tuple[int, int]] = []
        for segment in self.all_segments:
            if segment.kind != _PT_DYNAMIC:
                continue
            size = segment.file_size - segment.file_size % _PAIR.size
            for tag, value in _PAIR.iter_unpack(self._read(segment.offset, size, "dynamic section", _DYNAMIC_MAX)):
                if tag == _DT_NULL:
                    return entries
                entries.append((tag, value))
        return entries

    @cached_property
    def _dynamic(self) -> dict[int, int]:
        return dict(self.dynamic_entries)

    @property
    def debug_entry_vaddr(self) -> int:
        """Address of DT_DEBUG's value, into which the dynamic linker writes where its list of libraries is; 0: none."""
        for index, (tag, _) in enumerate(self.dynamic_entries):
            if tag == _DT_DEBUG:
                return self.dynamic_vaddr + _PAIR.size * index + 8
        return 0

    @cached_property
    def _build_id(self) -> tuple[bytes, int]:
        for segment in self.all_segments:
            if segment.kind == _PT_NOTE and segment.file_size <= _NOTES_MAX:
                notes = self._read(segment.offset, segment.file_size, "notes", _NOTES_MAX)
                for kind, owner, start, size in notes_in(notes):
                    if kind == _NT_GNU_BUILD_ID and owner == b"GNU\0":
                        return notes[start : start + size], segment.vaddr + start
        return b"", 0

    @property
    def build_id(self) -> bytes:
        """The GNU build id; empty without one."""
        return self._build_id[0]

    @property
    def build_id_vaddr(self) -> int:
        """Address of the first byte of the build id; 0 without one."""
        return self._build_id[1]

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The section headers; empty where they were stripped or make no sense."""
        try:
            return self._read_sections()
        except BadElf:
            return ()

    def _read_sections(self) -> tuple[Section, ...]:
        count, size = self._section_count, self._section_size
        if size != _SECTION.size or not 0 < count <= _SECTIONS_MAX or self._section_names >= count:
            return ()
        headers = list(_SECTION.iter_unpack(self._read(self._sections_at, size * count, "section headers")))
        names_at, names_size = headers[self._section_names][4:6]
        names = self._read(names_at, names_size, "section names", 1 << 20)
        return tuple(
            Section(string_at(names, name), kind, vaddr, offset, length, link)
            for name, kind, _, vaddr, offset, length, link, *_ in headers
        )

    def section(self, name: str) -> Section | None:
        """The first section of this name."""
        return next((section for section in self.sections if section.name == name), None)

    def section_data(self, section: Section, limit: int = TABLE_MAX) -> bytes:
        """A section's bytes; BadElf when it has none in the file or is larger than the limit."""
        if section.kind == _SHT_NOBITS:
            raise BadElf(f"its section {section.name} is not in the file")
        return self._read(section.offset, section.size, f"section {section.name}", limit)

    def section_part(self, section: Section, start: int, size: int) -> bytes:
        """So many bytes of a section from one on, fewer at its end; BadElf."""
        size = min(size, section.size - start)
        return self.section_data(section._replace(offset=section.offset + start, size=size))

    @cached_property
    def _static_tables(self) -> _Tables:
        """.symtab; empty where it was stripped, and where it is too large or damaged: nothing else needs it."""
        for section in self.sections:
            if section.kind == _SHT_SYMTAB and section.link < len(self.sections):
                strings = self.sections[section.link]
                tables = _Tables(Extent(section.offset, section.size), Extent(strings.offset, strings.size))
                return tables if self._fits(tables) else _NO_TABLES
        return _NO_TABLES

    @cached_property
    def _dynamic_tables(self) -> _Tables:
        """.dynsym, found through the dynamic section, which no strip removes."""
        tags = self._dynamic
        if _DT_SYMTAB not in tags or _DT_STRTAB not in tags:
            return _NO_TABLES
        symbols = self.extent(tags[_DT_SYMTAB], SYMBOL.size * self._dynamic_symbol_count())
        tables = _Tables(symbols, self.extent(tags[_DT_STRTAB], tags.get(_DT_STRSZ, 0)))
        if not self._fits(tables):
            raise BadElf("its .dynsym does not fit into the file")
        return tables

    def _fits(self, tables: _Tables) -> bool:
        return all(size <= TABLE_MAX and offset + size <= self.file_size for offset, size in tables)

    def _dynamic_symbol_count(self) -> int:
        """Symbols in .dynsym; only the hash tables and the section headers know."""
        tags = self._dynamic
        if _DT_HASH in tags:
            return int(struct.unpack("<II", self.read_virtual(tags[_DT_HASH], 8))[1])
        if _DT_GNU_HASH in tags:
            if (count := self._gnu_hash(tags[_DT_GNU_HASH]).count()) is not None:
                return count
            raise BadElf("its hash table has no end")
        section = self.section(".dynsym")
        return section.size // SYMBOL.size if section else 0

    def _gnu_hash(self, table: int) -> GnuHash:
        return GnuHash(self.read_virtual, self.read_virtual_up_to, table)

    def dynamic_symbol(self, name: str) -> Symbol | None:
        """The defined dynamic symbol of this name, by the hash table where there is one; BadElf."""
        tags = self._dynamic
        if not {_DT_GNU_HASH, _DT_SYMTAB, _DT_STRTAB} <= tags.keys():
            return self._scan(self._dynamic_tables, name)
        for index in self._gnu_hash(tags[_DT_GNU_HASH]).candidates(name):
            entry = SYMBOL.unpack(self.read_virtual(tags[_DT_SYMTAB] + SYMBOL.size * index, SYMBOL.size))
            wanted = name.encode() + b"\0"
            if entry[3] and self.read_virtual(tags[_DT_STRTAB] + entry[0], len(wanted)) == wanted:
                return Symbol(name, entry[4], entry[5], entry[1] & 15)
        return None

    def symbol(self, name: str) -> Symbol | None:
        """The defined symbol of this name, dynamic or not; BadElf."""
        return self.dynamic_symbol(name) or self._scan(self._static_tables, name)

    def _scan(self, tables: _Tables, name: str) -> Symbol | None:
        return scan(self._symbol_bytes(tables), self._read(*tables.strings, "symbol names"), name)

    def _symbol_bytes(self, tables: _Tables) -> bytes:
        offset, size = tables.symbols
        return self._read(offset, size - size % SYMBOL.size, "symbols")

    def functions(self, vaddrs: Iterable[int]) -> dict[int, Hit]:
        """What holds each address, by .symtab or, where that was stripped, .dynsym; BadElf."""
        return self.dynamic_functions(vaddrs) if self.stripped else self.static_functions(vaddrs)

    def static_functions(self, vaddrs: Iterable[int]) -> dict[int, Hit]:
        """The functions of .symtab that hold addresses; BadElf."""
        return functions_at(self._table(self._static_tables), vaddrs, self._section_ends)

    def dynamic_functions(self, vaddrs: Iterable[int]) -> dict[int, Hit]:
        """The functions of .dynsym that hold addresses; BadElf."""
        return functions_at(self._table(self._dynamic_tables), vaddrs, whole=False)

    def static_index(self) -> FunctionAt:
        """The same for one address at a time, while the file is open; BadElf."""
        return function_index(self._table(self._static_tables), self._section_ends)

    def dynamic_index(self) -> FunctionAt:
        """The same for .dynsym; BadElf."""
        return function_index(self._table(self._dynamic_tables), whole=False)

    @property
    def symbols(self) -> int:
        """How many symbols it has, of which it may have named functions."""
        return sum(tables.symbols.size for tables in (self._static_tables, self._dynamic_tables)) // SYMBOL.size

    def _table(self, tables: _Tables) -> SymbolTable:
        return SymbolTable(self._symbol_bytes(tables), lambda start: self._name(tables.strings, start))

    def _name(self, strings: Extent, start: int) -> str:
        """The name at an offset of a string table, cut where it is too long; BadElf."""
        name = b""
        for limit in (_NAME_GUESS, NAME_MAX):
            size = min(limit, strings.size - start)
            name = self._read(strings.offset + start, size, "symbol names") if size > 0 else b""
            if b"\0" in name:
                break
        return string_at(name, 0)

    @property
    def _section_ends(self) -> list[int]:
        return [section.vaddr + section.size for section in self.sections]

    @property
    def stripped(self) -> bool:
        """Whether it has no .symtab that can be read."""
        return self._static_tables.symbols.size < SYMBOL.size

    def dynamic_name(self, index: int) -> str:
        """The name of a symbol of .dynsym, "" for none, without its version."""
        symbols, strings = self._dynamic_tables
        if not 0 < index < symbols.size // SYMBOL.size:
            return ""
        entry = self._read(symbols.offset + index * SYMBOL.size, SYMBOL.size, "symbols")
        return self._name(strings, SYMBOL.unpack(entry)[0])

    def relocations(self, table_tag: int, size_tag: int) -> bytes:
        """A table of relocations by its tags of the dynamic section, empty for none; BadElf."""
        return self._read(*self.table_extent(table_tag, size_tag), "relocations")

    def table_extent(self, table_tag: int, size_tag: int) -> Extent:
        """Where a table is that the dynamic section names by two tags, of size 0 for none; BadElf."""
        tags = self._dynamic
        return self.extent(tags[table_tag], tags[size_tag]) if {table_tag, size_tag} <= tags.keys() else Extent(0, 0)

    @property
    def symbol_extents(self) -> list[Extent]:
        """Where its symbols and their names are; BadElf."""
        return [*self._static_tables, *self._dynamic_tables]

    def symbol_at(self, vaddr: int) -> Hit | None:
        """(function, offset in it) that holds an address; None where no symbol covers it; BadElf."""
        return self.functions([vaddr]).get(vaddr)


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
