"""What comes is kept in its store, and what was forgotten is taken in again."""

from __future__ import annotations

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.stacks.collected import Collected
from tests.stacks.records import (
    CODE_ID,
    IDENTITY,
    LAYOUT,
    STACK_ID,
    WHOLE,
    FakeMemory,
    code_event,
    count,
    native_frame,
    python_frame,
    stack_event,
)


def test_a_code_object_that_was_forgotten_a_moment_ago_is_read_from_its_process() -> None:
    collected = Collected(FakeMemory(WHOLE).read, limit=1)
    collected.add_stack(stack_event(python_frame()), LAYOUT)
    collected.settle()
    assert CODE_ID in collected.codes


def test_a_code_object_that_is_known_is_not_read_for_a_new_stack() -> None:
    memory = FakeMemory(WHOLE)
    collected = Collected(memory.read, limit=1)
    collected.add_code(code_event(), LAYOUT)
    collected.add_stack(stack_event(python_frame()), LAYOUT)
    collected.settle()
    assert memory.reads == 0


def test_a_code_object_that_was_read_is_in_use() -> None:
    """It is not read again, and is forgotten with its samples."""
    collected = Collected(FakeMemory(WHOLE).read, limit=1)
    collected.kept.begin_segment(0.0)
    collected.codes.read_later(stack_event(python_frame()), LAYOUT)
    collected.settle()
    assert [collected.make_room(), collected.kept.begin_segment(1.0), collected.kept.add_codes({CODE_ID})][2] == set()


def test_a_stack_that_is_sent_again_stays_as_it_is() -> None:
    collected = Collected(FakeMemory().read)
    collected.add_stack(stack_event(native_frame(0x40)), LAYOUT)
    collected.finish_stack(STACK_ID, [(0x50, 0)], NativeOutcome.COMPLETE)
    whole = collected.kept.stack(STACK_ID)
    collected.add_stack(stack_event(native_frame(0x40)), LAYOUT)
    assert collected.kept.stack(STACK_ID) == whole == stack_event(native_frame(0x40), native_frame(0x50))


def test_nothing_is_read_for_a_stack_that_is_sent_again() -> None:
    memory = FakeMemory(WHOLE)
    collected = Collected(memory.read)
    for _ in range(2):
        collected.add_stack(stack_event(python_frame()), LAYOUT)
    collected.settle()
    assert memory.reads == 0


def test_a_code_object_that_came_is_in_use() -> None:
    collected = Collected(FakeMemory().read, limit=1)
    collected.kept.begin_segment(0.0)
    collected.add_code(code_event(), LAYOUT)
    assert collected.make_room() == Gone()
    collected.kept.begin_segment(1.0)
    collected.add_counts(1, [count()])
    assert collected.make_room() == Gone(codes={CODE_ID})


def test_frames_of_a_stack_that_never_came_are_dropped_with_the_oldest_samples() -> None:
    collected = Collected(FakeMemory().read, limit=1)
    collected.finish_stack(STACK_ID, [(0x50, 0)], NativeOutcome.COMPLETE)
    collected.kept.begin_segment(0.0)
    assert collected.make_room() == Gone()
    collected.add_stack(stack_event(native_frame(0x40)), LAYOUT)
    assert collected.kept.stack(STACK_ID) == stack_event(native_frame(0x40))


def test_frames_of_a_stack_that_is_to_come_wait_until_the_limit_is_reached() -> None:
    collected = Collected(FakeMemory().read, limit=10**6)
    collected.finish_stack(STACK_ID, [(0x50, 0)], NativeOutcome.COMPLETE)
    assert collected.make_room() is None
    collected.add_stack(stack_event(native_frame(0x40)), LAYOUT)
    assert collected.kept.stack(STACK_ID) == stack_event(native_frame(0x40), native_frame(0x50))


def test_samples_are_counted_from_the_beginning_of_the_recording() -> None:
    collected = Collected(FakeMemory().read, limit=1)
    for second in range(3):
        collected.kept.begin_segment(second)
        collected.add_counts(second, [count(samples=2), count(samples=3, tid=1)])
        collected.make_room()
    assert collected.samples == 15
    assert [segment.begin for segment in collected.kept.segments] == [2]


def test_what_is_gone_is_forgotten() -> None:
    collected = Collected(FakeMemory().read)
    collected.add_code(code_event(), LAYOUT)
    collected.add_thread(IDENTITY, 7, "worker")
    assert (CODE_ID in collected.codes, collected.threads.get(IDENTITY, 7)) == (True, "worker")
    collected.forget(Gone(codes={CODE_ID}, threads={(IDENTITY, 7)}))
    assert (CODE_ID in collected.codes, collected.threads.get(IDENTITY, 7)) == (False, "")


def test_a_thread_whose_name_came_is_in_use() -> None:
    collected = Collected(FakeMemory().read, limit=1)
    collected.kept.begin_segment(0.0)
    collected.add_thread(IDENTITY, 7, "worker")
    assert collected.make_room() == Gone()
    collected.kept.begin_segment(1.0)
    collected.add_counts(1, [count()])
    assert collected.make_room() == Gone(threads={(IDENTITY, 7)})
