"""The native walk of the BPF programs and the one in user space are the same, over any rows, registers and memory.

Differences by design, and the only ones that are allowed here:

- Code without unwind data whose frame pointer leads to memory that is not there: the programs say that there is no
  unwind data, since they saw that nothing is there.  A copy of the stack may just not go so far, and says unreadable.
- User space stops at the sixteenth frame that was interrupted, the programs at their limit of tail calls, and the limit
  of frames is looked at once in a stage, not once in a frame.  What is too deep in user space begins as it does there.

Rows are those that unwind_row.py makes: BELOW_CFA saves rbp 2 to 127 words below the CFA.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from walker.live_walker import compile_harness
from walker.native_steps import PAGE, NativeSteps, PagedMemory, Step

from pyflame_ebpf import native_walk
from pyflame_ebpf.events import Registers
from pyflame_ebpf.native_walk import WalkStopped
from pyflame_ebpf.profile import NativeOutcome
from pyflame_ebpf.unwind_row import CfaKind, OtherRegister, RbpKind, UnwindRow

pytestmark = pytest.mark.walker

STACK = 0x7FFF_0000_0000
PAGES = 4
SIZE = PAGES * PAGE
CODE = 0x40_0000
CODE_PAGES = 6
FRAMES_MAX = 700
HOSTILE = (0, 1, 8, 16, 4096, (1 << 47) - 8, 1 << 47, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, -16 % (1 << 64), -1 % (1 << 64))

near_page = st.builds(lambda page, words: page * PAGE + 8 * words, st.integers(0, PAGES), st.integers(-3, 3))
places = st.integers(0, SIZE // 8).map(lambda word: 8 * word) | near_page | st.integers(-64, SIZE + 64)
stack_addresses = places.map(lambda place: STACK + place)
code_addresses = st.integers(CODE + 1, CODE + CODE_PAGES * PAGE - 1)
any_words = st.one_of(stack_addresses, code_addresses, st.sampled_from(HOSTILE), st.integers(0, (1 << 64) - 1))
u64s = any_words.map(lambda word: word % (1 << 64))
s16s = st.integers(-3, 8).map(lambda words: 8 * words) | st.integers(-(1 << 15), (1 << 15) - 1)
s32s = st.one_of(
    st.integers(0, 12).map(lambda words: 8 * words),
    st.integers(-40, 200),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.sampled_from([-(1 << 31), (1 << 31) - 1]),
)
registers_and_words = st.builds(
    lambda register, words, odd: words << 7 | odd << 4 | register,
    st.integers(0, 15),
    st.integers(-4, 8),
    st.sampled_from([0, 0, 0, 1]),
)
two_places = st.builds(lambda place, plus: plus << 16 | place & 0xFFFF, s16s, s16s)
indexed = st.builds(
    lambda register, place, plus: plus << 16 | place << 4 | register,
    st.integers(0, 15),
    st.integers(0, 8).map(lambda words: 8 * words) | st.integers(0, 0xFFF),
    st.integers(0, 4).map(lambda words: 8 * words) | s16s,
)
OFFSETS = {
    CfaKind.PLT: st.integers(0, 15) | s32s,
    CfaKind.SIGNAL: st.sampled_from([120, 128, 160]) | s32s,
    CfaKind.REGISTER: registers_and_words | s32s,
    CfaKind.RSP_DEREF_PLUS: two_places | s32s,
    CfaKind.RBP_DEREF_PLUS: two_places | s32s,
    CfaKind.INDEXED: indexed | s32s,
}


@st.composite
def rows(draw, kinds=st.sampled_from(CfaKind)):
    """A row of any kind; offsets that lead on, and others."""
    cfa, rbp = draw(kinds), draw(st.sampled_from(RbpKind))
    if rbp is RbpKind.BELOW_CFA:
        rbp_offset = draw(st.integers(-4, -2) | st.integers(-127, -2))
    else:
        rbp_offset = draw(st.integers(-3, 4) | st.integers(-128, 127))
    return UnwindRow(0, cfa, draw(OFFSETS.get(cfa, s32s)), rbp, rbp_offset)


def some_word(number: random.Random) -> int:
    """A word such as stacks hold: a place in it, an address of code, or what should not be there."""
    choice = number.random()
    if choice < 0.5:
        return number.randrange(CODE + 1, CODE + CODE_PAGES * PAGE)
    if choice < 0.9:
        return STACK + 8 * number.randrange(SIZE // 8 + 1)
    return number.choice(HOSTILE)


@st.composite
def memories(draw):
    """Pages full of words that lead on, some of them absent."""
    number = random.Random(draw(st.integers(0, 1 << 32)))  # noqa: S311  # a few thousand words are not worth shrinking
    data = b"".join(some_word(number).to_bytes(8, "little") for _ in range(SIZE // 8))
    present = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=PAGES, max_size=PAGES))
    return PagedMemory(STACK, data, present)


registers = st.builds(
    Registers,
    ip=code_addresses,
    sp=stack_addresses | u64s,
    bp=stack_addresses | u64s,
    interrupted=st.tuples(*[st.integers(0, 8) | u64s] * len(OtherRegister)),
    exact=st.booleans(),
    callee_exact=st.booleans(),
)


@pytest.fixture(scope="session")
def harness(tmp_path_factory):
    return compile_harness(tmp_path_factory.mktemp("native_steps"))


def step_in_user_space(at, row, memory) -> Step:
    """One step of native_walk.py, told as the programs' is."""
    try:
        caller = native_walk._caller(at, row, memory)
    except WalkStopped as stopped:
        return Step(None, stopped.outcome, 0)
    end = caller.sp if caller else at.sp
    return Step(caller, None, end) if caller and caller.ip else Step(None, NativeOutcome.COMPLETE, end)


def is_of_frame_pointers(row):
    return row is None or row.cfa is CfaKind.NONE


def as_programs_say(outcome, row):
    """The outcome of a copy that does not hold where a frame pointer leads."""
    if outcome is NativeOutcome.UNREADABLE and is_of_frame_pointers(row):
        return NativeOutcome.NO_UNWIND_DATA
    return outcome


@settings(max_examples=1500, deadline=None)
@given(memory=memories(), at=registers, row=st.none() | rows())
def test_a_step_is_the_same_in_the_programs_and_in_user_space(harness, memory, at, row):
    expected = step_in_user_space(at, row, memory)
    expected = replace(expected, outcome=as_programs_say(expected.outcome, row))
    assert NativeSteps(harness, memory).step(at, row) == expected


@settings(max_examples=1500, deadline=None)
@given(
    memory=memories(),
    page=st.integers(0, PAGES),
    words=st.integers(-2, 3),
    offset=st.integers(0, 3).map(lambda words: 8 * words),
    row=rows(st.sampled_from([CfaKind.RSP, CfaKind.RBP])),
    at=registers,
)
def test_frames_at_the_edge_of_absent_pages_end_in_the_same_way(harness, memory, page, words, offset, row, at):
    place = STACK + page * PAGE + 8 * words
    at, row = replace(at, sp=place, bp=place + 8), row._replace(cfa_offset=offset)
    assert NativeSteps(harness, memory).step(at, row) == step_in_user_space(at, row, memory)


def row_of_page(code, address):
    """The row at an address; pages of code that do not exist stop the walk."""
    page = (address - CODE) // PAGE
    if not 0 <= page < len(code):
        raise WalkStopped(NativeOutcome.NO_MAPPING)
    return code[page]


leading_on = st.builds(
    UnwindRow,
    st.just(0),
    st.just(CfaKind.RSP),
    st.integers(1, 6).map(lambda words: 8 * words),
    st.sampled_from([RbpKind.SAME, RbpKind.BELOW_CFA]),
    st.integers(-4, -2),
)


@settings(max_examples=1000, deadline=None)
@given(
    memory=memories(),
    at=registers,
    code=st.lists(leading_on | rows() | st.none(), min_size=1, max_size=CODE_PAGES),
)
def test_a_walk_is_the_same_in_the_programs_and_in_user_space(harness, memory, at, code):
    def row_at(address):
        return row_of_page(code, address)

    frames, outcome = native_walk.walk(at, memory, row_at)
    of_programs, outcome_of_programs = NativeSteps(harness, memory).walk(at, row_at, FRAMES_MAX)
    if outcome is NativeOutcome.TOO_DEEP:
        assert of_programs[: len(frames)] == frames
        return
    if outcome is NativeOutcome.UNREADABLE:
        outcome = as_programs_say(outcome, row_at(frames[-1][0]))
    assert (of_programs, outcome_of_programs) == (frames, outcome)
