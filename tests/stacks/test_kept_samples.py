"""Samples of a recording without end: the latest segments stay, with all that they refer to."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Iterator

import pytest

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.events import Count, StackEvent
from pyflame_ebpf.stacks import kept_samples, raw_stacks
from pyflame_ebpf.stacks.kept_samples import KeptSamples
from tests.stacks.records import (
    CODE_ID,
    IDENTITY,
    PROCESSES,
    count_of,
    deep_stack,
    native_frame,
    python_frame,
    stack_event,
)

SECONDS = 40


def second_of_samples(kept: KeptSamples, second: int, *events: StackEvent) -> Gone | None:
    """A segment of one second in which these stacks were sampled; new ones came."""
    segment = kept.begin_segment(float(second))
    for event in events:
        if event.stack_id not in kept:
            kept.add_stack(event)
    kept.add_counts(second, [count_of(event) for event in events])
    segment.end = second + 1.0
    return kept.make_room()


def endless(limit: int, per_second: int = 200) -> Iterator[tuple[int, KeptSamples]]:
    """Samples that have so many new stacks each second, and one that is always the same."""
    kept = KeptSamples(limit)
    for second in range(SECONDS):
        new = [deep_stack(1 + second * per_second + index) for index in range(per_second)]
        second_of_samples(kept, second, deep_stack(0), *new)
        yield second, kept


def counts(kept: KeptSamples) -> list[tuple[int, Count]]:
    return [each for segment in kept.segments for each in segment.counts]


def test_what_is_kept_does_not_grow_beyond_two_generations() -> None:
    """As Python has allocated it, with the stacks of earlier seconds being read."""
    limit = 2_500_000
    random.seed(1)
    tracemalloc.start()
    try:
        for second, kept in itertools.islice(endless(limit, per_second=2000), 12):
            for number in random.sample(range(2000 * (second + 1)), 1000):
                kept.stack(1 << 63 | number)
            held, _ = tracemalloc.get_traced_memory()
            assert held < 2 * limit + kept_samples.UNPACKED_MAX_OF_TWO + 2 * raw_stacks.WAITING_BYTES
    finally:
        tracemalloc.stop()
    assert kept.segments[0].begin > 0


def test_every_sample_that_is_kept_has_its_stack() -> None:
    for _, kept in endless(300_000):
        for _, counted in counts(kept):
            assert kept.stack(counted.stack_id) is not None


def test_segments_that_are_kept_are_the_latest_with_all_of_their_samples() -> None:
    for second, kept in endless(300_000):
        first = int(kept.segments[0].begin)
        assert [at for at, _ in counts(kept)] == [at for at in range(first, second + 1) for _ in range(201)]
    assert first > 0


def test_a_recording_lets_nothing_go() -> None:
    kept = KeptSamples()
    for second in range(3):
        events = [deep_stack(second * 5000 + index) for index in range(5000)]
        assert second_of_samples(kept, second, *events) is None
    assert len(list(kept.stacks())) == len(counts(kept)) == 15_000
    assert kept.segments[0].begin == 0


def test_the_older_generation_goes_when_the_younger_has_reached_the_limit() -> None:
    kept = KeptSamples(10**9)
    second_of_samples(kept, 0, deep_stack(0))
    size = kept.size
    for limit, gone in ((size + 1, False), (size, True)):
        assert (second_of_samples(KeptSamples(limit), 0, deep_stack(0)) is not None) == gone


def test_each_stack_is_there_once_though_both_generations_have_it() -> None:
    kept = KeptSamples(1)
    second_of_samples(kept, 0, deep_stack(0), deep_stack(1))
    second_of_samples(kept, 1, deep_stack(0))
    assert sorted(event.stack_id for event in kept.stacks()) == [deep_stack(0).stack_id]
    second_of_samples(kept, 2, deep_stack(0), deep_stack(2))
    kept.add_stack(deep_stack(2))
    assert sorted(event.stack_id & 0xFF for event in kept.stacks()) == [0, 2]


def test_a_stack_that_is_sampled_again_takes_the_place_of_the_older_one() -> None:
    kept = KeptSamples(1)
    second_of_samples(kept, 0, deep_stack(0))
    longer = deep_stack(0, depth=31)
    kept.begin_segment(1.0)
    kept.add_stack(longer)
    assert kept.stack(longer.stack_id) == longer
    assert list(kept.stacks()) == [longer]


@pytest.mark.parametrize("limit", [None, 1])
def test_how_a_walk_ended_stays_with_a_stack_that_is_sampled_still(limit: int | None) -> None:
    kept = KeptSamples(limit)
    kept.add_stack(deep_stack(1))
    kept.end_walk(deep_stack(1).stack_id, NativeOutcome.COMPLETE)
    for second in range(5):
        second_of_samples(kept, second, deep_stack(1))
    assert kept.end_of_walk(deep_stack(1).stack_id) is NativeOutcome.COMPLETE


def test_how_a_walk_ended_goes_with_its_stack() -> None:
    kept = KeptSamples(1)
    kept.end_walk(deep_stack(1).stack_id, NativeOutcome.COMPLETE)
    for second in range(3):
        second_of_samples(kept, second, deep_stack(2))
    assert kept.end_of_walk(deep_stack(1).stack_id) is None


def test_a_process_whose_samples_went_is_not_among_those_that_are_kept() -> None:
    kept = KeptSamples(1)
    second_of_samples(kept, 0, deep_stack(1, process=PROCESSES[0]))
    for second in range(1, 3):
        second_of_samples(kept, second, deep_stack(1 + second, process=PROCESSES[1]))
    assert kept.identities == {PROCESSES[1]}


def test_a_process_with_samples_is_kept_though_its_stack_never_came() -> None:
    kept = KeptSamples(1)
    kept.begin_segment(0.0)
    kept.add_counts(0, [count_of(deep_stack(0))])
    kept.make_room()
    assert kept.identities == {PROCESSES[0]}
    assert kept.missing([count_of(deep_stack(0))]) == {deep_stack(0).stack_id}


# ---- what the samples refer to ----


def starts_of_a_program(kept: KeptSamples, starts: int) -> list[Gone | None]:
    """Each has a code object, a thread and a stack of its own, numbered alike."""
    gone = []
    for number in range(starts):
        kept.add_codes({number})
        kept.add_thread(IDENTITY, number)
        event = stack_event(python_frame(code_id=number), stack_id=number)
        gone.append(second_of_samples(kept, number, event))
    return gone


def test_code_objects_and_threads_without_samples_are_gone() -> None:
    samples_thread = {(IDENTITY, IDENTITY.tgid)}  # is sampled all the time
    gone = starts_of_a_program(KeptSamples(1), 4)
    assert gone[0] == Gone()
    assert gone[1:] == [Gone(codes={number}, threads={(IDENTITY, number)} - samples_thread) for number in range(3)]


def test_a_thread_that_is_sampled_stays_though_its_name_came_long_ago() -> None:
    kept = KeptSamples(1)
    kept.add_thread(IDENTITY, IDENTITY.tgid)
    event = stack_event(native_frame(0x40))
    assert [second_of_samples(kept, second, event) for second in range(4)] == [Gone()] * 4


def test_a_code_object_whose_stack_is_yet_to_come_stays() -> None:
    kept = KeptSamples(1)
    other = stack_event(native_frame(0x40), stack_id=1)
    kept.add_codes({CODE_ID})
    assert second_of_samples(kept, 0, other) == Gone()
    assert second_of_samples(kept, 1, stack_event(python_frame())) == Gone()
    assert second_of_samples(kept, 2, other) == Gone(codes={CODE_ID})


def test_a_code_object_of_a_stack_that_is_sampled_still_stays() -> None:
    kept = KeptSamples(1)
    event = stack_event(python_frame())
    kept.add_codes({CODE_ID})
    assert [second_of_samples(kept, second, event) for second in range(5)] == [Gone()] * 5


def test_code_objects_that_neither_generation_had_are_new() -> None:
    kept = KeptSamples(1)
    assert kept.add_codes({1, 2}) == {1, 2}
    assert kept.add_stack(stack_event(python_frame(code_id=2), python_frame(code_id=3))) == {3}
    second_of_samples(kept, 0, deep_stack(0))
    assert kept.add_codes({1, 2, 4}) == {4}
    second_of_samples(kept, 1, deep_stack(0))
    assert kept.add_codes({1, 3}) == {3}


def test_a_recording_that_ends_notes_nothing_to_forget() -> None:
    kept = KeptSamples()
    assert kept.add_codes({1}) == set()
    assert kept.add_stack(stack_event(python_frame())) == set()
    kept.begin_segment(0.0)
    before = kept.size
    kept.add_thread(IDENTITY, 1)
    assert kept.size == before


def test_every_part_counts_for_the_limit() -> None:
    kept = KeptSamples(10**9)
    kept.begin_segment(0.0)
    sizes = [kept.size]
    index, code, process = raw_stacks.INDEX_SIZE, kept_samples.CODE_SIZE, kept_samples.PROCESS_SIZE
    kept.add_codes({1, 2})
    sizes.append(kept.size)
    kept.add_thread(IDENTITY, 1)
    sizes.append(kept.size)
    kept.end_walk(1, NativeOutcome.COMPLETE)
    sizes.append(kept.size)
    kept.add_stack(deep_stack(0))
    sizes.append(kept.size)
    kept.add_counts(0, [count_of(deep_stack(0))])
    sizes.append(kept.size)
    stack = len(deep_stack(0).raw) + raw_stacks.STACK_SIZE + index
    log = kept.segments[0].counts.size
    grown = [after - before for before, after in itertools.pairwise(sizes)]
    assert grown == [2 * (index + code), index, index, process + stack, log + index]
