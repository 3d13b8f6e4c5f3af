"""The walk in user space over made-up stacks, rows given by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import CfaKind, RbpKind, UnwindRow
from pyflame_ebpf.unwind.walk import FRAMES_MAX, NativeFrame, StackMemory, WalkStopped, walk
from pyflame_ebpf.unwind.x86_64 import OtherRegister

STACK = 0x7FFF_0000
LEAF, CALLER, ROOT = 0x1000, 0x2000, 0x3000
RBP = 0xB0B


def row(cfa: CfaKind, offset: int = 0, rbp: RbpKind = RbpKind.SAME, rbp_offset: int = 0) -> UnwindRow:
    return UnwindRow(0, cfa, offset, rbp, rbp_offset)


AT_LEAF = Registers(LEAF, STACK, RBP, tuple(range(100, 115)), exact=True)


def walked(
    words: list[int], rows: Mapping[int, UnwindRow | None], at: Registers = AT_LEAF
) -> tuple[list[NativeFrame], NativeOutcome]:
    """Walk a stack of words; ``rows`` by the page of an address, others are unknown code."""

    def row_at(address: int) -> UnwindRow | None:
        if address >> 12 not in rows:
            raise WalkStopped(NativeOutcome.NO_MAPPING)
        return rows[address >> 12]

    return walk(at, StackMemory(STACK, struct.pack(f"<{len(words)}Q", *words)), row_at)


def test_frames_are_followed_by_the_stack_pointer_to_the_root() -> None:
    frames, outcome = walked(
        [0, CALLER + 5, 0, 0, ROOT + 5], {1: row(CfaKind.RSP, 16), 2: row(CfaKind.RSP, 24), 3: row(CfaKind.ROOT)}
    )
    assert outcome is NativeOutcome.COMPLETE
    assert frames == [(LEAF, STACK + 16), (CALLER + 4, STACK + 40), (ROOT + 4, STACK + 40)]


def test_a_return_address_of_nought_is_the_root() -> None:
    assert walked([0], {1: row(CfaKind.RSP, 8)}) == ([(LEAF, STACK + 8)], NativeOutcome.COMPLETE)


def test_interrupted_instruction_is_not_moved_into_the_call_before_it() -> None:
    frames, _ = walked([0], {1: row(CfaKind.RSP, 8), 0: row(CfaKind.RSP, 8)}, replace(AT_LEAF, exact=False))
    assert frames == [(LEAF - 1, STACK + 8)]


def test_saved_frame_pointer_is_the_caller_s() -> None:
    rows = {1: row(CfaKind.RSP, 24, RbpKind.BELOW_CFA, -2), 2: row(CfaKind.RBP, 16)}
    frames, outcome = walked([0, STACK + 48, CALLER + 1, 0, 0, 0, 0, 0], rows)
    assert (frames[1], outcome) == ((CALLER, STACK + 64), NativeOutcome.COMPLETE)


@pytest.mark.parametrize(("ip", "end"), [(0x1004, 8), (0x100B, 16)])
def test_entry_of_the_procedure_linkage_table_pushes_halfway(ip: int, end: int) -> None:
    frames, _ = walked([0, 0], {1: row(CfaKind.PLT, 11)}, replace(AT_LEAF, ip=ip))
    assert frames == [(ip, STACK + end)]


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        (row(CfaKind.RBP_DEREF, -8), replace(AT_LEAF, bp=STACK + 8)),
        (row(CfaKind.RSP_DEREF_PLUS, 0), AT_LEAF),
        (row(CfaKind.RBP_DEREF_PLUS, 8 << 16 | 0xFFF0), replace(AT_LEAF, bp=STACK + 24)),
        (
            row(CfaKind.REGISTER, 8 << 4 | OtherRegister.R10),
            replace(AT_LEAF, interrupted=(0, 0, STACK + 16, *[0] * 12)),
        ),
        (row(CfaKind.INDEXED, 16 << 4 | OtherRegister.R9), replace(AT_LEAF, interrupted=(0, -2, *[0] * 13))),
        (
            row(CfaKind.INDEXED, 8 << 16 | 24 << 4 | OtherRegister.R9),
            replace(AT_LEAF, interrupted=(0, -2, *[0] * 13)),
        ),
    ],
)
def test_realigned_stacks_are_followed(rule: UnwindRow, at: Registers) -> None:
    frames, outcome = walked([STACK + 24, STACK + 16, 0, 0], {1: rule}, at)
    assert (frames, outcome) == ([(LEAF, STACK + 24)], NativeOutcome.COMPLETE)


@pytest.mark.parametrize(
    ("register", "frames_out", "outcome"),
    [
        (OtherRegister.RAX, 1, NativeOutcome.COMPLETE),
        (OtherRegister.RAX, 2, NativeOutcome.UNSUPPORTED),
        (OtherRegister.RBX, 1, NativeOutcome.UNSUPPORTED),
        (OtherRegister.RBX, 0, NativeOutcome.COMPLETE),
    ],
)
def test_scratch_registers_are_believed_in_the_caller_s_frame_too_but_no_further(
    register: OtherRegister, frames_out: int, outcome: NativeOutcome
) -> None:
    end = STACK + 8 * frames_out
    rows = {1: row(CfaKind.RSP, 8), 2: row(CfaKind.REGISTER, 8 << 4 | register)}
    words = [*[LEAF + 1] * (frames_out - 1), *[CALLER + 1] * bool(frames_out), 0]
    at = replace(AT_LEAF, ip=LEAF if frames_out else CALLER, interrupted=(end,) * 15)
    found = walked(words, rows, at)
    assert found[1] is outcome


def test_signal_frame_gives_the_interrupted_instruction() -> None:
    saved = [STACK + 144 if register is OtherRegister.RBX else 0 for register in OtherRegister]
    words = [*saved, STACK + 136, CALLER, 0, 0]
    rows = {1: row(CfaKind.SIGNAL, 120), 2: row(CfaKind.REGISTER, 8 << 4 | OtherRegister.RBX)}
    frames, outcome = walked(words, rows)
    assert (frames[1], outcome) == ((CALLER, STACK + 152), NativeOutcome.COMPLETE)


def test_code_without_unwind_data_is_followed_by_frame_pointers() -> None:
    frames, outcome = walked([0, STACK + 8, CALLER + 1, 0, 0], {1: None, 2: None}, replace(AT_LEAF, bp=STACK + 8))
    assert outcome is NativeOutcome.NO_UNWIND_DATA
    assert frames == [(LEAF, STACK + 24), (CALLER, 0)]


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        ({1: row(CfaKind.UNSUPPORTED)}, NativeOutcome.UNSUPPORTED),
        ({1: row(CfaKind.RSP, 0)}, NativeOutcome.NOT_ADVANCING),
        ({1: row(CfaKind.RSP, 4096)}, NativeOutcome.UNREADABLE),
        ({1: row(CfaKind.RSP, -4096)}, NativeOutcome.UNREADABLE),
        ({1: row(CfaKind.RSP, 8)}, NativeOutcome.NO_MAPPING),
    ],
)
def test_what_stops_the_walk_is_told(rules: dict[int, UnwindRow], outcome: NativeOutcome) -> None:
    frames, found = walked([0, CALLER + 1], rules, replace(AT_LEAF, sp=STACK + 8))
    assert (found, frames[0][0]) == (outcome, LEAF)


def test_signal_frames_in_a_circle_come_to_an_end() -> None:
    words = [0] * len(OtherRegister) + [STACK, LEAF]
    frames, outcome = walked(words, {1: row(CfaKind.SIGNAL, 8 * len(OtherRegister))})
    assert (len(frames), outcome) == (16, NativeOutcome.TOO_DEEP)


@given(
    words=st.lists(
        st.sampled_from([0, LEAF, CALLER + 1, ROOT + 7, STACK, STACK + 16, STACK + 48, 2**64 - 1]), max_size=40
    ),
    rows=st.dictionaries(
        st.sampled_from([1, 2, 3]),
        st.builds(
            row,
            st.sampled_from(CfaKind),
            st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-64, 64),
            st.sampled_from(RbpKind),
            st.integers(-128, 127) | st.integers(-4, 4),
        ),
    ),
    sp=st.integers(0, 2**64 - 1) | st.sampled_from([STACK, STACK + 8]),
)
def test_any_rows_and_memory_come_to_an_end(words: list[int], rows: dict[int, UnwindRow], sp: int) -> None:
    frames, outcome = walked(words, rows, replace(AT_LEAF, sp=sp))
    assert frames[0][0] == LEAF
    assert len(frames) <= FRAMES_MAX
    assert isinstance(outcome, NativeOutcome)


def test_there_are_never_more_frames_than_the_programs_would_give() -> None:
    frames, outcome = walked([LEAF] * (FRAMES_MAX + 9), {0: row(CfaKind.RSP, 8), 1: row(CfaKind.RSP, 8)})
    assert (len(frames), outcome) == (FRAMES_MAX, NativeOutcome.TOO_DEEP)


SAVED = 0x5A7ED  # a caller's rbp


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        (row(CfaKind.RSP, 24, RbpKind.BELOW_CFA, -3), AT_LEAF),
        (row(CfaKind.RSP, 24, RbpKind.AT_CFA, -3), AT_LEAF),
        (row(CfaKind.RSP, 24, RbpKind.AT_RBP, -1), replace(AT_LEAF, bp=STACK + 8)),
        (row(CfaKind.RSP, 24, RbpKind.AT_RSP, 0), AT_LEAF),
        (row(CfaKind.RSP, 24), replace(AT_LEAF, bp=SAVED)),
    ],
)
def test_a_caller_s_frame_pointer_is_where_the_row_says(rule: UnwindRow, at: Registers) -> None:
    deref = row(CfaKind.RBP, STACK + 32 - SAVED)
    frames, outcome = walked([SAVED, 0, CALLER + 1, 0], {1: rule, 2: deref}, at)
    assert (frames, outcome) == ([(LEAF, STACK + 24), (CALLER, STACK + 32)], NativeOutcome.COMPLETE)


def test_a_frame_pointer_that_is_not_known_is_nought() -> None:
    rows = {1: row(CfaKind.RSP, 8, RbpKind.UNKNOWN), 2: row(CfaKind.RBP, 24)}
    frames, outcome = walked([CALLER + 1, 0], rows, replace(AT_LEAF, bp=STACK))
    assert (frames[-1], outcome) == ((CALLER, 0), NativeOutcome.UNREADABLE)


@pytest.mark.parametrize(
    ("offset", "outcome"),
    [(-8, NativeOutcome.NOT_ADVANCING), (0, NativeOutcome.NOT_ADVANCING), (4, NativeOutcome.NOT_ADVANCING)],
)
def test_a_frame_ends_above_the_stack_pointer_at_a_whole_word(offset: int, outcome: NativeOutcome) -> None:
    words = [CALLER + 1] * 4
    frames, found = walked(words, {1: row(CfaKind.RSP, offset)}, replace(AT_LEAF, sp=STACK + 16))
    assert (frames, found) == ([(LEAF, 0)], outcome)


@pytest.mark.parametrize("address", [(1 << 63) + 1, (1 << 64) - 1, (1 << 64) - 4096])
def test_a_return_address_outside_user_space_is_unreadable(address: int) -> None:
    assert walked([address], {1: row(CfaKind.RSP, 8)}) == ([(LEAF, 0)], NativeOutcome.UNREADABLE)


def test_a_return_address_of_the_lower_half_is_followed() -> None:
    top = 1 << 63  # as the programs compare: by the sign of the difference from 1
    frames, outcome = walked([top], {1: row(CfaKind.RSP, 8)})
    assert (frames, outcome) == ([(LEAF, STACK + 8), (top - 1, 0)], NativeOutcome.NO_MAPPING)


@pytest.mark.parametrize(
    ("words", "bp", "expected"),
    [
        ([0x77, CALLER + 1], STACK, ([(LEAF, STACK + 16), (CALLER, 0)], NativeOutcome.NO_UNWIND_DATA)),
        ([0x77, 0], STACK, ([(LEAF, STACK + 16)], NativeOutcome.COMPLETE)),
        ([0x77, (1 << 63) + 1], STACK, ([(LEAF, 0)], NativeOutcome.NO_UNWIND_DATA)),
        ([0x77, CALLER + 1], STACK - 16, ([(LEAF, 0)], NativeOutcome.NO_UNWIND_DATA)),
        ([0x77, CALLER + 1], STACK + 4, ([(LEAF, 0)], NativeOutcome.NO_UNWIND_DATA)),
        ([0x77, CALLER + 1], STACK + 8, ([(LEAF, 0)], NativeOutcome.UNREADABLE)),
        ([0x77, CALLER + 1], (1 << 64) - 8, ([(LEAF, 0)], NativeOutcome.NO_UNWIND_DATA)),
    ],
)
def test_a_frame_record_is_believed_only_above_the_stack_pointer(
    words: list[int], bp: int, expected: tuple[list[NativeFrame], NativeOutcome]
) -> None:
    none = row(CfaKind.NONE)
    for rows in ({1: None, 2: None}, {1: none, 2: none}):
        assert walked(words, rows, replace(AT_LEAF, bp=bp)) == expected


@pytest.mark.parametrize(
    ("words", "sp", "outcome"),
    [
        ([0] * 15 + [STACK, 0], STACK, NativeOutcome.UNREADABLE),
        ([0] * 15 + [STACK], STACK, NativeOutcome.UNREADABLE),
        ([0] * 15 + [STACK, CALLER], STACK + 8, NativeOutcome.UNREADABLE),
        ([0] * 15 + [STACK, CALLER], STACK, NativeOutcome.NO_MAPPING),
    ],
)
def test_a_signal_frame_has_all_registers_or_stops_the_walk(words: list[int], sp: int, outcome: NativeOutcome) -> None:
    assert walked(words, {1: row(CfaKind.SIGNAL, 120)}, replace(AT_LEAF, sp=sp))[1] is outcome


def test_a_signal_frame_gives_the_interrupted_frame_pointer() -> None:
    saved = [STACK + 136 if register is OtherRegister.RBP else 0 for register in OtherRegister]
    words = [*saved, STACK, CALLER, 0]
    frames, outcome = walked(words, {1: row(CfaKind.SIGNAL, 120), 2: row(CfaKind.RBP, 8)})
    assert (frames, outcome) == ([(LEAF, STACK), (CALLER, STACK + 144)], NativeOutcome.COMPLETE)


@pytest.mark.parametrize(
    ("rule", "end"),
    [
        (row(CfaKind.REGISTER, -8 << 4 | OtherRegister.RCX), STACK + 8),
        (row(CfaKind.REGISTER, 8 << 4 | OtherRegister.RCX), STACK + 24),
    ],
)
def test_a_distance_from_a_register_has_a_sign(rule: UnwindRow, end: int) -> None:
    at = replace(AT_LEAF, interrupted=(*[0] * 14, STACK + 16))
    assert walked([0, 0, 0], {1: rule}, at) == ([(LEAF, end)], NativeOutcome.COMPLETE)


def test_a_register_that_does_not_exist_is_not_supported() -> None:
    assert walked([0], {1: row(CfaKind.REGISTER, 15)}) == ([(LEAF, 0)], NativeOutcome.UNSUPPORTED)


def test_memory_that_was_copied_is_read_to_its_last_word() -> None:
    memory = StackMemory(STACK, bytes(8) + b"\x01\0\0\0\0\0\0\x02")
    assert memory.word(STACK + 8) == 0x0200000000000001
    assert memory.word(STACK + 8 + (1 << 64)) == 0x0200000000000001
    for address in (STACK - 1, STACK + 9, STACK + 16):
        with pytest.raises(WalkStopped) as stopped:
            memory.word(address)
        assert (stopped.value.outcome, str(stopped.value)) == (NativeOutcome.UNREADABLE, "stack unreadable")


def test_sixteen_signal_frames_are_followed_before_a_stack_counts_as_a_circle() -> None:
    handlers = 15
    words = []
    for number in range(handlers):
        words += [*[0] * 15, STACK + 136 * (number + 1), LEAF if number < handlers - 1 else CALLER]
    frames, outcome = walked([*words, 0], {1: row(CfaKind.SIGNAL, 120), 2: row(CfaKind.RSP, 8)})
    assert (len(frames), outcome) == (16, NativeOutcome.COMPLETE)
