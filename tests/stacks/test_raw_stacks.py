"""Stacks that wait packed: all come back as they were."""

from __future__ import annotations

import random

import pytest

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.sampling.events import StackEvent
from pyflame_ebpf.stacks import raw_stacks
from pyflame_ebpf.stacks.raw_stacks import RawStacks
from tests.stacks.records import PROCESSES, deep_stack


def raw(unpacked_max: int = raw_stacks.UNPACKED_MAX) -> RawStacks:
    return RawStacks(Numbering(), unpacked_max)


@pytest.mark.parametrize("number", [1, 1023, 1024, 5000])
def test_every_stack_comes_back_as_it_was(number: int) -> None:
    events = [deep_stack(index) for index in range(number)]
    random.Random(number).shuffle(events)
    stacks = raw()
    for event in events:
        stacks.add(event)
    assert sorted(stacks, key=lambda event: event.stack_id) == sorted(events, key=lambda event: event.stack_id)
    assert [stacks.get(event.stack_id) for event in events] == events


def test_stacks_that_do_not_fit_into_what_is_unpacked_come_back() -> None:
    events = [deep_stack(index) for index in range(3000)]
    stacks = raw(unpacked_max=1)
    for event in events:
        stacks.add(event)
    assert [stacks.get(event.stack_id) for event in reversed(events)] == events[::-1]


def test_a_stack_that_never_came_is_none() -> None:
    stacks = raw()
    stacks.add(deep_stack(1))
    assert stacks.get(5) is None
    assert 5 not in stacks


def test_a_stack_that_is_added_again_takes_the_other_s_place() -> None:
    stacks = raw()
    for index in range(2000):
        stacks.add(deep_stack(index))
    longer = deep_stack(7, depth=31)
    stacks.add(longer)
    assert stacks.get(longer.stack_id) == longer
    assert [event for event in stacks if event.stack_id == longer.stack_id] == [longer]
    for index in range(2000, 4000):
        stacks.add(deep_stack(index))
    assert stacks.get(longer.stack_id) == longer
    assert [event for event in stacks if event.stack_id == longer.stack_id] == [longer]


def test_packed_stacks_take_a_fifth_of_what_came() -> None:
    events = [deep_stack(index, depth=50) for index in range(20_000)]
    stacks = raw()
    for event in events:
        stacks.add(event)
    assert stacks.size < sum(len(event.raw) for event in events) / 5


def test_stacks_of_the_greatest_length_are_packed_a_few_at_a_time() -> None:
    stacks = raw()
    events = [deep_stack(index, depth=8000) for index in range(20)]
    for event in events:
        stacks.add(event)
    assert stacks.size < 3 * raw_stacks.WAITING_BYTES
    assert [stacks.get(event.stack_id) for event in events] == events


@pytest.mark.parametrize("again", [False, True])
def test_a_stack_that_waits_is_among_the_others(again: bool) -> None:
    stacks = raw()
    events = [deep_stack(index) for index in range(raw_stacks.WAITING_MAX + 1)]
    for event in [*events, *events[:1] * again]:
        stacks.add(event)
    assert sorted(stacks, key=lambda event: event.stack_id) == events
    assert all(event.stack_id in stacks for event in events)


def test_blocks_are_unpacked_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks' worth of room: the block that was unpacked first goes first."""
    stacks = raw()
    for index in range(raw_stacks.WAITING_MAX):
        stacks.add(deep_stack(index, process=PROCESSES[0]))
    ordered = [event.stack_id for event in stacks]
    first, second, third = (ordered[block * raw_stacks.BLOCK_STACKS] for block in range(3))
    stacks.get(first)
    one_block = stacks._unpacked_bytes
    monkeypatch.setattr(stacks, "_unpacked_max", 2 * one_block)
    unpacked: list[int] = []
    unpack = stacks._unpack

    def noted(number: int) -> list[StackEvent]:
        unpacked.append(number)
        return unpack(number)

    monkeypatch.setattr(stacks, "_unpack", noted)
    for stack_id in (second, first, second, third, second, third, first):
        stacks.get(stack_id)
    assert unpacked == [1, 2, 0]


def test_what_is_at_hand_unpacked_counts_until_it_is_packed() -> None:
    stacks = raw()
    for index in range(raw_stacks.WAITING_MAX):
        stacks.add(deep_stack(index))
    packed = stacks.size
    stacks.get(deep_stack(0).stack_id)
    raw_bytes = raw_stacks.BLOCK_STACKS * (len(deep_stack(0).raw) + raw_stacks.STACK_SIZE)
    assert stacks.size == packed + raw_bytes
    stacks.pack()
    assert stacks.size == packed
    assert stacks.get(deep_stack(0).stack_id) == deep_stack(0)
    assert stacks.size == packed + raw_bytes


def test_a_block_may_have_fewer_stacks_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_stacks, "WAITING_MAX", raw_stacks.BLOCK_STACKS + 1)
    stacks = raw()
    events = [deep_stack(index) for index in range(raw_stacks.WAITING_MAX)]
    for event in events:
        stacks.add(event)
    assert not stacks._waiting
    assert sorted(stacks, key=lambda event: event.stack_id) == events


def test_packed_and_waiting_stacks_and_their_index_take_room() -> None:
    stacks = raw()
    events = [deep_stack(index) for index in range(raw_stacks.WAITING_MAX + 1)]
    for event in events:
        stacks.add(event)
    waiting = len(events[-1].raw) + raw_stacks.STACK_SIZE
    assert stacks.size == sum(map(len, stacks._blocks)) + waiting + raw_stacks.INDEX_SIZE * len(events)


def test_stacks_that_wait_count_with_their_frames() -> None:
    stacks = raw()
    stacks.add(deep_stack(0))
    assert stacks.size == len(deep_stack(0).raw) + raw_stacks.INDEX_SIZE + raw_stacks.STACK_SIZE


def test_processes_of_added_stacks_are_numbered() -> None:
    numbers: Numbering[Identity] = Numbering()
    stacks = RawStacks(numbers)
    for index in (0, 7, 1):
        stacks.add(deep_stack(index))
    assert numbers.distinct == PROCESSES[:2]
