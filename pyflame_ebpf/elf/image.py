"""An open ELF file as facts: header, segments, sections, dynamic section, build id, and its bytes by address.

Any process can have mapped the file, so all of it is hostile input: every size is checked against the file and a limit
before it is read, and every fault ends in BadElf.  The structures are unpacked here because pyelftools takes longer to
import than the detection of an interpreter may take, and reads as much as the file tells it to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cached_property
from typing import BinaryIO, NamedTuple

from pyflame_ebpf.elf.budget import Budget
from pyflame_ebpf.elf.file import TABLE_MAX, BadElf, Extent, FileIdentity, RegularFile, open_regular
from pyflame_ebpf.elf.function_table import string_at
from pyflame_ebpf.elf.notes import build_id_in

__all__ = ["BadElf", "ElfImage", "ElfType", "Extent", "Section", "Segment", "open_regular"]

PF_X = 1
OTHER_MACHINE = "not an ELF file for a 64-bit little-endian machine"

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PAIR = struct.Struct("<QQ")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_PT_GNU_EH_FRAME = 0x6474E550
_SHT_NOBITS = 8
_DT_NULL, _DT_DEBUG = 0, 21

_SEGMENTS_MAX = 256
_SECTIONS_MAX = 4096
_NOTES_MAX = 1 << 16  # bytes
_DYNAMIC_MAX = 1 << 16  # bytes
_SECTION_NAMES_MAX = 1 << 20  # bytes
_SECTION_NAME_MAX = 256  # bytes; the names that are looked for take less than 20
_BUILD_ID_MAX = 64  # bytes; linkers write 8 to 20, or what they are told
_PAGE_SIZE = 4096  # bytes


class ElfType(IntEnum):
    """How the file is placed in memory; the values are those of e_type."""

    EXEC = 2  # at the addresses it names
    DYN = 3  # anywhere: shared libraries and position-independent executables


class Segment(NamedTuple):
    """One program header; offsets, addresses and sizes in bytes."""

    kind: int
    flags: int
    offset: int
    vaddr: int
    file_size: int
    memory_size: int


class Section(NamedTuple):
    """One section header; ``link`` is the number of the section that belongs to it."""

    name: str
    kind: int
    vaddr: int
    offset: int
    size: int
    link: int


class ElfImage:
    """The facts of an ELF file, read when they are asked for, so keep the file open as long as this is used.

    Raises BadElf for a file that is no executable or shared library of a 64-bit little-endian machine.
    """

    def __init__(self, file: BinaryIO, budget: Budget | None = None) -> None:
        self._file = RegularFile(file)
        self._file.budget = budget
        self._read = self._file.read
        self.file_size = self._file.size
        (ident, kind, self.machine, _, self.entry, segments_at, self._sections_at, _, _, size, count, *sections) = (
            _HEADER.unpack(self._read(0, _HEADER.size, "header"))
        )
        self._section_size, self._section_count, self._section_names = sections
        if ident[:6] != b"\x7fELF\x02\x01":
            raise BadElf(OTHER_MACHINE)
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
        """Close the file."""
        self._file.close()

    def duplicate(self) -> BinaryIO:
        """Another descriptor of the same open file, for the caller to close."""
        return self._file.duplicate()

    @property
    def identity(self) -> FileIdentity:
        """The identity of the file, as it was when it was opened."""
        return self._file.identity

    def limit(self, budget: Budget | None) -> None:
        """Read with this budget from now on; None for no more than each limit says."""
        self._file.budget = budget

    @contextmanager
    def within(self, budget: Budget | None) -> Iterator[None]:
        """Read with this budget meanwhile: readers raise OverBudget beyond it."""
        before, self._file.budget = self._file.budget, budget
        try:
            yield
        finally:
            self._file.budget = before

    @property
    def budget(self) -> Budget | None:
        """What reading may take now; None: no more than each limit says."""
        return self._file.budget

    def forget_sections(self) -> None:
        """Let go of the section headers, which a file that stays open would keep in memory; they can be read again."""
        self.__dict__.pop("sections", None)

    def hold(self, extents: Iterable[Extent], facts: object) -> bytes:
        """Read these ranges into memory and use them from there.  Returns their digest.  Raises BadElf."""
        return self._file.hold(extents, facts)

    @property
    def held(self) -> int:
        """Bytes of the file that are held in memory."""
        return self._file.held

    def read_extent(self, extent: Extent, what: str) -> bytes:
        """The bytes of a range of the file.  Raises BadElf, with ``what`` in its message."""
        return self._read(*extent, what)

    def pieces(self, extent: Extent, what: str, unit: int = 1) -> Iterator[bytes]:
        """The bytes of a range, piece by piece, in whole units of so many bytes.  Raises BadElf."""
        return self._file.pieces(extent, what, unit)

    def read_virtual(self, vaddr: int, size: int) -> bytes:
        """``size`` bytes of the file at an address of the image.  Raises BadElf if the file has fewer there."""
        return self._read(*self.extent(vaddr, size), f"data at {vaddr:#x}")

    def extent(self, vaddr: int, size: int) -> Extent:
        """The file's range that is loaded at an address.  Raises BadElf if no segment has all of it."""
        for segment in self.segments:
            inside = vaddr - segment.vaddr
            if inside >= 0 and inside + size <= segment.file_size:
                return Extent(segment.offset + inside, size)
        raise BadElf(f"nothing in the file is loaded at {vaddr:#x}")

    def read_virtual_up_to(self, vaddr: int, limit: int) -> bytes:
        """The bytes from an address to its segment's end, at most ``limit``.  Raises BadElf if there are none."""
        for segment in self.segments:
            inside = vaddr - segment.vaddr
            if 0 <= inside < segment.file_size:
                return self._read(
                    segment.offset + inside, min(segment.file_size - inside, limit), f"data at {vaddr:#x}"
                )
        raise BadElf(f"nothing in the file is loaded at {vaddr:#x}")

    def vaddr_of(self, offset: int) -> int | None:
        """The address at which a file offset is loaded, in an executable segment if possible; None if it is not."""
        for segment in sorted(self.segments, key=lambda segment: not segment.flags & PF_X):
            page_slack = segment.offset % _PAGE_SIZE  # the whole first page is mapped
            if segment.offset - page_slack <= offset < segment.offset + segment.file_size:
                return segment.vaddr - segment.offset + offset
        return None

    @property
    def interpreted(self) -> bool:
        """True if the file names a dynamic linker."""
        return any(segment.kind == _PT_INTERP for segment in self.all_segments)

    @property
    def unwind_index(self) -> Segment | None:
        """The segment of .eh_frame_hdr, None without one."""
        return next((segment for segment in self.all_segments if segment.kind == _PT_GNU_EH_FRAME), None)

    @property
    def first_text_vaddr(self) -> int:
        """The lowest address of an executable segment, -1 without one.  The kernel keeps it as mm->start_code.

        Source: load_elf_binary() in fs/binfmt_elf.c since Linux 5.6; earlier kernels counted all segments.
        """
        return min((segment.vaddr for segment in self.segments if segment.flags & PF_X), default=-1)

    @property
    def dynamic_vaddr(self) -> int:
        """Address of the dynamic section, 0 without one."""
        return next((segment.vaddr for segment in self.all_segments if segment.kind == _PT_DYNAMIC), 0)

    @cached_property
    def dynamic_entries(self) -> list[tuple[int, int]]:
        """(tag, value) pairs of the dynamic section up to DT_NULL, in the file's order.  Raises BadElf."""
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
    def dynamic(self) -> dict[int, int]:
        """Value by tag of the dynamic section; the last of several counts.  Raises BadElf."""
        return dict(self.dynamic_entries)

    @property
    def debug_entry_vaddr(self) -> int:
        """Address of DT_DEBUG's value, 0 without one.  The dynamic linker puts the address of its list there."""
        for index, (tag, _) in enumerate(self.dynamic_entries):
            if tag == _DT_DEBUG:
                return self.dynamic_vaddr + _PAIR.size * index + 8
        return 0

    @cached_property
    def _build_id(self) -> tuple[bytes, int]:
        for segment in self.all_segments:
            if segment.kind == _PT_NOTE and segment.file_size <= _NOTES_MAX:
                notes = self._read(segment.offset, segment.file_size, "notes", _NOTES_MAX)
                if (note := build_id_in(notes)) and note.size <= _BUILD_ID_MAX:
                    return notes[note.start : note.start + note.size], segment.vaddr + note.start
        return b"", 0

    @property
    def build_id(self) -> bytes:
        """The GNU build id, empty without one.  Raises BadElf."""
        return self._build_id[0]

    @property
    def build_id_vaddr(self) -> int:
        """Address of the first byte of the build id, 0 without one.  Raises BadElf."""
        return self._build_id[1]

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The section headers, empty if they were stripped or are damaged."""
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
        names = self._read(names_at, names_size, "section names", _SECTION_NAMES_MAX)
        return tuple(
            Section(string_at(names, name, _SECTION_NAME_MAX), kind, vaddr, offset, length, link)
            for name, kind, _, vaddr, offset, length, link, *_ in headers
        )

    def section(self, name: str) -> Section | None:
        """The first section of this name, None without one."""
        return next((section for section in self.sections if section.name == name), None)

    def section_data(self, section: Section, limit: int = TABLE_MAX) -> bytes:
        """A section's bytes.  Raises BadElf if they are not in the file or more than the limit."""
        if section.kind == _SHT_NOBITS:
            raise BadElf(f"its section {section.name} is not in the file")
        return self._read(section.offset, section.size, f"section {section.name}", limit)

    def section_part(self, section: Section, start: int, size: int) -> bytes:
        """Up to ``size`` bytes of a section from one of its bytes on, fewer at its end.  Raises BadElf."""
        size = min(size, section.size - start)
        return self.section_data(section._replace(offset=section.offset + start, size=size))

    def relocations(self, table_tag: int, size_tag: int) -> bytes:
        """The table of relocations with these tags of the dynamic section, empty without one.  Raises BadElf."""
        return self._read(*self.table_extent(table_tag, size_tag), "relocations")

    def table_extent(self, table_tag: int, size_tag: int) -> Extent:
        """The range of the table with these tags of the dynamic section, of size 0 without one.  Raises BadElf."""
        tags = self.dynamic
        return self.extent(tags[table_tag], tags[size_tag]) if {table_tag, size_tag} <= tags.keys() else Extent(0, 0)
