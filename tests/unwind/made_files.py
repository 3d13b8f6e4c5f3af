"""Small ELF files with an .eh_frame of a test's own, in memory, and their rows as values."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.unwind.page_rows import PAGE_SHIFT, PAGE_SIZE, ROWS_MAX
from pyflame_ebpf.unwind.row import CfaKind, RbpKind, UnwindRow, unpack_rows
from pyflame_ebpf.unwind.rows import UnwindTable

Rule = tuple[CfaKind, int, RbpKind, int]
Rows = list[tuple[int, Rule]]  # where each starts in its page, what it says

NONE: Rule = (CfaKind.NONE, 0, RbpKind.SAME, 0)
ROOT: Rule = (CfaKind.ROOT, 0, RbpKind.SAME, 0)
UNSUPPORTED: Rule = (CfaKind.UNSUPPORTED, 0, RbpKind.SAME, 0)

# Program headers, .eh_frame_hdr at 0x100, .eh_frame from 0x1000 on, code said to be at 0x100000.
HEADER_AT, FRAMES_AT, CODE_AT = 0x100, 0x1000, 0x100000
COMMON = b"\1zR\0" + b"\1\x78\x10\1\x1b" + b"\x0c\7\x08\x90\1"


def rsp(offset: int, rbp: RbpKind = RbpKind.SAME, rbp_offset: int = 0) -> Rule:
    """A row by the stack pointer."""
    return (CfaKind.RSP, offset, rbp, rbp_offset)


def as_rule(row: UnwindRow) -> Rule:
    """What a row says, without its start."""
    return (row.cfa, row.cfa_offset, row.rbp, row.rbp_offset)


def in_memory(data: bytes | bytearray) -> BinaryIO:
    """Bytes as an open file."""
    handle = os.memfd_create("elf")
    os.write(handle, data)
    return os.fdopen(handle, "rb", buffering=0)


def entry(reference: int, body: bytes) -> bytes:
    """An entry of .eh_frame: a CIE where ``reference`` is 0, else an FDE of the CIE so many bytes before."""
    return struct.pack("<II", len(body) + 4, reference) + body


def frames(*instructions: bytes, common: bytes = COMMON, size: int = 1000) -> tuple[bytes, list[int]]:
    """(.eh_frame, addresses of the FDEs) of functions side by side."""
    data = entry(0, common)
    places = []
    for number, code in enumerate(instructions):
        vaddr = FRAMES_AT + len(data)
        places.append(vaddr)
        start = CODE_AT + number * size - (vaddr + 8)
        data += entry(len(data) + 4, struct.pack("<iI", start, size) + b"\0" + code)
    return data, places


def with_table(made: tuple[bytes, list[int]], size: int = 1000) -> tuple[bytes, list[tuple[int, int]]]:
    """(.eh_frame, its search table) of functions side by side."""
    section, places = made
    return section, [(CODE_AT + number * size, place) for number, place in enumerate(places)]


def elf(section: bytes, table: list[tuple[int, int]], *, machine: int = 62, entry_point: int = 0) -> bytes:
    """An ELF file with this .eh_frame and search table of (start, address of FDE)."""
    count = len(table)
    head = struct.pack("<4Bii", 1, 0x1B, 3, 0x3B, FRAMES_AT - HEADER_AT - 4, count)
    head += b"".join(struct.pack("<ii", start - HEADER_AT, place - HEADER_AT) for start, place in table)
    assert HEADER_AT + len(head) <= FRAMES_AT
    size = FRAMES_AT + len(section)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    data = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, machine, 1, entry_point, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    data += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
    data += struct.pack("<IIQQQQQQ", 0x6474E550, 4, *[HEADER_AT] * 3, len(head), len(head), 4)
    return (data.ljust(HEADER_AT, b"\0") + head).ljust(FRAMES_AT, b"\0") + section


def decode(data: bytes | bytearray, page: int = CODE_AT >> PAGE_SHIFT) -> Rows:
    """The rows of a page; fails if they are not as BPF may rely on."""
    with in_memory(data) as file:
        packed = UnwindTable(ElfImage(file)).rows(page)
    rows = unpack_rows(packed)
    starts = [row.start for row in rows]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] < PAGE_SIZE
    assert len(rows) <= ROWS_MAX
    return [(row.start, as_rule(row)) for row in rows]
