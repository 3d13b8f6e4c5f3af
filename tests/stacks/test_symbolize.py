"""Raw records to a Profile, with made-up processes: their memory is a dict of bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.cpython.code_objects import LINE_TABLE_MAX, NAME_MAX, byte_offset, decode_str
from pyflame_ebpf.cpython.layout import InstructionKind
from pyflame_ebpf.cpython.rows import LAYOUTS
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import (
    NATIVE_GAPS,
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Recording,
    SampleKey,
    Thread,
)
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import CodeEvent, Count, StackEvent
from pyflame_ebpf.stacks import symbolize
from pyflame_ebpf.stacks.symbolize import Symbolizer
from tests.profiles import framed_stacks

LAYOUT = LAYOUTS[3, 9]
IDENTITY = Identity(start=10**9, tgid=4242, exec_id=1)
OTHER = Identity(start=2 * 10**9, tgid=17, exec_id=0)
RECORDING = Recording(started=0.0, duration=2.0, frequency=99, cpus=4)
PYTHON = Process(4242, "app", interpreter="CPython 3.9.18")
NOT_PYTHON = Process(4242, "nginx")

CODE_ID, CODE_ADDRESS, STACK_ID = 0x1001, 0x7F0000001000, 77
NAME_ADDRESS, FILE_ADDRESS, TABLE_ADDRESS = 0x7F0000002000, 0x7F0000003000, 0x7F0000004000
LINES = bytes([0, 1, 4, 2])  # co_lnotab: the second line from byte 0, the fourth from byte 4
EVERYTHING = abi.CODE_NO_NAME | abi.CODE_NO_FILE | abi.CODE_NO_LINE_TABLE


# ---- what a process has in its memory ----


def str_object(text: str, layout=LAYOUT) -> bytes:
    """A compact str object as the interpreter makes it (PEP 393)."""
    largest = max(map(ord, text), default=0)
    kind = 1 if largest < 0x100 else 2 if largest < 0x10000 else 4
    is_ascii = largest < 0x80
    header = bytearray(layout.str_ascii_data if is_ascii else layout.str_compact_data)
    header[layout.str_length : layout.str_length + 8] = len(text).to_bytes(8, "little")
    header[layout.str_state] = (
        kind << layout.str_kind_shift | 1 << layout.str_compact_shift | is_ascii << layout.str_ascii_shift
    )
    return bytes(header) + b"".join(ord(character).to_bytes(kind, "little") for character in text)


def bytes_object(contents: bytes) -> bytes:
    header = bytearray(LAYOUT.bytes_value)
    header[LAYOUT.bytes_size : LAYOUT.bytes_size + 8] = len(contents).to_bytes(8, "little")
    return bytes(header) + contents


def code_object(first_line: int) -> bytes:
    memory = bytearray(256)
    for offset, value, size in (
        (LAYOUT.code_name, NAME_ADDRESS, 8),
        (LAYOUT.code_filename, FILE_ADDRESS, 8),
        (LAYOUT.code_line_table, TABLE_ADDRESS, 8),
        (LAYOUT.code_first_line, first_line, 4),
    ):
        memory[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(memory)


class FakeMemory:
    """Objects by address, padded as by what lies behind them; ``reads`` counts the calls."""

    def __init__(self, objects: dict[int, bytes]) -> None:
        self._objects = {address: contents + bytes(64) for address, contents in objects.items()}
        self.reads = 0

    def read(self, identity: Identity, address: int, size: int) -> bytes:
        self.reads += 1
        assert identity == IDENTITY
        for start, contents in self._objects.items():
            if start <= address and address + size <= start + len(contents):
                return contents[address - start : address - start + size]
        return b""


WHOLE = {
    CODE_ADDRESS: code_object(10),
    NAME_ADDRESS: str_object("parse"),
    FILE_ADDRESS: str_object("app.py"),
    TABLE_ADDRESS: bytes_object(LINES),
}


def code_event(missing: int = 0, **changes) -> CodeEvent:
    """``def parse`` at app.py:10, of which parts may be missing."""
    parts = {
        "identity": IDENTITY,
        "layout": 0,
        "code_id": CODE_ID,
        "address": CODE_ADDRESS,
        "name_address": NAME_ADDRESS,
        "file_address": FILE_ADDRESS,
        "line_table_address": TABLE_ADDRESS,
        "first_line": 10,
        "missing": missing,
        "name": b"" if missing & abi.CODE_NO_NAME else str_object("parse"),
        "file": b"" if missing & abi.CODE_NO_FILE else str_object("app.py"),
        "line_table": b"" if missing & abi.CODE_NO_LINE_TABLE else LINES,
    }
    return CodeEvent(**parts | changes)


def python_frame(position: int = 0, code_id: int = CODE_ID) -> tuple[int, int, int, int]:
    return CODE_ADDRESS, code_id, position, abi.FRAME_PYTHON


def stack_event(*frames: tuple[int, int, int, int], stack_id: int = STACK_ID, unsent: bool = False) -> StackEvent:
    return StackEvent(IDENTITY, stack_id, unsent, b"".join(bytes(abi.StackFrame(*frame)) for frame in frames))


def count(outcome: Outcome = Outcome.COMPLETE, samples: int = 1, **changes) -> Count:
    parts = {
        "identity": IDENTITY,
        "tid": 4242,
        "stack_id": STACK_ID,
        "outcome": abi.OUTCOMES.index(outcome),
        "gil": abi.GIL_STATES.index(Gil.HELD),
        "kernel_mode": False,
        "native": abi.NATIVE_OUTCOMES.index(NativeOutcome.NONE),
        "samples": samples,
    }
    return Count(**parts | changes)


LOOP, GREENLET, CARRIER = 0x100, 0x200, 0x300
NATIVE_NAMES = {LOOP: "_PyEval_EvalFrameDefault", GREENLET: "g_initialstub", CARRIER: "type_call"}


def name_address(identity: Identity, address: int) -> Frame | None:
    if address >= 0x10000:
        return None
    return native(NATIVE_NAMES.get(address, f"native_{address:x}"), plumbing=address in (LOOP, CARRIER))


def native(name: str, *, plumbing: bool = False) -> Frame:
    return Frame(FrameKind.NATIVE, name, plumbing=plumbing)


def native_frame(address: int, end: int = 0) -> tuple[int, int, int, int]:
    """As it was walked: its frame on the C stack ends there."""
    return address, end, 0, abi.FRAME_NATIVE


def boundary(place: int) -> tuple[int, int, int, int]:
    return place, 0, 0, abi.FRAME_BOUNDARY


def entry_frame(position: int = 0) -> tuple[int, int, int, int]:
    return CODE_ADDRESS, CODE_ID, position, abi.FRAME_PYTHON | abi.FRAME_ENTRY


def name_kernel_address(address: int) -> Frame:
    return Frame(FrameKind.KERNEL, f"kernel_{address:x}")


def symbolizer(objects: dict[int, bytes] | None = None) -> Symbolizer:
    return Symbolizer(FakeMemory(objects or {}).read, name_address, name_kernel_address)


def the_stack(
    symbols: Symbolizer,
    outcome: Outcome = Outcome.COMPLETE,
    process: Process = PYTHON,
    native: NativeOutcome = NativeOutcome.NONE,
):
    """The only stack of the profile, after one sample of it."""
    symbols.add_counts(0, [count(outcome, native=abi.NATIVE_OUTCOMES.index(native))])
    (stack,) = framed_stacks(symbols.profile(RECORDING, {IDENTITY: process}))
    return stack


def parse_at(line: int) -> Frame:
    return Frame(FrameKind.PYTHON, "parse", "app.py", 10, line)


# ---- strings ----


@pytest.mark.parametrize("release", LAYOUTS)
@pytest.mark.parametrize("text", ["", "parse", "é", "名前", "näme😀.py", "\udce9 surrogate", "\ud83d\ue000"])
def test_str_object_of_every_width_is_decoded(release, text: str) -> None:
    layout = LAYOUTS[release]
    assert decode_str(layout, str_object(text, layout)) == text


@given(st.text(st.characters(codec="utf-16", exclude_categories=["Cs"]) | st.characters(max_codepoint=0xFF)))
def test_any_text_survives(text: str) -> None:
    assert decode_str(LAYOUT, str_object(text)) == text


@given(st.binary(max_size=200))
def test_memory_that_is_no_str_gives_text_or_none(data: bytes) -> None:
    assert isinstance(decode_str(LAYOUT, data), str | None)


@given(st.sampled_from([1, 2, 4]), st.binary(max_size=64))
def test_any_characters_behind_a_right_header_are_decoded(kind, characters: bytes) -> None:
    header = bytearray(str_object("\u0100"))[: LAYOUT.str_compact_data]
    length = len(characters) // kind
    header[LAYOUT.str_length : LAYOUT.str_length + 8] = length.to_bytes(8, "little")
    header[LAYOUT.str_state] = kind << LAYOUT.str_kind_shift | 1 << LAYOUT.str_compact_shift
    assert isinstance(decode_str(LAYOUT, bytes(header) + characters), str)


def test_incomplete_str_object_is_not_decoded() -> None:
    assert decode_str(LAYOUT, str_object("parse")[:-1]) is None


def test_str_longer_than_any_name_is_not_decoded() -> None:
    assert decode_str(LAYOUT, str_object("x" * (NAME_MAX + 1))) is None


# ---- positions ----


@pytest.mark.parametrize(
    ("release", "kind", "position", "offset"),
    [
        ((3, 9), InstructionKind.LASTI_BYTES, 6, 6),
        ((3, 9), InstructionKind.LASTI_BYTES, -1, -1),
        ((3, 10), InstructionKind.LASTI_UNITS, 6, 12),
        ((3, 12), InstructionKind.PREV_INSTR, LAYOUTS[3, 12].code_instructions + 8, 8),
        ((3, 12), InstructionKind.PREV_INSTR, LAYOUTS[3, 12].code_instructions - 2, -2),
    ],
)
def test_position_becomes_a_byte_offset(release: tuple[int, ...], kind: InstructionKind, position, offset: int) -> None:
    assert LAYOUTS[release].instruction_kind == kind
    assert byte_offset(LAYOUTS[release], position) == offset


@pytest.mark.parametrize(("position", "line"), [(0, 11), (2, 11), (4, 13), (400, 13), (-1, 10)])
def test_frame_has_the_line_of_its_position_and_before_the_first_instruction_the_first_line(
    position: int, line: int
) -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_stack(stack_event(python_frame(position)), LAYOUT)
    assert the_stack(symbols) == (parse_at(line),)


# ---- code objects ----


@pytest.mark.parametrize("missing", range(EVERYTHING + 1))
def test_what_the_walker_could_not_copy_is_read_from_the_process(missing: int) -> None:
    symbols = symbolizer(WHOLE)
    symbols.add_code(code_event(missing), LAYOUT)
    symbols.add_stack(stack_event(python_frame(4)), LAYOUT)
    assert the_stack(symbols) == (parse_at(13),)
    assert (symbols.unnamed_codes, symbols.codes_without_lines) == (0, 0)


def test_nothing_is_read_of_a_code_object_that_was_copied_whole() -> None:
    memory = FakeMemory(WHOLE)
    symbols = Symbolizer(memory.read, name_address, name_kernel_address)
    symbols.add_code(code_event(), LAYOUT)
    assert memory.reads == 0


def test_what_nobody_could_read_is_said_and_counted() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(EVERYTHING), LAYOUT)
    symbols.add_stack(stack_event(python_frame(4)), LAYOUT)
    assert the_stack(symbols) == (Frame(FrameKind.PYTHON, "[unreadable name]", "", 10, 0),)
    assert (symbols.unnamed_codes, symbols.codes_without_lines) == (1, 1)


def test_line_table_that_claims_to_be_huge_is_not_read() -> None:
    huge = bytearray(bytes_object(LINES))
    huge[LAYOUT.bytes_size : LAYOUT.bytes_size + 8] = (LINE_TABLE_MAX + 1).to_bytes(8, "little")
    symbols = symbolizer(WHOLE | {TABLE_ADDRESS: bytes(huge)})
    symbols.add_code(code_event(abi.CODE_NO_LINE_TABLE), LAYOUT)
    assert symbols.codes_without_lines == 1


def test_code_object_is_kept_as_it_was_first_met() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_code(code_event(name=str_object("other")), LAYOUT)
    symbols.add_stack(stack_event(python_frame(0)), LAYOUT)
    assert the_stack(symbols) == (parse_at(11),)


# ---- stacks ----


KERNEL_FRAME = (0xFFFF, 0, 0, abi.FRAME_KERNEL)


def test_frames_of_all_kinds_are_woven_outermost_first() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    python_frames = [python_frame(0), boundary(0x7FFD00), python_frame(4), boundary(0x7FFF00)]
    native_frames = [(0x40, 0x7FFC00), (LOOP, 0x7FFE00), (CARRIER, 0x7FFE80), (LOOP, 0x7FFF80), (0x50, 0x7FFF90)]
    symbols.add_stack(stack_event(KERNEL_FRAME, *python_frames, *(native_frame(*it) for it in native_frames)), LAYOUT)
    stack = the_stack(symbols, native=NativeOutcome.COMPLETE)
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


def shown(stack) -> list[str | int]:
    """Native names and Python lines of what is not plumbing, outermost first."""
    return [frame.line or frame.name for frame in stack if not frame.plumbing]


def test_older_releases_are_woven_by_the_names_of_the_evaluation_loop() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    native_frames = map(native_frame, (LOOP, 0x40, LOOP, 0x50, LOOP, 0x60))
    symbols.add_stack(stack_event(entry_frame(0), entry_frame(4), *native_frames), LAYOUT)
    assert shown(the_stack(symbols, native=NativeOutcome.COMPLETE)) == ["native_60", 13, "native_50", 11, "native_40"]


def test_greenlet_s_frames_end_where_its_stack_begins() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_stack(stack_event(entry_frame(0), *map(native_frame, (0x40, LOOP, GREENLET, 0x50, LOOP, 0x60))), LAYOUT)
    stack = the_stack(symbols, native=NativeOutcome.COMPLETE)
    assert shown(stack) == ["native_60", "native_50", "g_initialstub", 11, "native_40"]


@pytest.mark.parametrize(
    ("outcome", "native_outcome"),
    [(Outcome.TOO_DEEP, NativeOutcome.COMPLETE), (Outcome.COMPLETE, NativeOutcome.PAGE_MISS)],
)
def test_walk_that_broke_off_is_woven_from_the_leaf(outcome: Outcome, native_outcome: NativeOutcome) -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_stack(stack_event(entry_frame(0), *map(native_frame, (0x40, LOOP, 0x50, LOOP, 0x60))), LAYOUT)
    mark, *rest = the_stack(symbols, outcome, native=native_outcome)
    assert mark.kind is FrameKind.MARK
    assert shown(rest) == ["native_60", "native_50", 11, "native_40"]


def test_call_that_holds_python_frames_is_plumbing_whatever_it_is_called() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    frames = [python_frame(0), boundary(0x7FFD80), native_frame(0x40, 0x7FFD00), native_frame(0x50, 0x7FFE00)]
    symbols.add_stack(stack_event(*frames, native_frame(0x60, 0x7FFF00)), LAYOUT)
    assert shown(the_stack(symbols, native=NativeOutcome.COMPLETE)) == ["native_60", 11, "native_40"]


def test_unnamed_functions_of_the_interpreter_are_shown_only_where_they_are_the_work() -> None:
    def in_file(identity, address):
        file = "/lib/extension.so" if address == 0x60 else "/bin/python"
        return Frame(FrameKind.NATIVE, f"{file}+{address:#x}", file)

    symbols = Symbolizer(FakeMemory({}).read, in_file, name_kernel_address)
    symbols.add_code(code_event(), LAYOUT)
    native_frames = [native_frame(0x40, 0x7FFD00), native_frame(0x50, 0x7FFE00), native_frame(0x60, 0x7FFE40)]
    frames = [python_frame(0), boundary(0x7FFD80), *native_frames, native_frame(0x70, 0x7FFF00)]
    symbols.add_stack(stack_event(*frames), LAYOUT)
    process = replace(PYTHON, interpreter_file="/bin/python")
    names = shown(the_stack(symbols, process=process, native=NativeOutcome.COMPLETE))
    assert names == ["/lib/extension.so+0x60", 11, "/bin/python+0x40"]


def test_address_without_code_is_shown_as_a_number() -> None:
    symbols = symbolizer()
    symbols.add_stack(stack_event(*map(native_frame, (0x40, 0xDEAD0000, 0x60))), None)
    names = [frame.name for frame in the_stack(symbols, Outcome.NOT_PYTHON, NOT_PYTHON, NativeOutcome.COMPLETE)]
    assert names == ["native_60", "0xdead0000", "native_40"]


def test_native_addresses_are_named_at_the_end_and_once() -> None:
    asked = []

    def name(identity: Identity, address: int) -> Frame:
        asked.append((identity, address))
        return native("f")

    symbols = Symbolizer(FakeMemory({}).read, name, name_kernel_address)
    symbols.add_stack(stack_event(native_frame(0x40, 0x7FFD00), native_frame(0x40, 0x7FFE00), native_frame(0x50)), None)
    assert asked == []
    the_stack(symbols, Outcome.NOT_PYTHON, NOT_PYTHON, NativeOutcome.COMPLETE)
    assert sorted(asked, key=lambda place: place[1]) == [(IDENTITY, 0x40), (IDENTITY, 0x50)]


def test_end_of_a_native_frame_is_not_taken_for_a_code_object() -> None:
    memory = FakeMemory(WHOLE)
    symbols = Symbolizer(memory.read, name_address, name_kernel_address)
    symbols.add_stack(stack_event(native_frame(0x40, 0x7FFD00), unsent=True), LAYOUT)
    symbols.settle()
    assert memory.reads == 0


def test_code_object_that_could_not_be_identified_is_marked_in_its_place() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_stack(stack_event(python_frame(0), python_frame(0, code_id=0)), LAYOUT)
    stack = the_stack(symbols, Outcome.UNREADABLE_CODE)
    assert stack == (Frame(FrameKind.MARK, "[unreadable code object]"), parse_at(11))


def test_stack_that_comes_before_its_code_object_waits_for_it() -> None:
    memory = FakeMemory({})
    symbols = Symbolizer(memory.read, name_address, name_kernel_address)
    symbols.add_stack(stack_event(python_frame(0)), LAYOUT)
    symbols.settle()
    symbols.add_code(code_event(), LAYOUT)
    assert the_stack(symbols) == (parse_at(11),)
    assert memory.reads == 0


def test_code_object_that_was_not_sent_is_read_from_the_process_while_it_lives() -> None:
    memory = FakeMemory(WHOLE)
    symbols = Symbolizer(memory.read, name_address, name_kernel_address)
    symbols.add_stack(stack_event(python_frame(4), unsent=True), LAYOUT)
    symbols.settle()
    assert memory.reads > 0
    assert the_stack(symbols) == (parse_at(13),)


def test_code_object_is_read_once_for_all_stacks_that_lack_it() -> None:
    memory = FakeMemory(WHOLE)
    symbols = Symbolizer(memory.read, name_address, name_kernel_address)
    symbols.add_stack(stack_event(python_frame(4), unsent=True), LAYOUT)
    symbols.settle()
    reads = memory.reads
    symbols.add_stack(stack_event(python_frame(4), stack_id=2, unsent=True), LAYOUT)
    symbols.settle()
    assert memory.reads == reads


def test_end_of_the_recording_settles_every_stack() -> None:
    symbols = symbolizer(WHOLE)
    symbols.add_stack(stack_event(python_frame(4), unsent=True), LAYOUT)
    assert the_stack(symbols) == (parse_at(13),)


def test_code_object_of_a_process_without_layout_is_marked() -> None:
    symbols = symbolizer(WHOLE)
    symbols.add_stack(stack_event(python_frame(4)), None)
    assert the_stack(symbols) == (symbolize.UNREADABLE,)


# ---- outcomes ----


@pytest.mark.parametrize(
    "outcome", [Outcome.NO_THREAD_STATE, Outcome.UNREADABLE_THREAD_STATE, Outcome.UNREADABLE_FRAME, Outcome.TOO_DEEP]
)
def test_truncated_stack_says_at_its_root_what_is_missing(outcome: Outcome) -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_stack(stack_event(python_frame(0)), LAYOUT)
    assert the_stack(symbols, outcome) == (Frame(FrameKind.MARK, f"[truncated: {outcome.value}]"), parse_at(11))


@pytest.mark.parametrize("outcome", [outcome for outcome in NativeOutcome if outcome.cut_short])
def test_native_stack_that_is_cut_short_says_at_its_root_why(outcome) -> None:
    symbols = symbolizer()
    symbols.add_stack(stack_event(native_frame(0x40)), None)
    stack = the_stack(symbols, Outcome.NOT_PYTHON, NOT_PYTHON, outcome)
    assert stack == (NATIVE_GAPS[outcome], native("native_40"))


@pytest.mark.parametrize("outcome", [NativeOutcome.COMPLETE, NativeOutcome.NONE])
def test_native_stack_that_is_whole_or_was_not_wanted_is_not_marked(outcome: NativeOutcome) -> None:
    symbols = symbolizer()
    symbols.add_stack(stack_event(native_frame(0x40)), None)
    assert the_stack(symbols, Outcome.NOT_PYTHON, NOT_PYTHON, outcome) == (native("native_40"),)


def test_gaps_of_both_kinds_are_both_said() -> None:
    symbols = symbolizer()
    symbols.add_stack(stack_event(native_frame(0x40)), None)
    first, second, _ = the_stack(symbols, Outcome.UNREADABLE_FRAME, native=NativeOutcome.UNREADABLE)
    assert (first.name, second) == ("[truncated: frame unreadable]", NATIVE_GAPS[NativeOutcome.UNREADABLE])


def test_native_outcomes_of_one_stack_are_counted_apart() -> None:
    symbols = symbolizer()
    symbols.add_stack(stack_event(native_frame(0x40)), None)
    symbols.add_counts(0, [count(Outcome.NOT_PYTHON, 3, native=0), count(Outcome.NOT_PYTHON, 2, native=3)])
    profile = symbols.profile(RECORDING, {IDENTITY: NOT_PYTHON})
    assert profile.native_outcomes() == {NativeOutcome.COMPLETE: 3, NativeOutcome.PAGE_MISS: 2}
    assert [len(stack) for stack in profile.stacks] == [1, 2]


@pytest.mark.parametrize(("process", "outcome"), [(PYTHON, Outcome.NOT_IDENTIFIED), (NOT_PYTHON, Outcome.NOT_PYTHON)])
def test_sample_taken_before_identification_is_truncated_only_in_a_python_process(process, outcome: Outcome) -> None:
    symbols = symbolizer()
    symbols.add_stack(stack_event((0x40, 0, 0, abi.FRAME_NATIVE)), None)
    symbols.add_counts(0, [count(Outcome.NOT_IDENTIFIED)])
    profile = symbols.profile(RECORDING, {IDENTITY: process})
    assert profile.outcomes() == {outcome: 1}
    is_marked = profile.frames_of(0)[0].kind is FrameKind.MARK
    assert is_marked == (outcome is Outcome.NOT_IDENTIFIED)


@pytest.mark.parametrize("outcome", abi.OUTCOMES)
def test_counted_stack_that_never_came_is_lost_and_still_counted(outcome) -> None:
    symbols = symbolizer()
    symbols.add_counts(0, [count(outcome, samples=5)])
    profile = symbols.profile(RECORDING, {IDENTITY: PYTHON})
    assert profile.outcomes() == {Outcome.STACK_LOST: 5}
    assert framed_stacks(profile) == [(Frame(FrameKind.MARK, "[stack lost]"),)]


# ---- counts ----


def test_samples_are_kept_by_second_thread_and_mode() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_stack(stack_event(python_frame(0)), LAYOUT)
    symbols.add_thread(IDENTITY, 4242, "app")
    symbols.add_thread(IDENTITY, 4243, "worker")
    symbols.add_counts(0, [count(samples=3), count(samples=2, tid=4243, gil=0)])
    symbols.add_counts(1, [count(samples=4), count(samples=1, kernel_mode=True), count(samples=5)])
    profile = symbols.profile(RECORDING, {IDENTITY: PYTHON})
    assert profile.threads == [Thread(4242, "app"), Thread(4243, "worker")]
    assert profile.samples == {
        SampleKey(0, 0, 0, 0, False, Gil.HELD, Outcome.COMPLETE): 3,
        SampleKey(0, 0, 1, 0, False, Gil.UNKNOWN, Outcome.COMPLETE): 2,
        SampleKey(1, 0, 0, 0, False, Gil.HELD, Outcome.COMPLETE): 9,
        SampleKey(1, 0, 0, 0, True, Gil.HELD, Outcome.COMPLETE): 1,
    }
    assert symbols.samples == profile.total == 15


def test_process_that_nobody_knows_has_its_pid_at_least() -> None:
    symbols = symbolizer()
    symbols.add_counts(0, [count(identity=OTHER, tid=18)])
    profile = symbols.profile(RECORDING, {})
    assert profile.processes == [Process(17, "?")]
    assert profile.threads == [Thread(18, "")]


def test_stacks_that_are_named_alike_are_one() -> None:
    symbols = symbolizer()
    symbols.add_code(code_event(), LAYOUT)
    for stack_id, position in ((1, 0), (2, 2)):
        symbols.add_stack(stack_event(python_frame(position), stack_id=stack_id), LAYOUT)
        symbols.add_counts(0, [count(stack_id=stack_id)])
    profile = symbols.profile(RECORDING, {IDENTITY: PYTHON})
    assert framed_stacks(profile) == [(parse_at(11),)]
    assert list(profile.samples.values()) == [2]
