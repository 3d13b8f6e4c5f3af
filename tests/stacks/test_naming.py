"""Raw frames to named ones, with functions of made-up names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NATIVE_GAPS, Frame, FrameKind, NativeOutcome, Outcome, Stack
from pyflame_ebpf.stacks import naming
from pyflame_ebpf.stacks.code_table import CodeTable
from pyflame_ebpf.stacks.naming import FrameNames
from tests.stacks.records import (
    CARRIER,
    CODE_ID,
    GREENLET,
    IDENTITY,
    LAYOUT,
    LOOP,
    NOT_PYTHON,
    OTHER,
    PYTHON,
    FakeMemory,
    Sampled,
    boundary,
    code_event,
    entry_frame,
    kernel_frame,
    name_kernel_address,
    native,
    native_frame,
    parse_at,
    python_frame,
    shown,
    stack_event,
)


@pytest.fixture
def sampled() -> Sampled:
    """The code object ``parse`` has come."""
    sampled = Sampled()
    sampled.add_parse()
    return sampled


# ---- Python's frames ----


@pytest.mark.parametrize(("position", "line"), [(0, 11), (2, 11), (4, 13), (400, 13), (-1, 10)])
def test_frame_has_the_line_of_its_position_and_before_the_first_instruction_the_first_line(
    sampled: Sampled, position: int, line: int
) -> None:
    sampled.add_stack(python_frame(position))
    assert sampled.stack() == (parse_at(line),)


def test_code_object_that_could_not_be_identified_is_marked_in_its_place(sampled: Sampled) -> None:
    sampled.add_stack(python_frame(0), python_frame(0, code_id=0))
    assert sampled.stack(Outcome.UNREADABLE_CODE) == (naming.UNREADABLE, parse_at(11))


def test_a_code_object_is_named_although_its_frame_was_named_without_it() -> None:
    codes = CodeTable(FakeMemory().read)
    names = FrameNames(codes, lambda *_: None, name_kernel_address)
    stack = stack_event(python_frame())
    assert names.stack(stack, Outcome.COMPLETE, NativeOutcome.NONE, "") == (naming.UNREADABLE,)
    codes.add(code_event(), LAYOUT)
    assert names.stack(stack, Outcome.COMPLETE, NativeOutcome.NONE, "") == (parse_at(11),)


# ---- frames of all kinds ----


def test_frames_of_all_kinds_are_woven_outermost_first(sampled: Sampled) -> None:
    python_frames = [python_frame(0), boundary(0x7FFD00), python_frame(4), boundary(0x7FFF00)]
    native_frames = [(0x40, 0x7FFC00), (LOOP, 0x7FFE00), (CARRIER, 0x7FFE80), (LOOP, 0x7FFF80), (0x50, 0x7FFF90)]
    sampled.add_stack(kernel_frame(0xFFFF), *python_frames, *(native_frame(*each) for each in native_frames))
    stack = sampled.stack(native=NativeOutcome.COMPLETE)
    assert [(frame.kind, frame.name, frame.line, frame.plumbing) for frame in stack] == [
        (FrameKind.NATIVE, "native_50", 0, False),
        (FrameKind.NATIVE, "_PyEval_EvalFrameDefault", 0, True),
        (FrameKind.PYTHON, "parse", 13, False),
        (FrameKind.NATIVE, "type_call", 0, True),
        (FrameKind.NATIVE, "_PyEval_EvalFrameDefault", 0, True),
        (FrameKind.PYTHON, "parse", 11, False),
        (FrameKind.NATIVE, "native_40", 0, False),
        (FrameKind.KERNEL, "kernel_ffff", 0, False),
    ]


def test_each_kernel_frame_has_its_own_name() -> None:
    sampled = Sampled()
    sampled.add_stack(*map(kernel_frame, (0xF1, 0xF2, 0xF1)), native_frame(0x40))
    stack = sampled.stack(Outcome.NOT_PYTHON, NOT_PYTHON)
    assert [frame.name for frame in stack] == ["native_40", "kernel_f1", "kernel_f2", "kernel_f1"]


def test_a_kernel_address_is_named_once() -> None:
    asked = []

    def name(address: int) -> Frame:
        asked.append(address)
        return name_kernel_address(address)

    names = FrameNames(CodeTable(FakeMemory().read), lambda *_: None, name)
    for _ in range(2):
        names.stack(stack_event(kernel_frame(0xF1), kernel_frame(0xF1)), Outcome.COMPLETE, NativeOutcome.NONE, "")
    assert asked == [0xF1]


def test_older_releases_are_woven_by_the_names_of_the_evaluation_loop(sampled: Sampled) -> None:
    sampled.add_stack(entry_frame(0), entry_frame(4), *map(native_frame, (LOOP, 0x40, LOOP, 0x50, LOOP, 0x60)))
    assert shown(sampled.stack(native=NativeOutcome.COMPLETE)) == ["native_60", 13, "native_50", 11, "native_40"]


def test_greenlet_s_frames_end_where_its_stack_begins(sampled: Sampled) -> None:
    sampled.add_stack(entry_frame(0), *map(native_frame, (0x40, LOOP, GREENLET, 0x50, LOOP, 0x60)))
    stack = sampled.stack(native=NativeOutcome.COMPLETE)
    assert shown(stack) == ["native_60", "native_50", "g_initialstub", 11, "native_40"]


@pytest.mark.parametrize(
    ("outcome", "native_outcome"),
    [(Outcome.TOO_DEEP, NativeOutcome.COMPLETE), (Outcome.COMPLETE, NativeOutcome.PAGE_MISS)],
)
def test_walk_that_broke_off_is_woven_from_the_leaf(
    sampled: Sampled, outcome: Outcome, native_outcome: NativeOutcome
) -> None:
    sampled.add_stack(entry_frame(0), *map(native_frame, (0x40, LOOP, 0x50, LOOP, 0x60)))
    mark, *rest = sampled.stack(outcome, native=native_outcome)
    assert mark.kind is FrameKind.MARK
    assert shown(tuple(rest)) == ["native_60", "native_50", 11, "native_40"]


def test_call_that_holds_python_frames_is_plumbing_whatever_it_is_called(sampled: Sampled) -> None:
    frames = [python_frame(0), boundary(0x7FFD80), native_frame(0x40, 0x7FFD00), native_frame(0x50, 0x7FFE00)]
    sampled.add_stack(*frames, native_frame(0x60, 0x7FFF00))
    assert shown(sampled.stack(native=NativeOutcome.COMPLETE)) == ["native_60", 11, "native_40"]


# ---- a stripped interpreter ----


def in_file(_identity: Identity, address: int) -> Frame:
    """Names by the place in a file; 0x60 is in a library, 0x65 has a name of its own."""
    file = "/lib/extension.so" if address == 0x60 else "/bin/python"
    return Frame(FrameKind.NATIVE, "named" if address == 0x65 else f"{file}+{address:#x}", file)


def stripped_stack(interpreter_file: str) -> Stack:
    """0x30, 0x40, Python, 0x50, 0x60, 0x65, 0x70 from the leaf on; Python's frame is in that of 0x50."""
    sampled = Sampled(name=in_file)
    sampled.add_parse()
    ends = {0x30: 0x7FFC00, 0x40: 0x7FFD00, 0x50: 0x7FFE00, 0x60: 0x7FFE40, 0x65: 0x7FFE80, 0x70: 0x7FFF00}
    sampled.add_stack(python_frame(0), boundary(0x7FFD80), *(native_frame(*each) for each in ends.items()))
    return sampled.stack(process=replace(PYTHON, interpreter_file=interpreter_file), native=NativeOutcome.COMPLETE)


WORK = ["/bin/python+0x40", "/bin/python+0x30"]


def test_unnamed_functions_of_the_interpreter_are_shown_only_where_they_are_the_work() -> None:
    assert shown(stripped_stack("/bin/python")) == ["named", "/lib/extension.so+0x60", 11, *WORK]


@pytest.mark.parametrize("interpreter_file", ["", "/bin/other"])
def test_unnamed_functions_of_other_files_are_shown(interpreter_file: str) -> None:
    native_names = ["/bin/python+0x70", "named", "/lib/extension.so+0x60"]
    assert shown(stripped_stack(interpreter_file)) == [*native_names, 11, *WORK]


# ---- native addresses ----


def test_address_without_code_is_shown_as_a_number() -> None:
    sampled = Sampled()
    sampled.add_stack(*map(native_frame, (0x40, 0xDEAD0000, 0x60)))
    stack = sampled.stack(Outcome.NOT_PYTHON, NOT_PYTHON, NativeOutcome.COMPLETE)
    assert stack == (native("native_60"), native("0xdead0000"), native("native_40"))


class Names:
    """Native names by process and address, which may become known later; and what was asked for."""

    def __init__(self) -> None:
        self.known: dict[tuple[Identity, int], str] = {}
        self.asked: list[tuple[Identity, int]] = []
        self.codes = CodeTable(FakeMemory().read)
        self.frames = FrameNames(self.codes, self._name, name_kernel_address)

    def _name(self, identity: Identity, address: int) -> Frame | None:
        self.asked.append((identity, address))
        name = self.known.get((identity, address))
        return native(name) if name else None

    def of(self, *addresses: int, identity: Identity = IDENTITY, python: int = 0) -> list[str]:
        """The names of a stack of native addresses, leaf first, with so many Python frames."""
        frames = [entry_frame() for _ in range(python)]
        event = stack_event(*frames, *map(native_frame, addresses), identity=identity)
        stack = self.frames.stack(event, Outcome.COMPLETE, NativeOutcome.COMPLETE, "")
        return [frame.name for frame in reversed(stack)]


@pytest.fixture
def names() -> Names:
    return Names()


def test_an_address_is_named_once_for_each_process(names: Names) -> None:
    names.known = {(IDENTITY, 0x40): "mine", (OTHER, 0x40): "other's", (IDENTITY, 0x50): "f"}
    assert names.of(0x40, 0x40, 0x50) == ["mine", "mine", "f"]
    assert names.of(0x40, identity=OTHER) == ["other's"]
    assert names.of(0x40) == ["mine"]
    assert names.asked == [(IDENTITY, 0x40), (IDENTITY, 0x50), (OTHER, 0x40)]


def test_an_address_without_a_name_is_asked_for_again(names: Names) -> None:
    assert names.of(0x40) == ["0x40"]
    names.known[IDENTITY, 0x40] = "late"
    assert names.of(0x40) == ["late"]


def test_a_call_of_the_evaluation_loop_is_told_once_its_address_has_a_name(names: Names) -> None:
    assert names.of(0x40, 0x50, python=1) == ["0x40", "0x50", naming.UNREADABLE.name]
    names.known = {(IDENTITY, 0x40): "_PyEval_EvalFrameDefault", (IDENTITY, 0x50): "main"}
    assert names.of(0x40, 0x50, python=1) == [naming.UNREADABLE.name, "_PyEval_EvalFrameDefault", "main"]


def test_loops_are_told_for_each_process_by_itself(names: Names) -> None:
    names.known = {(IDENTITY, 0x40): "main", (OTHER, 0x40): "_PyEval_EvalFrameDefault"}
    assert names.of(0x40, python=1) == ["main", naming.UNREADABLE.name]
    assert names.of(0x40, python=1, identity=OTHER) == [naming.UNREADABLE.name, "_PyEval_EvalFrameDefault"]


def test_equal_frames_of_several_addresses_are_one_object(names: Names) -> None:
    names.known = {(IDENTITY, 0x40): "f", (IDENTITY, 0x44): "f"}
    stack = names.frames.stack(
        stack_event(native_frame(0x40), native_frame(0x44)), Outcome.COMPLETE, NativeOutcome.COMPLETE, ""
    )
    assert stack[0] is stack[1]


def test_names_of_what_is_gone_are_asked_for_again(names: Names) -> None:
    names.known = {(IDENTITY, 0x40): "early", (OTHER, 0x40): "early"}
    names.of(0x40)
    names.of(0x40, identity=OTHER)
    names.frames.forget(Gone(processes={IDENTITY}))
    names.known = {(IDENTITY, 0x40): "late", (OTHER, 0x40): "late"}
    assert (names.of(0x40), names.of(0x40, identity=OTHER)) == (["late"], ["early"])


def test_loops_of_what_is_gone_are_told_again_and_those_of_others_are_not(names: Names) -> None:
    loop, unreadable = "_PyEval_EvalFrameDefault", naming.UNREADABLE.name
    names.known = {(IDENTITY, 0x40): loop, (OTHER, 0x40): loop}
    for identity in (IDENTITY, OTHER):
        assert names.of(0x40, python=1, identity=identity) == [unreadable, loop]
    names.frames.forget(Gone(processes={IDENTITY}))
    names.known = {(IDENTITY, 0x40): "main", (OTHER, 0x40): "main"}
    assert names.of(0x40, python=1) == ["main", unreadable]
    assert names.of(0x40, python=1, identity=OTHER) == [unreadable, loop]


def test_equal_frames_of_stacks_are_one_object(sampled: Sampled) -> None:
    stack = stack_event(entry_frame(0), native_frame(0x40), native_frame(LOOP))
    first, second = (sampled.names.stack(stack, Outcome.COMPLETE, NativeOutcome.COMPLETE, "") for _ in range(2))
    assert all(frame is same for frame, same in zip(first, second, strict=True))
    held = stack_event(python_frame(0), boundary(0x7FFD80), native_frame(0x40, 0x7FFD00), native_frame(0x50, 0x7FFE00))
    first, second = (sampled.names.stack(held, Outcome.COMPLETE, NativeOutcome.COMPLETE, "") for _ in range(2))
    assert first[0].plumbing
    assert first[0] is second[0]


def test_a_code_object_that_is_gone_is_named_by_what_came_again() -> None:
    codes = CodeTable(FakeMemory().read)
    names = FrameNames(codes, lambda *_: None, name_kernel_address)
    gone = Gone(codes={CODE_ID})
    for name in ("early", "late"):
        codes.add(code_event(name=name), LAYOUT)
        codes.add(code_event(name=name, code_id=5), LAYOUT)
        stack = names.stack(
            stack_event(python_frame(), python_frame(code_id=5)), Outcome.COMPLETE, NativeOutcome.NONE, ""
        )
        codes.forget(gone)
        names.forget(gone)
    assert [frame.name for frame in stack] == ["early", "late"]


@pytest.mark.parametrize(("maximum", "asked"), [(1, 1), (0, 2)])
def test_names_begin_anew_when_there_are_more_than_are_kept(
    names: Names, monkeypatch: pytest.MonkeyPatch, maximum: int, asked: int
) -> None:
    monkeypatch.setattr(naming, "NAMES_MAX", maximum)
    names.known[IDENTITY, 0x40] = "f"
    for _ in range(2):
        names.of(0x40)
        names.frames.bound()
    assert len(names.asked) == asked


@pytest.mark.parametrize(("maximum", "asked"), [(6, 1), (5, 2)])
def test_names_of_all_kinds_count_for_what_is_kept(
    names: Names, monkeypatch: pytest.MonkeyPatch, maximum: int, asked: int
) -> None:
    """Two of each kind: kernel addresses, positions in code objects, native addresses of two processes."""
    monkeypatch.setattr(naming, "NAMES_MAX", maximum)
    names.codes.add(code_event(), LAYOUT)
    names.known = {(IDENTITY, 0x40): "f", (OTHER, 0x40): "f"}
    kernel_and_python = [kernel_frame(0xF1), kernel_frame(0xF2), python_frame(0), python_frame(4)]
    event = stack_event(*kernel_and_python, native_frame(0x40))
    names.of(0x40, identity=OTHER)
    for _ in range(2):
        names.frames.stack(event, Outcome.COMPLETE, NativeOutcome.COMPLETE, "")
        names.frames.bound()
    assert names.asked.count((IDENTITY, 0x40)) == asked


# ---- marks ----


@pytest.mark.parametrize(
    "outcome", [Outcome.NO_THREAD_STATE, Outcome.UNREADABLE_THREAD_STATE, Outcome.UNREADABLE_FRAME, Outcome.TOO_DEEP]
)
def test_truncated_stack_says_at_its_root_what_is_missing(sampled: Sampled, outcome: Outcome) -> None:
    sampled.add_stack(python_frame(0))
    assert sampled.stack(outcome) == (Frame(FrameKind.MARK, f"[truncated: {outcome.value}]"), parse_at(11))


@pytest.mark.parametrize("outcome", [outcome for outcome in NativeOutcome if outcome.cut_short])
def test_native_stack_that_is_cut_short_says_at_its_root_why(outcome: NativeOutcome) -> None:
    sampled = Sampled()
    sampled.add_stack(native_frame(0x40))
    assert sampled.stack(Outcome.NOT_PYTHON, NOT_PYTHON, outcome) == (NATIVE_GAPS[outcome], native("native_40"))


@pytest.mark.parametrize("outcome", [NativeOutcome.COMPLETE, NativeOutcome.NONE])
def test_native_stack_that_is_whole_or_was_not_wanted_is_not_marked(outcome: NativeOutcome) -> None:
    sampled = Sampled()
    sampled.add_stack(native_frame(0x40))
    assert sampled.stack(Outcome.NOT_PYTHON, NOT_PYTHON, outcome) == (native("native_40"),)


def test_gaps_of_both_kinds_are_both_said() -> None:
    sampled = Sampled()
    sampled.add_stack(native_frame(0x40))
    stack = sampled.stack(Outcome.UNREADABLE_FRAME, native=NativeOutcome.UNREADABLE)
    truncated = Frame(FrameKind.MARK, "[truncated: frame unreadable]")
    assert stack == (truncated, NATIVE_GAPS[NativeOutcome.UNREADABLE], native("native_40"))
