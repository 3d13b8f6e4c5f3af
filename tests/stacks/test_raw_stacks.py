"""Stacks and samples that wait packed: all come back as they were, and of a live view's only the latest stay."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
from collections.abc import Iterator

import pytest

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.abi import FRAME_NATIVE
from pyflame_ebpf.sampling.events import Count, StackEvent, native_frames
from pyflame_ebpf.stacks import raw_stacks
from pyflame_ebpf.stacks.raw_stacks import CountLog, RawStacks, SampleStore

PROCESSES = [Identity(10**9 + number, 1000 + number, number % 2) for number in range(7)]
SECONDS = 40


def stack(number: int, depth: int = 30, process: Identity | None = None) -> StackEvent:
    """A stack whose leaf is its own, and whose callers are its process's."""
    identity = process or PROCESSES[number % len(PROCESSES)]
    frames = [(0x5000 + number * 16, 0x7FFC000), *((identity.tgid << 20 | at, 0x7FFD000 + at) for at in range(depth))]
    return StackEvent(identity, 1 << 63 | number, number % 3 == 0, native_frames(frames))


def count(event: StackEvent, samples: int = 1) -> Count:
    return Count(event.identity, event.identity.tgid, event.stack_id, 0, 1, True, 2, samples)


@pytest.mark.parametrize("number", [1, 1023, 1024, 5000])
def test_every_stack_comes_back_as_it_was(number: int) -> None:
    events = [stack(index) for index in range(number)]
    random.Random(number).shuffle(events)
    stacks = RawStacks()
    for event in events:
        stacks.add(event)
    assert sorted(stacks, key=lambda event: event.stack_id) == sorted(events, key=lambda event: event.stack_id)
    assert [stacks.get(event.stack_id) for event in events] == events


def test_stacks_that_do_not_fit_into_what_is_unpacked_come_back() -> None:
    events = [stack(index) for index in range(3000)]
    stacks = RawStacks(unpacked_max=1)
    for event in events:
        stacks.add(event)
    assert [stacks.get(event.stack_id) for event in reversed(events)] == events[::-1]


def test_a_stack_that_never_came_is_none() -> None:
    stacks = RawStacks()
    stacks.add(stack(1))
    assert stacks.get(5) is None
    assert 5 not in stacks


def test_a_stack_that_is_added_again_takes_the_other_s_place() -> None:
    stacks = RawStacks()
    for index in range(2000):
        stacks.add(stack(index))
    longer = stack(7, depth=31)
    stacks.add(longer)
    assert stacks.get(longer.stack_id) == longer
    assert [event for event in stacks if event.stack_id == longer.stack_id] == [longer]
    for index in range(2000, 4000):
        stacks.add(stack(index))
    assert stacks.get(longer.stack_id) == longer
    assert [event for event in stacks if event.stack_id == longer.stack_id] == [longer]


def test_packed_stacks_take_a_fifth_of_what_came() -> None:
    events = [stack(index, depth=50) for index in range(20_000)]
    stacks = RawStacks()
    for event in events:
        stacks.add(event)
    assert stacks.size < sum(len(event.raw) for event in events) / 5


def test_stacks_of_the_greatest_length_are_packed_a_few_at_a_time() -> None:
    stacks = RawStacks()
    events = [stack(index, depth=8000) for index in range(20)]
    for event in events:
        stacks.add(event)
    assert stacks.size < 3 * raw_stacks.WAITING_BYTES
    assert [stacks.get(event.stack_id) for event in events] == events


def test_samples_come_back_by_second_as_they_were_counted() -> None:
    log = CountLog()
    counts = {second: [count(stack(index), index + 1) for index in range(50)] for second in (0, 1, 5)}
    for second, counted in counts.items():
        log.add(second, counted)
    assert list(log) == [(second, each) for second, counted in counts.items() for each in counted]


# ---- a live view ----


def live(limit: int, per_second: int = 200) -> Iterator[tuple[int, SampleStore]]:
    """A store that gets as many new stacks each second, and one that is always the same."""
    store = SampleStore(limit)
    for second in range(SECONDS):
        events = [stack(0), *(stack(1 + second * per_second + index) for index in range(per_second))]
        for event in events:
            if event.stack_id not in store:
                store.add_stack(event)
        store.add_counts(second, [count(event) for event in events])
        store.make_room(second + 1)
        yield second, store


def test_what_is_kept_does_not_grow_beyond_two_generations() -> None:
    """As Python has allocated it, with the stacks of earlier seconds being read."""
    limit = 5_000_000
    random.seed(1)
    tracemalloc.start()
    try:
        for second, store in itertools.islice(live(limit, per_second=4000), 12):
            for number in random.sample(range(4000 * (second + 1)), 2000):
                store.stack(1 << 63 | number)
            held, _ = tracemalloc.get_traced_memory()
            assert held < 2 * limit + raw_stacks.UNPACKED_MAX_LIVE + 2 * raw_stacks.WAITING_BYTES
    finally:
        tracemalloc.stop()
    assert store.begin > 0


def test_every_sample_that_is_kept_has_its_stack() -> None:
    for _, store in live(300_000):
        for _, counted in store.counts():
            assert store.stack(counted.stack_id) is not None


def test_samples_that_are_kept_are_all_of_the_latest_seconds() -> None:
    for second, store in live(300_000):
        seconds = [at for at, _ in store.counts()]
        assert set(seconds) == set(range(store.begin, second + 1))
    assert store.begin > 0


def test_a_recording_lets_nothing_go() -> None:
    store = SampleStore()
    for index in range(20_000):
        store.add_stack(stack(index))
        assert not store.make_room(index)
    assert len(list(store.stacks())) == 20_000
    assert store.begin == 0


def test_how_a_walk_ended_stays_with_a_stack_that_is_sampled_still() -> None:
    store = SampleStore(1)
    store.add_stack(stack(1))
    store.end_walk(stack(1).stack_id, NativeOutcome.COMPLETE)
    for second in range(5):
        store.add_counts(second, [count(stack(1))])
        store.make_room(second + 1)
    assert store.end_of_walk(stack(1).stack_id) is NativeOutcome.COMPLETE


def test_a_process_whose_samples_went_is_not_among_those_that_are_kept() -> None:
    store = SampleStore(1)
    store.add_stack(stack(1, process=PROCESSES[0]))
    store.add_counts(0, [count(stack(1, process=PROCESSES[0]))])
    for second in range(3):
        store.make_room(second + 1)
        store.add_stack(stack(2 + second, process=PROCESSES[1]))
    assert store.identities == {PROCESSES[1]}


# ---- frames that were found later ----


def test_frames_that_were_found_later_follow_those_that_were_sent() -> None:
    event = stack(1, depth=2)
    found = native_frames([(0x100, 0x200)])
    assert event.continued(found).frames() == [*event.frames(), (0x100, 0x200, 0, FRAME_NATIVE)]


def test_the_last_frame_that_was_sent_without_its_end_is_not_there_twice() -> None:
    last = struct.pack("<QQiI", 0x100, 0, 0, FRAME_NATIVE)
    event = StackEvent(PROCESSES[0], 1, False, native_frames([(0x50, 0x60)]) + last)
    whole = event.continued(native_frames([(0x100, 0x200), (0x300, 0x400)]))
    assert [frame[:2] for frame in whole.frames()] == [(0x50, 0x60), (0x100, 0x200), (0x300, 0x400)]
