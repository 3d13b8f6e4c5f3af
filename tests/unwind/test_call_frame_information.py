"""The rules that call frame instructions make, one instruction after the other."""

from __future__ import annotations

import struct

import pytest

from pyflame_ebpf.elf.image import BadElf
from pyflame_ebpf.unwind.call_frame_information import CommonEntry
from pyflame_ebpf.unwind.frame_entries import FrameEntry, frame_rules
from pyflame_ebpf.unwind.rules import OTHER, SAME, UNDEFINED, How, Rules, at_cfa

START, SIZE = 0x1000, 0x2000
END = START + SIZE
RBP, RIP = 6, 16
INITIAL: Rules = ((7, 8, None), SAME, at_cfa(-8))
COMMON = CommonEntry(
    code_alignment=2,
    data_alignment=-8,
    return_register=RIP,
    pointer_encoding=0x04,
    augmented=True,
    is_signal_frame=False,
    initial=INITIAL,
)


def rules_of(data: bytes, begin: int = START, stop: int = END, common: CommonEntry = COMMON) -> list[tuple[int, Rules]]:
    """(offset in the function, rules) of instructions."""
    frame = FrameEntry(common, 0, START, END, data, 0)
    return [(vaddr - START, rules) for vaddr, rules in frame_rules(frame, begin, stop)]


def after(data: bytes) -> Rules:
    """The rules at the end of instructions that go nowhere."""
    ((_, rules),) = rules_of(data)
    return rules


@pytest.mark.parametrize(
    ("advance", "distance"),
    [
        (b"\x41", 2),
        (b"\x7f", 126),
        (b"\x02\xff", 510),
        (b"\x03\x01\x02", 0x402),
        (b"\x04\x01\x02\0\0", 0x402),
        (b"\x1d\x01\x02\0\0\0\0\0\0", 0x402),
        (b"\x01" + struct.pack("<Q", START + 0x300), 0x300),
    ],
)
def test_every_advance_goes_as_far_as_it_says(advance: bytes, distance: int) -> None:
    assert rules_of(advance + b"\x0e\x10") == [(0, INITIAL), (distance, ((7, 16, None), SAME, at_cfa(-8)))]


@pytest.mark.parametrize("advance", [b"\x02\xff", b"\x03\xff\xff", b"\x04" + b"\xff" * 4, b"\x1d" + b"\xff" * 8])
def test_distances_have_no_sign(advance: bytes) -> None:
    common = COMMON._replace(code_alignment=SIZE)
    assert rules_of(advance + b"\x0e\x10", common=common) == [(0, INITIAL)]


def test_to_advance_by_nothing_notes_nothing() -> None:
    assert rules_of(b"\x40\x0e\x10\x02\0\x0e\x18") == [(0, ((7, 24, None), SAME, at_cfa(-8)))]


@pytest.mark.parametrize(
    ("instructions", "cfa"),
    [
        (b"\x0c\x06\x10", (6, 16, None)),
        (b"\x0d\x06", (6, 8, None)),
        (b"\x0e\x90\x01", (7, 144, None)),
        (b"\x12\x06\x7e", (6, 16, None)),
        (b"\x13\x7d", (7, 24, None)),
        (b"\x0f\x02\x77\x08", (7, 8, b"\x77\x08")),
        (b"\x0f\x02\x77\x08\x0e\x20", (7, 32, b"\x77\x08")),
        (b"\x0f\x02\x77\x08\x13\x7c", (7, 32, b"\x77\x08")),
        (b"\x0f\x02\x77\x08\x0d\x06", (6, 8, None)),
        (b"\x0f\x02\x77\x08\x0c\x06\x10", (6, 16, None)),
        (b"\x00\x2e\x90\x01\x0e\x10", (7, 16, None)),
    ],
)
def test_the_cfa_is_what_the_last_instruction_says(instructions: bytes, cfa: tuple[int, int, bytes | None]) -> None:
    assert after(instructions) == (cfa, SAME, at_cfa(-8))


@pytest.mark.parametrize("register", [RBP, RIP])
@pytest.mark.parametrize(
    ("opcode", "operands", "rule"),
    [
        (0x05, b"\x03", at_cfa(-24)),
        (0x11, b"\x7e", at_cfa(16)),
        (0x2F, b"\x02", at_cfa(16)),
        (0x07, b"", UNDEFINED),
        (0x08, b"", SAME),
        (0x09, b"\x00", OTHER),
        (0x10, b"\x02\x77\x08", (How.EXPRESSION, 0, b"\x77\x08")),
        (0x14, b"\x02", OTHER),
        (0x15, b"\x7e", OTHER),
        (0x16, b"\x02\x77\x08", OTHER),
    ],
)
def test_registers_are_where_the_last_instruction_says(
    register: int, opcode: int, operands: bytes, rule: tuple[How, int, bytes]
) -> None:
    _, frame_pointer, return_address = INITIAL
    expected = (rule, return_address) if register == RBP else (frame_pointer, rule)
    assert after(bytes([opcode, register]) + operands + b"\x0e\x10")[1:] == expected


@pytest.mark.parametrize("register", [3, 5, 7, 15, 17])
@pytest.mark.parametrize("opcode", [0x05, 0x11, 0x2F, 0x14, 0x09, 0x10, 0x16])
def test_other_registers_are_read_and_forgotten(opcode: int, register: int) -> None:
    operands = b"\x01\x50" if opcode in (0x10, 0x16) else b"\x03"
    assert after(bytes([opcode, register]) + operands + b"\x0e\x10") == ((7, 16, None), SAME, at_cfa(-8))


def test_the_short_forms_save_and_restore_the_registers_that_matter() -> None:
    found = rules_of(b"\x86\x02\x90\x03\x83\x04\x41\xc6\xc3\x41\xd0")
    assert [rules[1:] for _, rules in found] == [
        (at_cfa(-16), at_cfa(-24)),
        (SAME, at_cfa(-24)),
        (SAME, at_cfa(-8)),
    ]


def test_restore_goes_back_to_what_the_common_entry_says() -> None:
    common = COMMON._replace(initial=((7, 8, None), at_cfa(-32), at_cfa(-8)))
    found = rules_of(b"\x86\x02\x07\x10\x41\x06\x06\x41\x06\x10\x41\x06\x03", common=common)
    assert [rules[1:] for _, rules in found] == [
        (at_cfa(-16), UNDEFINED),
        (at_cfa(-32), UNDEFINED),
        (at_cfa(-32), at_cfa(-8)),
        (at_cfa(-32), at_cfa(-8)),
    ]


def test_states_are_recalled_in_the_opposite_order() -> None:
    found = rules_of(b"\x0a\x0e\x10\x86\x02\x0a\x0e\x18\x07\x10\x41\x0b\x41\x0b")
    assert [rules for _, rules in found] == [
        ((7, 24, None), at_cfa(-16), UNDEFINED),
        ((7, 16, None), at_cfa(-16), at_cfa(-8)),
        INITIAL,
    ]


def test_as_many_states_as_compilers_never_nest_are_kept() -> None:
    assert after(b"\x0a" * 64 + b"\x0e\x10" + b"\x0b" * 64) == INITIAL


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (b"\x0a" * 65, "too many states"),
        (b"\x0b", "never remembered"),
        (b"\x0a\x0b\x0b", "never remembered"),
        (b"\x3f", "unknown instruction 0x3f"),
        (b"\x42\x01" + struct.pack("<Q", START + 3), "go backwards"),
        (b"\x02", "cut short"),
        (b"\x03\0", "cut short"),
        (b"\x0e", "cut short"),
    ],
)
def test_instructions_that_make_no_sense_are_refused(instructions: bytes, message: str) -> None:
    with pytest.raises(BadElf, match=message):
        rules_of(instructions)


STEPS = b"\x42\x0e\x10\x42\x0e\x18\x42\x0e\x20"  # at 4, 8 and 12


def offsets(begin: int, stop: int) -> list[tuple[int, int]]:
    """(offset in the function, the CFA's distance) of the steps that hold in a range."""
    return [(at, rules[0][1]) for at, rules in rules_of(STEPS, START + begin, START + stop)]


@pytest.mark.parametrize(
    ("begin", "stop", "expected"),
    [
        (0, SIZE, [(0, 8), (4, 16), (8, 24), (12, 32)]),
        (3, SIZE, [(0, 8), (4, 16), (8, 24), (12, 32)]),
        (4, SIZE, [(4, 16), (8, 24), (12, 32)]),
        (5, 8, [(4, 16)]),
        (5, 9, [(4, 16), (8, 24)]),
        (100, SIZE, [(12, 32)]),
        (0, SIZE + 100, [(0, 8), (4, 16), (8, 24), (12, 32)]),
    ],
)
def test_only_rules_that_hold_in_the_range_are_found(begin: int, stop: int, expected: list[tuple[int, int]]) -> None:
    assert offsets(begin, stop) == expected


def test_instructions_behind_the_range_are_not_run() -> None:
    assert [at for at, _ in rules_of(b"\x42\x3f", stop=START + 4)] == [0]
