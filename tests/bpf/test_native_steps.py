"""The native walk of the BPF programs and the one in user space are the same, over any rows, registers and memory.

Differences by design, and the only ones that are allowed here:

- Code without unwind data whose frame pointer leads to memory that is not there: the programs say that there is no
  unwind data, since they saw that nothing is there.  A copy of the stack may just not go so far, and says unreadable.
- User space stops at the sixteenth frame that was interrupted, the programs at their limit of tail calls, and the limit
  of frames is looked at once in a stage, not once in a frame.  What is too deep in user space begins as it does there.

Rows are those that unwind/x86_64.py makes: BELOW_CFA saves rbp 2 to 127 words below the CFA.
"""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.unwind import walk
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import CfaKind, RbpKind, UnwindRow
from pyflame_ebpf.unwind.walk import WalkStopped
from pyflame_ebpf.unwind.x86_64 import OtherRegister
from tests.bpf.live_walker import compile_harness
from tests.bpf.native_steps import PAGE, NativeSteps, PagedMemory, Step

pytestmark = pytest.mark.walker

T = TypeVar("T")

STACK = 0x7FFF_0000_0000
PAGES = 3
SIZE = PAGES * PAGE
CODE = 0x40_0000
CODE_PAGES = 6
FRAMES_MAX = 700
HOSTILE = (
    0,
    1,
    8,
    16,
    4096,
    (1 << 47) - 8,
    1 << 47,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    -16 % (1 << 64),
    -1 % (1 << 64),
)


def mostly(likely: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The first five times in six: a walk is as long as all of its choices let it be."""
    return st.sampled_from([likely] * 5 + [other]).flatmap(lambda chosen: chosen)


def words(least: int, most: int) -> st.SearchStrategy[int]:
    """Offsets in bytes of whole words."""
    return st.integers(least, most).map(lambda word: 8 * word)


near_page = st.builds(lambda page, word: page * PAGE + 8 * word, st.integers(0, PAGES), st.integers(-3, 3))
stack_places = mostly(words(0, SIZE // 8), near_page | st.integers(-64, SIZE + 64)).map(lambda place: STACK + place)
code_addresses = st.integers(CODE + 1, CODE + CODE_PAGES * PAGE - 1)
any_words = st.one_of(stack_places, code_addresses, st.sampled_from(HOSTILE), st.integers(0, (1 << 64) - 1))
s16s = st.integers(-(1 << 15), (1 << 15) - 1)
s32s = st.one_of(
    st.integers(-64, 200), st.integers(-(1 << 31), (1 << 31) - 1), st.sampled_from([-(1 << 31), (1 << 31) - 1])
)
one_place = words(-3, 12)
two_places = st.builds(
    lambda place, plus: plus << 16 | place & 0xFFFF, mostly(words(-3, 8), s16s), mostly(words(0, 4), s16s)
)
register_and_words = st.builds(lambda register, place: place << 4 | register, st.integers(0, 15), words(-4, 8))
indexed = st.builds(
    lambda register, place, plus: plus << 16 | place << 4 | register,
    st.integers(0, 15),
    mostly(words(0, 8), st.integers(0, 0xFFF)),
    mostly(words(0, 4), s16s),
)
OFFSETS = {
    CfaKind.PLT: st.integers(0, 15),
    CfaKind.SIGNAL: words(15, 20),
    CfaKind.REGISTER: register_and_words,
    CfaKind.RSP_DEREF_PLUS: two_places,
    CfaKind.RBP_DEREF_PLUS: two_places,
    CfaKind.INDEXED: indexed,
}


@st.composite
def rows(draw: st.DrawFn, kinds: Sequence[CfaKind] = tuple(CfaKind)) -> UnwindRow:
    """A row of any kind; offsets that lead on, and others."""
    cfa, rbp = draw(st.sampled_from(kinds)), draw(st.sampled_from(RbpKind))
    if rbp is RbpKind.BELOW_CFA:
        rbp_offset = draw(mostly(st.integers(-4, -2), st.integers(-127, -2)))
    else:
        rbp_offset = draw(mostly(st.integers(-3, 4), st.integers(-128, 127)))
    return UnwindRow(0, cfa, draw(mostly(OFFSETS.get(cfa, one_place), s32s)), rbp, rbp_offset)


@st.composite
def memories(draw: st.DrawFn) -> PagedMemory:
    """Pages full of places in them, addresses of code, and a few words that should not be there; some are absent."""
    number = random.Random(draw(st.integers(0, 1 << 32)))  # a few thousand words are not worth shrinking
    code = [number.randrange(CODE + 1, CODE + CODE_PAGES * PAGE) for _ in range(64)]
    stack = [STACK + 8 * number.randrange(SIZE // 8 + 1) for _ in range(64)]
    kinds = number.choices([code, stack, HOSTILE], [draw(st.integers(1, 9)), 4, 1], k=SIZE // 8)
    data = struct.pack(f"<{SIZE // 8}Q", *map(number.choice, kinds))
    is_present = st.sampled_from([True] * 6 + [False])
    return PagedMemory(STACK, data, draw(st.lists(is_present, min_size=PAGES, max_size=PAGES)))


registers = st.builds(
    Registers,
    ip=code_addresses,
    sp=mostly(words(0, SIZE // 16).map(lambda place: STACK + place), any_words),
    bp=mostly(stack_places, any_words),
    interrupted=st.tuples(*[mostly(st.integers(0, 8) | stack_places, any_words)] * len(OtherRegister)),
    exact=st.booleans(),
    callee_exact=st.booleans(),
)


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_harness(tmp_path_factory.mktemp("native_steps"))


def step_in_user_space(at: Registers, row: UnwindRow | None, memory: PagedMemory) -> Step:
    """One step of walk.py, told as the programs' is."""
    try:
        caller = walk._caller(at, row, memory)
    except WalkStopped as stopped:
        return Step(None, stopped.outcome, 0)
    end = caller.sp if caller else at.sp
    return Step(caller, None, end) if caller and caller.ip else Step(None, NativeOutcome.COMPLETE, end)


def is_of_frame_pointers(row: UnwindRow | None) -> bool:
    return row is None or row.cfa is CfaKind.NONE


def as_programs_say(outcome: NativeOutcome | None, row: UnwindRow | None) -> NativeOutcome | None:
    """The outcome of a copy that does not hold where a frame pointer leads."""
    if outcome is NativeOutcome.UNREADABLE and is_of_frame_pointers(row):
        return NativeOutcome.NO_UNWIND_DATA
    return outcome


@pytest.mark.parametrize("kind", [None, *CfaKind])
@settings(max_examples=100, deadline=None)
@given(memory=memories(), at=registers, data=st.data())
def test_a_step_is_the_same_in_the_programs_and_in_user_space(
    harness: ctypes.CDLL, memory: PagedMemory, at: Registers, kind: CfaKind | None, data: st.DataObject
) -> None:
    row = None if kind is None else data.draw(rows((kind,)))
    expected = step_in_user_space(at, row, memory)
    expected = replace(expected, outcome=as_programs_say(expected.outcome, row))
    assert NativeSteps(harness, memory).step(at, row) == expected


@st.composite
def frames_at_edges(draw: st.DrawFn) -> tuple[Registers, UnwindRow]:
    """Registers and a row of a frame that ends near the edge of a page."""
    row = draw(rows((CfaKind.RSP, CfaKind.RBP)))._replace(cfa_offset=draw(words(0, 3)))
    place = STACK + draw(near_page)
    return replace(draw(registers), sp=place, bp=place + 8), row


@settings(max_examples=500, deadline=None)
@given(memory=memories(), frame=frames_at_edges())
def test_frames_at_the_edge_of_absent_pages_end_in_the_same_way(
    harness: ctypes.CDLL, memory: PagedMemory, frame: tuple[Registers, UnwindRow]
) -> None:
    assert NativeSteps(harness, memory).step(*frame) == step_in_user_space(*frame, memory)


def row_of_page(code: Sequence[UnwindRow | None], address: int) -> UnwindRow | None:
    """The row at an address; pages of code that do not exist stop the walk."""
    page = (address - CODE) // PAGE
    if not 0 <= page < len(code):
        raise WalkStopped(NativeOutcome.NO_MAPPING)
    return code[page]


leading_on = st.builds(
    UnwindRow,
    st.just(0),
    st.just(CfaKind.RSP),
    words(1, 6),
    st.sampled_from([RbpKind.SAME, RbpKind.BELOW_CFA]),
    st.integers(-4, -2),
)


@settings(max_examples=500, deadline=None)
@given(
    memory=memories(),
    at=registers,
    code=st.lists(mostly(leading_on, rows() | st.none()), min_size=CODE_PAGES, max_size=CODE_PAGES),
)
def test_a_walk_is_the_same_in_the_programs_and_in_user_space(
    harness: ctypes.CDLL, memory: PagedMemory, at: Registers, code: list[UnwindRow | None]
) -> None:
    def row_at(address: int) -> UnwindRow | None:
        return row_of_page(code, address)

    frames, outcome = walk.walk(at, memory, row_at)
    expected: NativeOutcome | None = outcome
    of_programs, outcome_of_programs = NativeSteps(harness, memory).walk(at, row_at, FRAMES_MAX)
    if outcome is NativeOutcome.TOO_DEEP:
        assert of_programs[: len(frames)] == frames
        return
    if outcome is NativeOutcome.UNREADABLE:
        expected = as_programs_say(outcome, row_at(frames[-1][0]))
    assert (of_programs, outcome_of_programs) == (frames, expected)


def made_up(words_of_page: Sequence[int], present: tuple[bool, ...] = (True, True, True)) -> PagedMemory:
    """Pages of which the second begins with these words; the first ends with words of 8."""
    data = struct.pack(
        f"<{SIZE // 8}Q", *[8] * (PAGE // 8), *words_of_page, *[0] * (2 * PAGE // 8 - len(words_of_page))
    )
    return PagedMemory(STACK, data, present)


def registers_at(sp: int) -> Registers:
    return Registers(CODE + 1, sp, sp, (0,) * len(OtherRegister), exact=True)


@pytest.mark.parametrize("offset", [16, 8])
@pytest.mark.parametrize("cfa", [CfaKind.RSP, CfaKind.RBP])
def test_return_address_whose_frame_pointer_cannot_be_read_is_unreadable(
    harness: ctypes.CDLL, cfa: CfaKind, offset: int
) -> None:
    memory = made_up([0, 0], present=(False, True, True))
    at = registers_at(STACK + PAGE)
    row = UnwindRow(0, cfa, offset, RbpKind.BELOW_CFA, -offset // 8 - 1)
    assert NativeSteps(harness, memory).step(at, row) == Step(None, NativeOutcome.UNREADABLE, 0)


def test_saved_frame_pointer_that_cannot_be_read_ends_a_rare_step_too(harness: ctypes.CDLL) -> None:
    memory = made_up([CODE + 1], present=(False, True, True))
    row = UnwindRow(0, CfaKind.PLT, 15, RbpKind.AT_CFA, -2)
    step = NativeSteps(harness, memory).step(registers_at(STACK + PAGE), row)
    assert step == Step(None, NativeOutcome.UNREADABLE, 0)


def test_nothing_is_read_below_the_return_address_of_a_frame_that_saves_nothing(harness: ctypes.CDLL) -> None:
    memory = made_up([CODE + 1], present=(False, True, True))
    row = UnwindRow(0, CfaKind.RSP, 8, RbpKind.SAME, 0)
    step = NativeSteps(harness, memory).step(registers_at(STACK + PAGE), row)
    assert (step.outcome, step.end) == (None, STACK + PAGE + 8)


@pytest.mark.parametrize(
    "row", [None, UnwindRow(0, CfaKind.RSP, 16, RbpKind.SAME, 0), UnwindRow(0, CfaKind.PLT, 0, RbpKind.SAME, 0)]
)
def test_root_s_frame_ends_at_its_cfa(harness: ctypes.CDLL, row: UnwindRow | None) -> None:
    step = NativeSteps(harness, made_up([0, 0])).step(registers_at(STACK + PAGE), row)
    assert step == Step(None, NativeOutcome.COMPLETE, STACK + PAGE + 16)


FOLLOWED = (None, *(UnwindRow(0, cfa, 16, RbpKind.SAME, 0) for cfa in (CfaKind.NONE, CfaKind.RBP, CfaKind.PLT)))


@pytest.mark.parametrize("row", FOLLOWED)
@pytest.mark.parametrize("sp", [STACK + PAGE, -16 % (1 << 64)])
@pytest.mark.parametrize("ip", HOSTILE)
def test_addresses_that_are_none_of_user_space_are_judged_alike(
    harness: ctypes.CDLL, row: UnwindRow | None, sp: int, ip: int
) -> None:
    memory = made_up([STACK, ip])
    at = replace(registers_at(STACK + PAGE), sp=sp)
    assert NativeSteps(harness, memory).step(at, row) == step_in_user_space(at, row, memory)
