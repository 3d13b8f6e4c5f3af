"""Stacks that were cut short by what user space had not said yet, finished from copies of their memory."""

from __future__ import annotations

import struct

import pytest

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.events import StackCopyEvent
from pyflame_ebpf.stacks import unfinished_stacks
from pyflame_ebpf.stacks.unfinished_stacks import FAILURES_MAX, TRIES, UnfinishedStacks
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import CfaKind, RbpKind, UnwindRow
from pyflame_ebpf.unwind.walk import NativeFrame, RowAt, WalkStopped

PROCESS, OTHER = Identity(1, 2, 3), Identity(1, 2, 4)
STACK = 0x7000
NEXT = UnwindRow(0, CfaKind.RSP, 8, RbpKind.SAME, 0)


Finished = tuple[list[NativeFrame], NativeOutcome]


class Process:
    """Code on the first two pages, once it is known."""

    def __init__(self) -> None:
        self.known = True
        self.row = NEXT
        self.asked: list[int] = []
        self.finished: dict[int, Finished] = {}
        self.given_up: list[Identity] = []
        self.stacks = UnfinishedStacks(self.rows_of, self.finish, self.given_up.append)

    def rows_of(self, identity: Identity) -> RowAt:
        assert identity.tgid == PROCESS.tgid

        def row_at(address: int) -> UnwindRow:
            self.asked.append(address)
            if not self.known or address >= 0x2000:
                raise WalkStopped(NativeOutcome.NO_MAPPING)
            return self.row

        return row_at

    def finish(self, stack_id: int, frames: list[NativeFrame], outcome: NativeOutcome) -> None:
        self.finished[stack_id] = frames, outcome

    def copy(self, words: list[int], *, stack_id: int = 9, start: int = STACK, identity: Identity = PROCESS) -> None:
        memory = struct.pack(f"<{len(words)}Q", *words)
        registers = Registers(0x1000, STACK, 0, (), exact=True)
        self.stacks.add(StackCopyEvent(identity, stack_id, registers, start, memory))


@pytest.fixture
def process() -> Process:
    return Process()


def test_a_copied_stack_is_walked_to_its_root(process: Process) -> None:
    process.copy([0x1801, 0])
    process.stacks.finish(1)
    assert process.finished == {9: ([(0x1000, STACK + 8), (0x1800, STACK + 16)], NativeOutcome.COMPLETE)}


def test_a_finished_stack_is_not_walked_again(process: Process) -> None:
    process.copy([0])
    process.stacks.finish(1)
    process.finished.clear()
    process.stacks.finish(1)
    process.stacks.finish_all(1)
    assert not process.finished


def test_parts_of_one_stack_are_put_together(process: Process) -> None:
    process.copy([0x1801])
    process.stacks.finish(1)
    process.copy([0], start=STACK + 8)
    process.stacks.finish(1)
    assert process.finished[9][1] is NativeOutcome.COMPLETE


def test_a_part_that_comes_after_its_stack_was_finished_changes_nothing(process: Process) -> None:
    process.copy([0x1801, 0])
    process.stacks.finish(1)
    process.copy([7, 7], start=STACK + 16)
    process.stacks.finish_all(1)
    assert process.finished[9][1] is NativeOutcome.COMPLETE


def test_a_part_that_does_not_follow_is_not_taken_for_the_next(process: Process) -> None:
    process.copy([0x1801])
    process.copy([0], start=STACK + 16)
    process.stacks.finish_all(1)
    assert process.finished[9][1] is NativeOutcome.UNREADABLE


@pytest.mark.parametrize(
    ("missing", "outcome"), [(0, NativeOutcome.TOO_DEEP), (1, NativeOutcome.UNREADABLE)], ids=["whole copy", "shorter"]
)
def test_a_stack_that_is_longer_than_a_whole_copy_is_too_deep(
    process: Process, missing: int, outcome: NativeOutcome
) -> None:
    process.row = UnwindRow(0, CfaKind.RSP, 4096, RbpKind.SAME, 0)  # so that few frames come to the end of the copy
    process.copy([0x1801] * (unfinished_stacks.WHOLE_COPY // 8 - missing))
    process.stacks.finish_all(1)
    assert process.finished[9][1] is outcome


def test_mappings_that_become_known_later_still_help(process: Process) -> None:
    process.known = False
    process.copy([0])
    process.stacks.finish(1)
    assert not process.finished
    process.known = True
    process.stacks.finish(1)
    assert process.finished[9][1] is NativeOutcome.COMPLETE


def test_a_walk_that_fails_is_given_up_with_the_frames_that_it_found(process: Process) -> None:
    process.copy([0x5000])
    for _ in range(TRIES - 1):
        process.stacks.finish(1)
    assert not process.finished
    process.stacks.finish(1)
    assert process.finished == {9: ([(0x1000, STACK + 8), (0x4FFF, 0)], NativeOutcome.NO_MAPPING)}


def test_what_is_left_is_walked_at_the_end(process: Process) -> None:
    process.known = False
    process.copy([0])
    process.stacks.finish_all(1)
    assert process.finished[9][1] is NativeOutcome.NO_MAPPING


def test_without_time_stacks_wait(process: Process) -> None:
    process.copy([0])
    assert process.stacks.finish(0)
    assert not process.finished
    assert not process.stacks.finish(1)
    assert process.finished


def test_no_copies_are_wanted_of_a_process_whose_stacks_cannot_be_walked(process: Process) -> None:
    process.known = False
    for stack_id in range(FAILURES_MAX):
        process.copy([0], stack_id=stack_id)
    process.stacks.finish_all(1)
    assert process.given_up == [PROCESS]


def test_a_stack_that_was_walked_shows_that_copies_help(process: Process) -> None:
    process.known = False
    for stack_id in range(FAILURES_MAX - 1):
        process.copy([0], stack_id=stack_id)
    process.stacks.finish_all(1)
    process.known = True
    process.copy([0])
    process.stacks.finish_all(1)
    process.known = False
    process.copy([0])
    process.stacks.finish_all(1)
    assert not process.given_up


def test_no_more_is_kept_than_there_is_room_for(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_stacks, "BYTES_MAX", 8)
    process.copy([0, 0], stack_id=1)
    process.copy([0, 0], stack_id=2)
    process.stacks.finish(1)
    assert process.finished.keys() == {1}
    process.copy([0, 0], stack_id=3)
    process.stacks.finish(1)
    assert process.finished.keys() == {1, 3}


def test_the_end_does_not_wait_for_stacks_that_take_too_long(process: Process) -> None:
    process.copy([0])
    process.stacks.finish_all(0)
    process.stacks.finish(1)
    assert not process.finished


def test_a_walk_that_takes_too_long_is_broken_off(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_stacks, "WALK_MAX", 0.0)
    process.copy([0x1801, 0])
    process.stacks.finish_all(1)
    assert process.finished[9] == ([(0x1000, 0)], NativeOutcome.TOO_DEEP)


@pytest.mark.parametrize(("maximum", "taken"), [(15, {1}), (16, {1, 2})])
def test_a_copy_is_taken_until_there_is_more_than_the_maximum(
    process: Process, monkeypatch: pytest.MonkeyPatch, maximum: int, taken: set[int]
) -> None:
    monkeypatch.setattr(unfinished_stacks, "BYTES_MAX", maximum)
    process.copy([0, 0], stack_id=1)
    process.copy([0, 0], stack_id=2)
    process.stacks.finish(1)
    assert process.finished.keys() == taken


def test_copies_that_were_given_up_at_the_end_take_no_room(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_stacks, "BYTES_MAX", 8)
    process.copy([0, 0], stack_id=1)
    process.stacks.finish_all(0)
    process.copy([0, 0], stack_id=2)
    process.stacks.finish(1)
    assert process.finished.keys() == {2}


def test_failures_of_a_process_that_is_gone_are_forgotten(process: Process) -> None:
    process.known = False
    for gone in (Gone(processes={PROCESS}), Gone(processes={OTHER})):
        for stack_id in range(FAILURES_MAX - 1):
            process.copy([0], stack_id=stack_id)
        process.stacks.finish_all(1)
        process.stacks.forget(gone)
    assert not process.given_up
    process.copy([0])
    process.stacks.finish_all(1)
    assert process.given_up == [PROCESS]


def test_failures_are_counted_for_each_process_by_itself(process: Process) -> None:
    process.known = False
    for stack_id in range(FAILURES_MAX):
        process.copy([0], stack_id=stack_id, identity=OTHER if stack_id else PROCESS)
    process.stacks.finish_all(1)
    assert not process.given_up
