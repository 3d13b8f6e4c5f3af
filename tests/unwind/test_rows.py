"""Unwind rows: of what assemblers and linkers write, of whole libraries against readelf, of what an attacker writes."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.elf.image import BadElf, ElfImage, open_regular
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.unwind.page_rows import PAGE_SHIFT, PAGE_SIZE, ROWS_MAX, TooManyRows
from pyflame_ebpf.unwind.row import CfaKind, RbpKind, unpack_rows
from pyflame_ebpf.unwind.rows import UnwindTable
from pyflame_ebpf.unwind.x86_64 import OtherRegister
from tests.unwind.made_files import (
    CODE_AT,
    COMMON,
    FRAMES_AT,
    HEADER_AT,
    NONE,
    ROOT,
    UNSUPPORTED,
    Rows,
    as_rule,
    decode,
    elf,
    entry,
    frames,
    in_memory,
    rsp,
    with_table,
)

Assemble = Callable[..., Path]  # of a source and flags of gcc: a library

CHECK_UNWIND_ROWS = Path(__file__).parent.parent.parent / "scripts" / "check_unwind_rows.py"


def escape(*values: int) -> str:
    return f".cfi_escape {','.join(map(str, values))}\n"


def function(body: str, name: str = "f", directives: str = "") -> str:
    head = f".globl {name}\n.type {name},@function\n{name}: .cfi_startproc\n{directives}\n"
    return f"{head}{body}\n.cfi_endproc\n.size {name}, . - {name}\n"


@pytest.fixture(scope="module")
def assemble(tmp_path_factory: pytest.TempPathFactory) -> Assemble:
    folder = tmp_path_factory.mktemp("unwind")

    def run(source: str, *flags: str) -> Path:
        target = folder / f"{len(list(folder.iterdir()))}.so"
        text = f".text\n.p2align 12\nbegin: .globl begin\n{source}\n.section .note.GNU-stack\n"
        command = ["gcc", "-shared", "-nostdlib", "-x", "assembler", "-", "-o", str(target), *flags]
        subprocess.run(command, input=text.encode(), check=True)
        return target

    return run


def first_page(image: ElfImage) -> int:
    """The page of ``begin``."""
    begin = ElfSymbols(image).symbol("begin")
    assert begin
    return begin.vaddr >> PAGE_SHIFT


def pages(path: Path, count: int = 1, first: int | None = None) -> list[Rows]:
    """The rows of pages from that of ``begin`` on, each as (start, what)."""
    with open_regular(str(path)) as file:
        image = ElfImage(file)
        page = first_page(image) if first is None else first
        table = UnwindTable(image)
        numbers = range(page, page + count)
        return [[(row.start, as_rule(row)) for row in unpack_rows(table.rows(number))] for number in numbers]


FUNCTIONS: dict[str, tuple[str, Rows]] = {
    "a frame pointer": (
        """push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        mov %rsp, %rbp
        .cfi_def_cfa_register rbp
        pop %rbp
        .cfi_def_cfa rsp, 8
        .cfi_restore rbp
        ret""",
        [
            (0, rsp(8)),
            (1, rsp(16, RbpKind.BELOW_CFA, -2)),
            (4, (CfaKind.RBP, 16, RbpKind.BELOW_CFA, -2)),
            (5, rsp(8)),
            (6, NONE),
        ],
    ),
    "an early return": (
        """push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        .cfi_remember_state
        pop %rbp
        .cfi_def_cfa_offset 8
        .cfi_restore rbp
        ret
        .cfi_restore_state
        nop""",
        [
            (0, rsp(8)),
            (1, rsp(16, RbpKind.BELOW_CFA, -2)),
            (2, rsp(8)),
            (3, rsp(16, RbpKind.BELOW_CFA, -2)),
            (4, NONE),
        ],
    ),
    "pushed arguments": (
        f"nop\n{escape(0x2E, 0x90, 0x01)}nop\n.cfi_def_cfa_offset 16\nnop",
        [(0, rsp(8)), (2, rsp(16)), (3, NONE)],
    ),
    "a realigned stack": (
        f"""lea 8(%rsp), %r10
        .cfi_def_cfa r10, 0
        push %rbp
        {escape(0x10, 6, 2, 0x76, 0)}
        nop
        {escape(0x0F, 3, 0x76, 0x78, 0x06)}
        nop
        .cfi_def_cfa rsp, 8
        ret""",
        [
            (0, rsp(8)),
            (5, (CfaKind.REGISTER, OtherRegister.R10, RbpKind.SAME, 0)),
            (6, (CfaKind.REGISTER, OtherRegister.R10, RbpKind.AT_RBP, 0)),
            (7, (CfaKind.RBP_DEREF, -8, RbpKind.AT_RBP, 0)),
            (8, rsp(8, RbpKind.AT_RBP, 0)),
            (9, NONE),
        ],
    ),
    "a procedure linkage table": (
        escape(0x0F, 11, 0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x3B, 0x2A, 0x33, 0x24, 0x22) + ".skip 32, 0x90",
        [(0, (CfaKind.PLT, 11, RbpKind.SAME, 0)), (32, NONE)],
    ),
    "a thread's start": (".cfi_undefined rip\nnop", [(0, ROOT), (1, NONE)]),
    "a signal frame": (
        ".cfi_signal_frame\n"
        + escape(0x0F, 4, 0x77, 0xA0, 0x01, 0x06)
        + escape(0x10, 6, 3, 0x77, 0xF8, 0x00)
        + escape(0x10, 16, 3, 0x77, 0xA8, 0x01)
        + "nop",
        [(0, (CfaKind.SIGNAL, 160, RbpKind.SAME, 0)), (1, NONE)],
    ),
    "a signal frame of another layout": (
        ".cfi_signal_frame\n" + escape(0x10, 16, 3, 0x77, 0xA8, 0x01) + "nop",
        [(0, UNSUPPORTED), (1, NONE)],
    ),
    "a stack pointer kept on the stack": (
        escape(0x0F, 5, 0x77, 0x28, 0x06, 0x23, 0x08)
        + "nop\n"
        + escape(0x0F, 5, 0x77, 0x78, 0x06, 0x23, 0x08)
        + "nop\n"
        + escape(0x0F, 6, 0x76, 0xD8, 0x00, 0x06, 0x23, 0x08)
        + "nop",
        [
            (0, (CfaKind.RSP_DEREF_PLUS, 8 << 16 | 40, RbpKind.SAME, 0)),
            (1, (CfaKind.RSP_DEREF_PLUS, 8 << 16 | 0xFFF8, RbpKind.SAME, 0)),
            (2, (CfaKind.RBP_DEREF_PLUS, 8 << 16 | 88, RbpKind.SAME, 0)),
            (3, NONE),
        ],
    ),
    "a stack pointer kept in a register": (
        ".cfi_def_cfa r13, 0\nnop\n.cfi_def_cfa rax, 8\nnop\n.cfi_def_cfa r9, -24\nnop",
        [
            (0, (CfaKind.REGISTER, OtherRegister.R13, RbpKind.SAME, 0)),
            (1, (CfaKind.REGISTER, 8 << 4 | OtherRegister.RAX, RbpKind.SAME, 0)),
            (2, (CfaKind.REGISTER, -24 * 16 + OtherRegister.R9, RbpKind.SAME, 0)),
            (3, NONE),
        ],
    ),
    "a stack pointer kept in a word that a register counts up to": (
        escape(0x0F, 10, 0x77, 8, 0x79, 0, 0x38, 0x1E, 0x22, 0x06, 0x23, 8)
        + "nop\n"
        + escape(0x0F, 11, 0x77, 0x80, 0x20, 0x79, 0, 0x38, 0x1E, 0x22, 0x06, 0x23, 8)
        + "nop",
        [
            (0, (CfaKind.INDEXED, 8 << 16 | 8 << 4 | OtherRegister.R9, RbpKind.SAME, 0)),
            (1, UNSUPPORTED),
            (2, NONE),
        ],
    ),
    "an rbp saved above rsp": (
        escape(0x10, 6, 3, 0x77, 0xA0, 0x01) + "nop\n" + escape(0x10, 6, 2, 0x77, 0x04) + "nop",
        [(0, rsp(8, RbpKind.AT_RSP, 20)), (1, rsp(8, RbpKind.UNKNOWN)), (2, NONE)],
    ),
    "rules that no row can hold": (
        escape(0x0F, 2, 0x30, 0x06)
        + "nop\n.cfi_def_cfa rsp, 8\n.cfi_register rip, rcx\nnop\n"
        + ".cfi_offset rip, -16\nnop\n.cfi_def_cfa 17, 8\n.cfi_offset rip, -8\nnop",
        [(0, UNSUPPORTED), (4, NONE)],
    ),
    "an rbp that is lost": (
        (
            ".cfi_undefined rbp\nnop\n.cfi_same_value rbp\nnop\n.cfi_register rbp, rax\nnop\n"
            f".cfi_offset rbp, -16\nnop\n.cfi_offset rbp, -2048\nnop\n{escape(0x14, 6, 2)}nop\n"
            f".cfi_offset rbp, -1024\nnop\n{escape(0x16, 6, 2, 0x76, 0)}nop"
        ),
        [
            (0, rsp(8, RbpKind.UNKNOWN)),
            (1, rsp(8)),
            (2, rsp(8, RbpKind.UNKNOWN)),
            (3, rsp(8, RbpKind.BELOW_CFA, -2)),
            (4, rsp(8, RbpKind.UNKNOWN)),
            (6, rsp(8, RbpKind.AT_CFA, -128)),
            (7, rsp(8, RbpKind.UNKNOWN)),
            (8, NONE),
        ],
    ),
    "the long forms": (
        escape(0x11, 6, 2)
        + "nop\n"
        + escape(0x2F, 6, 2)
        + "nop\n"
        + escape(0x06, 6)
        + escape(0x12, 7, 0x7E)
        + "nop\n"
        + escape(0x13, 0x7D)
        + escape(0x05, 6, 3)
        + "nop\n"
        + escape(0x02, 4)
        + escape(0x0E, 32)
        + ".skip 8, 0x90",
        [
            (0, rsp(8, RbpKind.BELOW_CFA, -2)),
            (1, rsp(8, RbpKind.AT_CFA, 2)),
            (2, rsp(16)),
            (3, rsp(24, RbpKind.BELOW_CFA, -3)),
            (8, rsp(32, RbpKind.BELOW_CFA, -3)),
            (12, NONE),
        ],
    ),
}


@pytest.mark.parametrize(("body", "expected"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_rows_say_how_each_address_finds_its_caller(assemble: Assemble, body: str, expected: Rows) -> None:
    assert pages(assemble(function(body))) == [expected]


@pytest.mark.parametrize("flags", [(), ("-Wl,--no-eh-frame-hdr",)], ids=["search table", "no search table"])
def test_a_page_begins_with_the_row_in_force_of_a_function_from_pages_before(
    assemble: Assemble, flags: tuple[str, ...]
) -> None:
    body = ".skip 10, 0x90\n.cfi_def_cfa_offset 64\n.skip 9000, 0x90\n.cfi_def_cfa_offset 32\n.skip 100, 0x90"
    tail = f".skip 2000, 0x90\n{function('nop', 'g')}"
    assert pages(assemble(function(body) + tail, *flags), 4) == [
        [(0, rsp(8)), (10, rsp(64))],
        [(0, rsp(64))],
        [(0, rsp(64)), (818, rsp(32)), (918, NONE), (2918, rsp(8)), (2919, NONE)],
        [(0, NONE)],
    ]


def test_pages_that_nothing_covers_have_one_row_of_nothing(assemble: Assemble) -> None:
    path = assemble(function("nop"))
    assert pages(path, first=0) == pages(path, first=1 << 40) == pages(path, first=(1 << 52) - 1) == [[(0, NONE)]]


@pytest.mark.parametrize("code", ["xor %ebp,%ebp\nmov %rsp,%rdi", "mov %rsp,%rdi\ncall g"])
def test_the_entry_point_has_no_caller_though_no_entry_says_so(assemble: Assemble, code: str) -> None:
    path = assemble(f".skip 16, 0x90\n.globl start\nstart: {code}\n.p2align 5\n{function('nop', 'g')}", "-Wl,-e,start")
    assert pages(path) == [[(0, NONE), (16, ROOT), (32, rsp(8)), (33, NONE)]]


def test_a_library_s_first_function_is_no_entry_point(assemble: Assemble) -> None:
    path = assemble(f"lea 0(%rip),%rdi\nret\n.p2align 5\n{function('nop', 'g')}", "-Wl,-e,begin")
    assert pages(path) == [[(0, NONE), (32, rsp(8)), (33, NONE)]]


def test_what_an_entry_says_of_the_entry_point_counts(assemble: Assemble) -> None:
    assert pages(assemble(function("xor %ebp,%ebp"), "-Wl,-e,f")) == [[(0, rsp(8)), (2, NONE)]]


def test_a_file_without_unwind_data_is_empty(assemble: Assemble) -> None:
    with open_regular(str(assemble("nop\n"))) as file:
        table = UnwindTable(ElfImage(file))
        assert table.empty
        assert unpack_rows(table.rows(1)) == ((0, *NONE),)


def test_equal_rows_of_neighbouring_functions_are_one(assemble: Assemble) -> None:
    source = "".join(function("nop\nret", f"f{number}") for number in range(9))
    assert pages(assemble(source)) == [[(0, rsp(8)), (18, NONE)]]


def test_padding_between_functions_goes_when_a_page_has_too_many_rows(assemble: Assemble) -> None:
    source = "".join(f".p2align 3\n{function('nop', f'f{number}')}" for number in range(512))
    assert pages(assemble(source)) == [[(0, rsp(8))]]


def test_pushes_are_given_up_when_a_page_still_has_too_many_rows(assemble: Assemble) -> None:
    body = "".join(f"nop\n.cfi_def_cfa_offset {16 + 8 * (number % 2)}\n" for number in range(ROWS_MAX))
    found = pages(assemble(function(f"{body}.skip 50, 0x90")))[0]
    assert len(found) == ROWS_MAX
    assert found[0] == (0, UNSUPPORTED)
    assert found[-3:] == [(511, rsp(16)), (512, rsp(24)), (562, NONE)]


def test_a_page_with_more_rows_than_the_maps_hold_is_refused(assemble: Assemble) -> None:
    body = "".join(f".skip 6, 0x90\n.cfi_def_cfa_offset {16 + 8 * (number % 2)}\n" for number in range(600))
    with pytest.raises(TooManyRows):
        pages(assemble(function(f"{body}nop")))


def test_a_damaged_entry_leaves_the_functions_around_it(assemble: Assemble) -> None:
    source = function("nop", "f") + function(f"nop\n{escape(0x3E)}nop", "g") + function("nop", "h")
    assert pages(assemble(source)) == [[(0, rsp(8)), (1, NONE), (3, rsp(8)), (4, NONE)]]


def test_the_kernels_own_library_is_read_like_any_other() -> None:
    with Path("/proc/self/maps").open() as maps:
        begin, end = next(line for line in maps if line.endswith("[vdso]\n")).split()[0].split("-")
    with Path("/proc/self/mem").open("rb") as memory:
        memory.seek(int(begin, 16))
        data = memory.read(int(end, 16) - int(begin, 16))
    with in_memory(data) as file:
        image = ElfImage(file)
        symbol = ElfSymbols(image).symbol("__vdso_clock_gettime")
        assert symbol
        vaddr = symbol.vaddr
        rows = unpack_rows(UnwindTable(image).rows(vaddr >> PAGE_SHIFT))
        assert [row.cfa for row in rows if row.start <= vaddr % PAGE_SIZE][-1] == CfaKind.RSP


def test_a_whole_library_and_an_executable_agree_with_readelf() -> None:
    mapped = Path("/proc/self/maps").read_text()
    libc = next(line.split()[-1] for line in mapped.splitlines() if "/libc.so" in line or "/libc-" in line)
    command = [sys.executable, str(CHECK_UNWIND_ROWS), libc, sys.executable]
    environment = {**os.environ, "PYTHONPATH": str(CHECK_UNWIND_ROWS.parent.parent)}
    checked = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert checked.stdout.endswith("rows: 0 wrong\n"), checked.stdout + checked.stderr
    assert checked.returncode == 0


def test_files_made_here_are_sound() -> None:
    section, (first, second) = frames(b"\x4a\x0e\x20", b"")
    rows = decode(elf(section, [(CODE_AT, first), (CODE_AT + 1000, second)]))
    assert rows == [(0, rsp(8)), (10, rsp(32)), (1000, rsp(8)), (2000, NONE)]


def test_set_loc_goes_to_an_address() -> None:
    at = FRAMES_AT + len(entry(0, COMMON)) + 4 + 4 + 8 + 1 + 1  # of the operand, relative to itself
    section, (place,) = frames(b"\1" + struct.pack("<i", CODE_AT + 77 - at) + b"\x0e\x20")
    assert decode(elf(section, [(CODE_AT, place)])) == [(0, rsp(8)), (77, rsp(32)), (1000, NONE)]


@pytest.mark.parametrize("encoding", [0x00, 0x04, 0x0C, 0x03, 0x0B, 0x01])
def test_addresses_are_read_in_every_encoding(encoding: int) -> None:
    numbers = {0x00: "<QQ", 0x04: "<QQ", 0x0C: "<qq", 0x03: "<II", 0x0B: "<ii"}
    fields = struct.pack(numbers[encoding], CODE_AT, 9) if encoding in numbers else b"\x80\x80\x40\x09"
    common = COMMON.replace(b"\x1b", bytes([encoding]))
    section = entry(0, common)
    place = FRAMES_AT + len(section)
    section += entry(len(section) + 4, fields + b"\0")
    assert decode(elf(section, [(CODE_AT, place)])) == [(0, rsp(8)), (9, NONE)]


@pytest.mark.parametrize(
    "common",
    [
        b"\1zPLR\0\1\x78\x10\7\x9b\1\2\3\4\x1b\x1b\x0c\7\x08\x90\1",  # a personality routine, C++
        b"\1zRS\0\1\x78\x10\1\x1b\x0c\7\x08\x90\1",  # a signal frame with ordinary rules
        b"\3zR\0\1\x78\x10\1\x1b\x0c\7\x08\x90\1",
    ],
)
def test_common_entries_of_every_kind_are_understood(common: bytes) -> None:
    section, (place,) = frames(b"", common=common)
    assert decode(elf(section, [(CODE_AT, place)])) == [(0, rsp(8)), (1000, NONE)]


@pytest.mark.parametrize(
    "common",
    [
        b"\1eh\0" + bytes(8) + b"\1\x78\x10\x0c\7\x08\x90\1",
        b"\1zQ\0\1\x78\x10\1\x1b\x0c\7\x08\x90\1",
        b"\2zR\0\1\x78\x10\1\x1b\x0c\7\x08\x90\1",
        b"\1zR",
        b"\1zR\0\1\x78\x10\1\x50\x0c\7\x08\x90\1",
        b"\1zR\0\1\x78\x10\1\x1b" + b"\x0a" * 300,
    ],
)
def test_functions_whose_common_entry_is_not_understood_have_no_rows(common: bytes) -> None:
    section, (place,) = frames(b"", common=common)
    assert decode(elf(section, [(CODE_AT, place)])) == [(0, NONE)]


def test_a_return_address_in_another_column_is_not_supported() -> None:
    section, (place,) = frames(b"", common=COMMON.replace(b"\x10", b"\x0f", 1))
    assert decode(elf(section, [(CODE_AT, place)])) == [(0, UNSUPPORTED), (1000, NONE)]


@pytest.mark.parametrize(
    "instructions",
    [b"\x0b", b"\x0a" * 65, b"\x0e" + b"\xff" * 12, b"\x0f\x7f", b"\x3f", b"\x0c\7", b"\1\0\0\0\0", b"\x04\0\0"],
    ids=["restore", "remember", "number", "expression", "unknown", "cut", "backwards", "cut advance"],
)
def test_instructions_that_make_no_sense_leave_the_function_without_rows(instructions: bytes) -> None:
    section, (place,) = frames(instructions)
    assert decode(elf(section, [(CODE_AT, place)])) == [(0, NONE)]


def test_a_table_that_lies_about_an_entry_gives_no_rows() -> None:
    section, (place,) = frames(b"")
    for start, at in [(CODE_AT - 16, place), (CODE_AT, place + 1), (CODE_AT, 0x7F000000), (CODE_AT, FRAMES_AT)]:
        assert decode(elf(section, [(start, at)])) == [(0, NONE)]


def test_a_table_out_of_order_is_read_to_where_order_ends() -> None:
    section, (first, second) = frames(b"", b"")
    rows = decode(elf(section, [(CODE_AT + 1000, second), (CODE_AT, first)]))
    assert rows == [(0, NONE), (1000, rsp(8)), (2000, NONE)]


def test_code_for_other_machines_has_no_rows() -> None:
    section, table = with_table(frames(b""))
    for machine in (3, 183):
        assert decode(elf(section, table, machine=machine)) == [(0, NONE)]


START_CODE = b"\x31\xed" + b"\x90" * 14  # xor %ebp,%ebp


def at_entry_point(place: int, code: bytes = START_CODE, page: int = FRAMES_AT >> PAGE_SHIFT) -> Rows:
    """The rows of a page of the section's own bytes, in which the entry point is, or of another page."""
    body = bytearray(4096)
    start, size = FRAMES_AT + 64, 32
    section = entry(0, COMMON)
    fde = FRAMES_AT + len(section)
    section += entry(len(section) + 4, struct.pack("<iI", start - fde - 8, size) + b"\0")
    body[: len(section)] = section
    body[place : place + len(code)] = code
    return decode(elf(bytes(body), [(start, fde)], entry_point=FRAMES_AT + place), page)


def test_an_entry_point_in_a_gap_is_the_root_up_to_the_next_function() -> None:
    assert at_entry_point(200) == [(0, NONE), (64, rsp(8)), (96, NONE), (200, ROOT)]


def test_an_entry_point_in_a_function_leaves_its_rows() -> None:
    assert at_entry_point(72) == [(0, NONE), (64, rsp(8)), (96, NONE)]


@pytest.mark.parametrize(
    ("code", "is_root"),
    [
        (b"\x48\x89\xe7", True),
        (b"\x90" * 14 + b"\x31\xed", True),
        (b"\x90" * 15 + b"\x31\xed", False),
        (b"\x90" * 16, False),
    ],
)
def test_an_entry_point_is_known_by_what_only_it_does(code: bytes, is_root: bool) -> None:
    assert ((200, ROOT) in at_entry_point(200, code)) is is_root


@pytest.mark.parametrize("pages_away", [-1, 1])
@pytest.mark.parametrize("place", [200, 4080])
def test_an_entry_point_in_another_page_leaves_this_one(place: int, pages_away: int) -> None:
    assert at_entry_point(place, page=(FRAMES_AT >> PAGE_SHIFT) + pages_away) == [(0, NONE)]


def test_an_entry_point_that_is_not_in_the_file_leaves_the_page() -> None:
    section, table = with_table(frames(b""))
    assert decode(elf(section, table, entry_point=CODE_AT + 2000)) == [(0, rsp(8)), (1000, NONE)]


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x0e\x80\x80\x80\x80\x08",  # rsp + (1 << 31)
        b"\x0c\x0a\x80\x80\x80\x40",  # r10 + (1 << 27)
        b"\x0f\x07\x76\x80\x80\x80\x80\x08\x06",  # *(rbp + (1 << 31))
    ],
)
def test_a_cfa_further_away_than_a_row_can_say_is_not_supported(instructions: bytes) -> None:
    section, table = with_table(frames(instructions))
    assert decode(elf(section, table)) == [(0, UNSUPPORTED), (1000, NONE)]


def test_a_signal_frame_further_away_than_a_row_can_say_is_not_supported() -> None:
    far = b"\x80\x80\x80\x80\x08", b"\xd8\xff\xff\xff\x07", b"\x88\x80\x80\x80\x08"
    rules = b"\x0f\x07\x77" + far[0] + b"\x06" + b"\x10\x06\x06\x77" + far[1] + b"\x10\x10\x06\x77" + far[2]
    section, table = with_table(frames(rules, common=b"\1zRS\0\1\x78\x10\1\x1b\x0c\7\x08\x90\1"))
    assert decode(elf(section, table)) == [(0, UNSUPPORTED), (1000, NONE)]


def test_a_function_ends_where_the_next_one_begins() -> None:
    section, places = frames(b"", b"\x0e\x20", size=1000)
    shifted = bytearray(section)
    second = places[1] - FRAMES_AT
    shifted[second + 8 : second + 12] = struct.pack("<i", CODE_AT + 600 - places[1] - 8)
    table = [(CODE_AT, places[0]), (CODE_AT + 600, places[1])]
    assert decode(elf(bytes(shifted), table)) == [(0, rsp(8)), (600, rsp(32)), (1600, NONE)]


def test_a_function_behind_the_end_of_addresses_has_no_rows() -> None:
    common = COMMON.replace(b"\x1b", b"\x04")
    section = entry(0, common)
    place = FRAMES_AT + len(section)
    section += entry(len(section) + 4, struct.pack("<QQ", CODE_AT, (1 << 64) - CODE_AT + 1) + b"\0")
    assert decode(elf(section, [(CODE_AT, place)])) == [(0, NONE)]


def test_no_more_entries_are_decoded_for_a_page_than_are_affordable() -> None:
    large = b"\0" * 25_000
    section, places = frames(large, large, large)
    rows = decode(elf(section, [(CODE_AT + 1000 * number, place) for number, place in enumerate(places)]))
    assert rows == [(0, rsp(8)), (2000, NONE)]


def test_a_table_answers_the_same_when_it_is_asked_again() -> None:
    section, table = with_table(frames(b"\x4a\x0e\x20", b"\x44\x0e\x30"))
    with in_memory(elf(section, table)) as file:
        unwind = UnwindTable(ElfImage(file))
        first = unwind.rows(CODE_AT >> PAGE_SHIFT)
        assert unwind.rows(CODE_AT >> PAGE_SHIFT) == first
    starts = [(row.start, as_rule(row)) for row in unpack_rows(first)]
    assert starts == [(0, rsp(8)), (10, rsp(32)), (1000, rsp(8)), (1004, rsp(48)), (2000, NONE)]


@pytest.mark.parametrize("version", [0, 2])
def test_a_header_of_another_version_is_refused(version: int) -> None:
    data = bytearray(elf(*with_table(frames(b""))))
    data[HEADER_AT] = version
    with pytest.raises(BadElf):
        decode(data)


def test_a_header_without_a_table_leads_to_the_entries() -> None:
    data = bytearray(elf(*with_table(frames(b"", b"\x0e\x20"))))
    data[HEADER_AT + 2 : HEADER_AT + 4] = b"\xff\xff"
    assert decode(data) == [(0, rsp(8)), (1000, rsp(32)), (2000, NONE)]


def test_a_page_costs_a_bounded_time_whatever_its_entries_claim() -> None:
    """Entries as large as are accepted, of the dearest instructions, named by the table as often as it can."""
    longest = b"\x40\x0a\x0b\x02\0" * 50_000
    section, places = frames(*[longest] * 4, size=1)
    table = [(CODE_AT + number // 100, places[number // 100]) for number in range(400)]
    began = time.process_time()
    decode(elf(section, table))
    assert time.process_time() - began < 2


@settings(max_examples=600, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.sampled_from([1, 1000, 5000]))
def test_any_instructions_give_sound_rows(instructions: list[bytes], size: int) -> None:
    decode(elf(*with_table(frames(*instructions, size=size), size)))


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=60))
def test_any_common_entry_gives_sound_rows(common: bytes) -> None:
    decode(elf(*with_table(frames(b"\x4a\x0e\x20", common=common))))


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 100))
def test_any_section_gives_sound_rows(section: bytes, place: int) -> None:
    decode(elf(section, [(CODE_AT, FRAMES_AT + place)]))


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=4, max_size=64))
def test_any_header_gives_sound_rows_or_is_refused(header: bytes) -> None:
    data = bytearray(elf(*with_table(frames(b"", b"\x0e\x20"))))
    data[HEADER_AT : HEADER_AT + len(header)] = header
    with suppress(BadElf):
        decode(data)


@pytest.mark.parametrize("flags", [(), ("-Wl,--no-eh-frame-hdr",)], ids=["search table", "no search table"])
def test_a_damaged_library_gives_sound_rows_or_is_refused(assemble: Assemble, flags: tuple[str, ...]) -> None:
    bodies = [body for body, _ in FUNCTIONS.values()]
    path = assemble("".join(function(body, f"f{number}") for number, body in enumerate(bodies)), *flags)
    whole = path.read_bytes()
    with open_regular(str(path)) as file:
        image = ElfImage(file)
        section = image.section(".eh_frame")
        assert section
        begin = min(section.offset, image.unwind_index.offset if image.unwind_index else section.offset)
        page = first_page(image)
    chance = random.Random(7)
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 4, 16])):
            data[chance.randrange(begin, section.offset + section.size)] = chance.choice(
                [0, 0xFF, 0x7F, 0x80, chance.randrange(256)]
            )
        with suppress(BadElf):
            decode(data, page)
