"""ELF files that say they are huge and take some KB on the disk."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyflame_ebpf.elf.function_table import SYMBOL
from pyflame_ebpf.elf.image import PF_X, Section, Segment
from tests.elf.handmade import HEADER, SECTION, SEGMENT

MIB = 1 << 20
CODE_AT = 0x1000
CODE = Segment(1, 5, 0, 0, 0x2000, 0x2000)  # executable, from the file's beginning
SECTIONS_AT = 0x3000
SYMBOLS_AT = 4 * MIB
EH_FRAME_HDR = 0x6474E550
CIE = struct.pack("<II", 16, 0) + b"\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08"
Part = tuple[int, bytes]  # offset, contents


def write_sparse(
    path: Path,
    *,
    segments: Sequence[Segment] = (),
    sections: Sequence[Section] = (),
    parts: Iterable[Part] = (),
    size: int = 0,
) -> Path:
    """A library with code at CODE_AT, its section headers at SECTIONS_AT, and nothing but zeros between its parts."""
    names = b"\0" + b"".join(section.name.encode() + b"\0" for section in sections) + b".shstrtab\0"
    count = len(sections) + 2
    names_at = SECTIONS_AT + SECTION * count
    headers = [Section("", 0, 0, 0, 0, 0), *sections, Section(".shstrtab", 3, 0, names_at, len(names), 0)]
    loaded = [CODE, *segments]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        *(3, 62, 1, 0, HEADER, SECTIONS_AT, 0, HEADER, SEGMENT, len(loaded), SECTION, count, count - 1),
    )
    programs = b"".join(
        struct.pack("<IIQQQQQQ", *each[:4], each.vaddr, each.file_size, each.memory_size, 0) for each in loaded
    )
    tables = b"".join(
        struct.pack("<IIQQQQIIQQ", _name_at(names, each), each.kind, 0, *each[2:5], each.link, 0, 0, 0)
        for each in headers
    )
    with path.open("wb") as file:
        for offset, contents in [(0, header + programs), (SECTIONS_AT, tables), (names_at, names), *parts]:
            file.seek(offset)
            file.write(contents)
        file.truncate(max(size, file.seek(0, 2)))
    return path


def _name_at(names: bytes, section: Section) -> int:
    return names.index(b"\0" + section.name.encode() + b"\0") + 1 if section.name else 0


def loaded(offset: int, size: int) -> Segment:
    """A segment whose addresses are the file's offsets."""
    return Segment(1, PF_X & 0, offset, offset, size, size)


def write_symbols(path: Path, symbols: int, contents: bytes = b"", *, names: bytes = b"\0", strings: int = MIB) -> Path:
    """A library with a .symtab of so many symbols, all zeros behind ``contents``, whose names take so many bytes."""
    size = symbols * SYMBOL.size
    strings_at = SYMBOLS_AT + size
    sections = [Section(".symtab", 2, 0, SYMBOLS_AT, size, 2), Section(".strtab", 3, 0, strings_at, strings, 0)]
    parts = [(SYMBOLS_AT, contents), (strings_at, names)]
    return write_sparse(path, sections=sections, parts=parts, size=strings_at + strings)


def on_disk(path: Path) -> int:
    """Bytes that a file takes on the disk."""
    return path.stat().st_blocks * 512


def eh_frame(folder: Path, name: str, entries: bytes, table: bytes = b"") -> Path:
    """A library with this .eh_frame at 8 MB, and a header with this search table, or without one."""
    count = len(table) // 8
    header = b"\x01\x1b\x03\x3b" + struct.pack("<iI", 8 * MIB - 4 * MIB - 4, count) + table
    if not table:
        header = b"\x01\x1b\xff\xff" + struct.pack("<i", 8 * MIB - 4 * MIB - 4)
    return write_sparse(
        folder / name,
        segments=[loaded(4 * MIB, 28 * MIB), Segment(EH_FRAME_HDR, 4, 4 * MIB, 4 * MIB, len(header), len(header))],
        parts=[(4 * MIB, header), (8 * MIB, entries)],
        size=32 * MIB,
    )


def fde(at: int, start: int, size: int, instructions: bytes = b"\0" * 3, common_at: int = 8 * MIB) -> bytes:
    """An FDE at an address, of a CIE at another."""
    body = struct.pack("<Iii", at + 4 - common_at, start - (at + 8), size) + b"\0" + instructions
    return struct.pack("<I", len(body)) + body


def small_frames(folder: Path, name: str = "fdes.so") -> Path:
    """A section of 150,000 entries without a table."""
    entries = bytearray(CIE)
    while len(entries) < 4 * MIB:
        entries += fde(8 * MIB + len(entries), CODE_AT, 16)
    return eh_frame(folder, name, bytes(entries))
