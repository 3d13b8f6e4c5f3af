"""Code objects as they come, and what is read from a process that still lives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyflame_ebpf.cpython.code_objects import LINE_TABLE_MAX
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, FrameKind
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.stacks.code_table import CodeTable
from tests.stacks.records import (
    CODE_ID,
    EVERYTHING,
    LAYOUT,
    LINES,
    TABLE_ADDRESS,
    WHOLE,
    FakeMemory,
    Sampled,
    bytes_object,
    code_event,
    native_frame,
    parse_at,
    python_frame,
    stack_event,
)


def described(codes: CodeTable, code_id: int = CODE_ID) -> tuple[str, str, int, int] | None:
    """Name, file, first line, and the line at byte 4."""
    code = codes.get(code_id)
    return (code.name, code.file, code.first_line, code.line_at(4)) if code else None


PARSE = ("parse", "app.py", 10, 13)


@pytest.mark.parametrize("missing", range(EVERYTHING + 1))
def test_what_the_walker_could_not_copy_is_read_from_the_process(missing: int) -> None:
    codes = CodeTable(FakeMemory(WHOLE).read)
    codes.add(code_event(missing), LAYOUT)
    assert described(codes) == PARSE
    assert (codes.unnamed, codes.without_lines) == (0, 0)


def test_nothing_is_read_of_a_code_object_that_was_copied_whole() -> None:
    memory = FakeMemory(WHOLE)
    CodeTable(memory.read).add(code_event(), LAYOUT)
    assert memory.reads == 0


def test_what_nobody_could_read_is_said_and_counted() -> None:
    codes = CodeTable(FakeMemory().read)
    codes.add(code_event(EVERYTHING), LAYOUT)
    assert described(codes) == ("[unreadable name]", "", 10, 0)
    assert (codes.unnamed, codes.without_lines) == (1, 1)


@pytest.mark.parametrize(
    ("missing", "counted"), [(abi.CODE_NO_NAME, (1, 0)), (abi.CODE_NO_FILE, (0, 0)), (abi.CODE_NO_LINE_TABLE, (0, 1))]
)
def test_each_part_that_nobody_could_read_is_counted_by_itself(missing: int, counted: tuple[int, int]) -> None:
    codes = CodeTable(FakeMemory().read)
    codes.add(code_event(missing), LAYOUT)
    codes.add(code_event(missing, code_id=CODE_ID + 1), LAYOUT)
    assert (codes.unnamed, codes.without_lines) == (2 * counted[0], 2 * counted[1])


def test_line_table_that_claims_to_be_huge_is_not_read() -> None:
    huge = bytearray(bytes_object(LINES))
    huge[LAYOUT.bytes_size : LAYOUT.bytes_size + 8] = (LINE_TABLE_MAX + 1).to_bytes(8, "little")
    codes = CodeTable(FakeMemory(WHOLE | {TABLE_ADDRESS: bytes(huge)}).read)
    codes.add(code_event(abi.CODE_NO_LINE_TABLE), LAYOUT)
    assert codes.without_lines == 1


def test_code_object_is_kept_as_it_was_first_met() -> None:
    codes = CodeTable(FakeMemory().read)
    codes.add(code_event(), LAYOUT)
    codes.add(code_event(name="other"), LAYOUT)
    assert described(codes) == PARSE


def test_a_null_address_is_not_read() -> None:
    memory = FakeMemory()
    codes = CodeTable(memory.read)
    codes.add(replace(code_event(abi.CODE_NO_NAME | abi.CODE_NO_FILE), name_address=0, file_address=0), LAYOUT)
    assert memory.reads == 0


# ---- code objects that were not sent ----


def test_end_of_a_native_frame_is_not_taken_for_a_code_object() -> None:
    memory = FakeMemory(WHOLE)
    codes = CodeTable(memory.read)
    codes.read_later(stack_event(native_frame(0x40, 0x7FFD00)), LAYOUT)
    assert codes.settle() == set()
    assert memory.reads == 0


def test_a_frame_without_a_code_object_is_not_read() -> None:
    memory = FakeMemory(WHOLE)
    codes = CodeTable(memory.read)
    codes.read_later(stack_event(python_frame(code_id=0)), LAYOUT)
    assert codes.settle() == set()
    assert memory.reads == 0


def test_code_object_that_was_not_sent_is_read_from_the_process_while_it_lives() -> None:
    codes = CodeTable(FakeMemory(WHOLE).read)
    codes.read_later(stack_event(python_frame()), LAYOUT)
    assert described(codes) is None
    assert codes.settle() == {CODE_ID}
    assert described(codes) == PARSE


def test_code_object_is_read_once_for_all_stacks_that_lack_it() -> None:
    memory = FakeMemory(WHOLE)
    codes = CodeTable(memory.read)
    codes.read_later(stack_event(python_frame()), LAYOUT)
    codes.settle()
    reads = memory.reads
    codes.read_later(stack_event(python_frame(), stack_id=2), LAYOUT)
    assert codes.settle() == set()
    assert memory.reads == reads > 0


def test_a_stack_is_settled_once() -> None:
    codes = CodeTable(FakeMemory(WHOLE).read)
    codes.read_later(stack_event(python_frame()), LAYOUT)
    codes.settle()
    codes.forget(Gone(codes={CODE_ID}))
    assert codes.settle() == set()


def test_stack_that_comes_before_its_code_object_waits_for_it() -> None:
    memory = FakeMemory()
    sampled = Sampled(memory.read)
    sampled.add_stack(python_frame())
    sampled.collected.settle()
    sampled.add_parse()
    assert sampled.stack() == (parse_at(11),)
    assert memory.reads == 0


def test_end_of_the_recording_settles_every_stack() -> None:
    sampled = Sampled(FakeMemory(WHOLE).read)
    sampled.add_stack(python_frame(4), unsent=True)
    assert sampled.stack() == (parse_at(13),)


def test_code_object_of_a_process_without_layout_is_marked() -> None:
    sampled = Sampled(FakeMemory(WHOLE).read)
    sampled.collected.add_stack(stack_event(python_frame(), unsent=True), None)
    assert sampled.stack() == (Frame(FrameKind.MARK, "[unreadable code object]"),)


# ---- forgetting ----


def test_a_code_object_that_is_gone_is_taken_in_again() -> None:
    codes = CodeTable(FakeMemory().read)
    codes.add(code_event(), LAYOUT)
    codes.add(code_event(code_id=5), LAYOUT)
    codes.forget(Gone(codes={CODE_ID, 999}, processes={Identity(1, 2, 3)}))
    assert (CODE_ID in codes, 5 in codes) == (False, True)
    codes.add(code_event(name="again"), LAYOUT)
    assert described(codes) == ("again", "app.py", 10, 13)
