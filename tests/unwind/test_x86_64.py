"""Which row x86-64's rules become, and which rules no row can say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.unwind.row import ROOT_BODY, UNSUPPORTED_BODY, CfaKind, RbpKind, UnwindRow, body, unpack_row
from pyflame_ebpf.unwind.rules import OTHER, SAME, UNDEFINED, Cfa, How, Rule, Rules, at_cfa
from pyflame_ebpf.unwind.x86_64 import SCRATCH_REGISTERS, OtherRegister, interrupted, row_body

RBP, RSP = 6, 7
CALLED: Cfa = (RSP, 8, None)
RETURN = at_cfa(-8)


def sleb(value: int) -> bytes:
    """A signed LEB128."""
    encoded = bytearray()
    while not -64 <= value < 64:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value & 0x7F])


def uleb(value: int) -> bytes:
    """An unsigned LEB128."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def at(register: int, offset: int) -> bytes:
    """The expression register + offset: DW_OP_breg0 + register."""
    return bytes([0x70 + register]) + sleb(offset)


def saved_at(register: int, offset: int) -> Rule:
    """The rule of a register that is saved at register + offset."""
    return How.EXPRESSION, 0, at(register, offset)


def dereferenced(register: int, offset: int, addend: int | None = None) -> Cfa:
    """A CFA at *(register + offset) + addend."""
    return (RSP, 8, at(register, offset) + b"\x06" + (b"" if addend is None else b"\x23" + uleb(addend)))


def row_of(
    cfa: Cfa = CALLED, frame_pointer: Rule = SAME, return_address: Rule = RETURN, signal: bool = False
) -> UnwindRow:
    """The row of these rules, which starts at 0."""
    return unpack_row(bytes(2) + row_body((cfa, frame_pointer, return_address), signal), 0)


def cfa_of(cfa: Cfa) -> tuple[CfaKind, int]:
    """How a row finds this CFA."""
    row = row_of(cfa)
    return row.cfa, row.cfa_offset


def frame_pointer_of(rule: Rule) -> tuple[RbpKind, int]:
    """How a row finds rbp by this rule."""
    row = row_of(frame_pointer=rule)
    return row.rbp, row.rbp_offset


NOT_SAID = (CfaKind.UNSUPPORTED, 0)


@pytest.mark.parametrize(
    ("cfa", "expected"),
    [
        ((RSP, 24, None), (CfaKind.RSP, 24)),
        ((RBP, 16, None), (CfaKind.RBP, 16)),
        ((RSP, (1 << 31) - 1, None), (CfaKind.RSP, (1 << 31) - 1)),
        ((RSP, 1 << 31, None), NOT_SAID),
        ((RSP, -(1 << 31), None), (CfaKind.RSP, -(1 << 31))),
        ((RSP, -(1 << 31) - 1, None), NOT_SAID),
        ((10, (1 << 27) - 1, None), (CfaKind.REGISTER, (1 << 31) - 16 + OtherRegister.R10)),
        ((10, 1 << 27, None), NOT_SAID),
        ((10, -(1 << 27), None), (CfaKind.REGISTER, -(1 << 31) + OtherRegister.R10)),
        ((10, -(1 << 27) - 1, None), NOT_SAID),
        ((16, 8, None), NOT_SAID),
        ((-1, 8, None), NOT_SAID),
    ],
)
def test_a_cfa_at_a_register_is_said_as_far_as_its_distance_fits(cfa: Cfa, expected: tuple[CfaKind, int]) -> None:
    assert cfa_of(cfa) == expected


def test_every_register_but_rsp_and_rbp_has_its_number_in_a_row() -> None:
    names = ["RAX", "RDX", "RCX", "RBX", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"]
    numbers = [0, 1, 2, 3, 4, 5, *range(8, 16)]
    assert [cfa_of((number, 0, None)) for number in numbers] == [
        (CfaKind.REGISTER, OtherRegister[name]) for name in names
    ]


@pytest.mark.parametrize(
    ("cfa", "expected"),
    [
        (dereferenced(RBP, -8), (CfaKind.RBP_DEREF, -8)),
        (dereferenced(RBP, -8, 0), (CfaKind.RBP_DEREF, -8)),
        (dereferenced(RBP, 1 << 16), (CfaKind.RBP_DEREF, 1 << 16)),
        (dereferenced(RBP, (1 << 31) - 1), (CfaKind.RBP_DEREF, (1 << 31) - 1)),
        (dereferenced(RBP, 1 << 31), NOT_SAID),
        (dereferenced(RBP, -(1 << 31) - 1), NOT_SAID),
        (dereferenced(RBP, 88, 8), (CfaKind.RBP_DEREF_PLUS, 8 << 16 | 88)),
        (dereferenced(RSP, 40, 8), (CfaKind.RSP_DEREF_PLUS, 8 << 16 | 40)),
        (dereferenced(RSP, 40), (CfaKind.RSP_DEREF_PLUS, 40)),
        (dereferenced(RSP, -1, 1), (CfaKind.RSP_DEREF_PLUS, 1 << 16 | 0xFFFF)),
        (dereferenced(RSP, 0x7FFF, 0x7FFF), (CfaKind.RSP_DEREF_PLUS, 0x7FFF7FFF)),
        (dereferenced(RSP, -0x8000, 0), (CfaKind.RSP_DEREF_PLUS, 0x8000)),
        (dereferenced(RSP, 0x8000, 0), NOT_SAID),
        (dereferenced(RSP, -0x8001, 0), NOT_SAID),
        (dereferenced(RSP, 0, 0x8000), NOT_SAID),
        (dereferenced(RBP, 0, 0x8000), NOT_SAID),
        (dereferenced(0, 8), NOT_SAID),
        ((RSP, 8, at(RSP, 8)), NOT_SAID),
        ((RSP, 8, b""), NOT_SAID),
        ((RSP, 8, at(RSP, 8) + b"\x06\x06"), NOT_SAID),
        ((RSP, 8, b"\x77" + b"\x80" * 5 + b"\x01\x06"), NOT_SAID),
    ],
)
def test_a_cfa_that_is_read_from_memory_is_said_as_far_as_its_numbers_fit(
    cfa: Cfa, expected: tuple[CfaKind, int]
) -> None:
    assert cfa_of(cfa) == expected


def indexed(place: int, register: int, addend: int) -> Cfa:
    """A CFA at *(rsp + place + 8 * register) + addend."""
    return (RSP, 8, at(RSP, place) + at(register, 0) + b"\x38\x1e\x22\x06\x23" + uleb(addend))


@pytest.mark.parametrize(
    ("cfa", "expected"),
    [
        (indexed(8, 9, 8), (CfaKind.INDEXED, 8 << 16 | 8 << 4 | OtherRegister.R9)),
        (indexed(0, 8, 0), (CfaKind.INDEXED, OtherRegister.R8)),
        (indexed(0xFFF, 15, 0x7FFF), (CfaKind.INDEXED, 0x7FFF << 16 | 0xFFF << 4 | OtherRegister.R15)),
        (indexed(0x1000, 9, 8), NOT_SAID),
        (indexed(-1, 9, 8), NOT_SAID),
        (indexed(8, 9, 0x8000), NOT_SAID),
        (indexed(8, 7, 8), NOT_SAID),
    ],
)
def test_a_cfa_in_a_word_that_a_register_counts_up_to_is_said_as_far_as_its_numbers_fit(
    cfa: Cfa, expected: tuple[CfaKind, int]
) -> None:
    assert cfa_of(cfa) == expected


@pytest.mark.parametrize("pushed_from", [0, 6, 11, 15])
def test_an_entry_of_the_procedure_linkage_table_pushes_from_one_place_on(pushed_from: int) -> None:
    expression = bytes([0x77, 8, 0x80, 0, 0x3F, 0x1A, 0x30 + pushed_from, 0x2A, 0x33, 0x24, 0x22])
    assert cfa_of((RSP, 8, expression)) == (CfaKind.PLT, pushed_from)
    assert cfa_of((RSP, 8, expression + b"\x96")) == NOT_SAID


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (SAME, (RbpKind.SAME, 0)),
        (OTHER, (RbpKind.UNKNOWN, 0)),
        (UNDEFINED, (RbpKind.UNKNOWN, 0)),
        (at_cfa(-8), (RbpKind.AT_CFA, -1)),
        (at_cfa(-16), (RbpKind.BELOW_CFA, -2)),
        (at_cfa(-127 * 8), (RbpKind.BELOW_CFA, -127)),
        (at_cfa(-128 * 8), (RbpKind.AT_CFA, -128)),
        (at_cfa(-129 * 8), (RbpKind.UNKNOWN, 0)),
        (at_cfa(0), (RbpKind.AT_CFA, 0)),
        (at_cfa(127 * 8), (RbpKind.AT_CFA, 127)),
        (at_cfa(128 * 8), (RbpKind.UNKNOWN, 0)),
        (at_cfa(-17), (RbpKind.UNKNOWN, 0)),
        (saved_at(RBP, 0), (RbpKind.AT_RBP, 0)),
        (saved_at(RBP, -16), (RbpKind.AT_RBP, -2)),
        (saved_at(RSP, -16), (RbpKind.AT_RSP, -2)),
        (saved_at(RSP, 127 * 8), (RbpKind.AT_RSP, 127)),
        (saved_at(RSP, 128 * 8), (RbpKind.UNKNOWN, 0)),
        (saved_at(RSP, 4), (RbpKind.UNKNOWN, 0)),
        (saved_at(0, 16), (RbpKind.UNKNOWN, 0)),
        ((How.EXPRESSION, 0, at(RSP, 8) + b"\x06"), (RbpKind.UNKNOWN, 0)),
    ],
)
def test_a_place_of_rbp_is_said_as_far_as_it_fits(rule: Rule, expected: tuple[RbpKind, int]) -> None:
    assert frame_pointer_of(rule) == expected


@pytest.mark.parametrize("rule", [SAME, OTHER, at_cfa(-16), at_cfa(8), saved_at(RSP, -8)])
def test_a_return_address_anywhere_but_below_the_cfa_is_not_supported(rule: Rule) -> None:
    assert row_body((CALLED, SAME, rule), is_signal_frame=False) == UNSUPPORTED_BODY


@pytest.mark.parametrize("signal", [False, True])
def test_a_lost_return_address_is_the_root(signal: bool) -> None:
    assert row_body((CALLED, OTHER, UNDEFINED), signal) == ROOT_BODY


SIGNAL = 160  # bytes from rsp to the interrupted rsp in ucontext_t on a stack of the kernel's making


SIGNAL_CFA, SIGNAL_RBP, SIGNAL_RIP = dereferenced(RSP, SIGNAL), saved_at(RSP, SIGNAL - 40), saved_at(RSP, SIGNAL + 8)


def test_linuxs_signal_frame_is_known_by_its_three_places() -> None:
    found = row_body((SIGNAL_CFA, SIGNAL_RBP, SIGNAL_RIP), is_signal_frame=True)
    assert found == body(CfaKind.SIGNAL, SIGNAL)


@pytest.mark.parametrize(
    "rules",
    [
        (dereferenced(RSP, SIGNAL + 8), SIGNAL_RBP, SIGNAL_RIP),
        (dereferenced(RSP, SIGNAL, 8), SIGNAL_RBP, SIGNAL_RIP),
        (dereferenced(RBP, SIGNAL), SIGNAL_RBP, SIGNAL_RIP),
        (CALLED, SIGNAL_RBP, SIGNAL_RIP),
        (SIGNAL_CFA, saved_at(RSP, SIGNAL - 32), SIGNAL_RIP),
        (SIGNAL_CFA, saved_at(RBP, SIGNAL - 40), SIGNAL_RIP),
        (SIGNAL_CFA, SAME, SIGNAL_RIP),
        (SIGNAL_CFA, SIGNAL_RBP, saved_at(RSP, SIGNAL + 16)),
        (SIGNAL_CFA, SIGNAL_RBP, saved_at(RBP, SIGNAL + 8)),
    ],
)
def test_a_signal_frame_of_another_layout_is_not_supported(rules: Rules) -> None:
    assert row_body(rules, is_signal_frame=True) == UNSUPPORTED_BODY


def test_the_layout_of_a_signal_frame_in_an_ordinary_entry_is_not_supported() -> None:
    assert row_body((SIGNAL_CFA, SIGNAL_RBP, SIGNAL_RIP), is_signal_frame=False) == UNSUPPORTED_BODY


@pytest.mark.parametrize("place", [1 << 31, -(1 << 31) - 1])
def test_a_signal_frame_too_far_away_is_not_supported(place: int) -> None:
    rules = (dereferenced(RSP, place), saved_at(RSP, place - 40), saved_at(RSP, place + 8))
    assert row_body(rules, is_signal_frame=True) == UNSUPPORTED_BODY


def test_a_signal_frame_as_far_away_as_a_row_can_say_is_known() -> None:
    for place in (-(1 << 31), (1 << 31) - 1):
        rules = (dereferenced(RSP, place), saved_at(RSP, place - 40), saved_at(RSP, place + 8))
        assert row_body(rules, is_signal_frame=True) == body(CfaKind.SIGNAL, place)


def test_a_signal_frame_with_ordinary_rules_is_read_like_any_other() -> None:
    assert row_of(signal=True) == UnwindRow(0, CfaKind.RSP, 8, RbpKind.SAME, 0)


RULES = st.one_of(
    st.sampled_from([SAME, OTHER, UNDEFINED]),
    st.integers().map(at_cfa),
    st.binary(max_size=16).map(lambda expression: (How.EXPRESSION, 0, expression)),
    st.builds(saved_at, st.integers(0, 15), st.integers(-(1 << 34), (1 << 34) - 1)),
)
CFAS = st.one_of(
    st.tuples(st.integers(-1, 20), st.integers(), st.none() | st.binary(max_size=16)),
    st.builds(dereferenced, st.integers(0, 15), st.integers(-(1 << 36), 1 << 36), st.none() | st.integers(0, 1 << 40)),
    st.builds(indexed, st.integers(-(1 << 36), 1 << 36), st.integers(0, 15), st.integers(0, 1 << 40)),
)


@given(cfa=CFAS, frame_pointer=RULES, return_address=RULES, signal=st.booleans())
def test_any_rules_become_a_row(cfa: Cfa, frame_pointer: Rule, return_address: Rule, signal: bool) -> None:
    assert len(row_body((cfa, frame_pointer, return_address), signal)) == 6


def test_what_was_interrupted_is_read_from_gregs() -> None:
    order = [*OtherRegister, "rsp", "rip"]
    values = {8 * index: 100 + index for index in range(len(order))}
    assert interrupted(values.__getitem__, 8 * order.index("rsp")) == (
        116,
        115,
        100 + OtherRegister.RBP,
        tuple(range(100, 115)),
    )


def test_scratch_registers_are_those_that_no_function_saves() -> None:
    assert {register.name for register in SCRATCH_REGISTERS} == {
        "R8",
        "R9",
        "R10",
        "R11",
        "RDI",
        "RSI",
        "RDX",
        "RAX",
        "RCX",
    }
