"""Samples to a Profile: processes, threads, stacks and outcomes, counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyflame_ebpf.profile.model import (
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    SampleKey,
    Stack,
    Thread,
)
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.stacks.profile_builder import ProfileBuilder, StackKey
from pyflame_ebpf.stacks.thread_names import ThreadNames
from tests.profiles import framed_stacks
from tests.stacks.records import (
    IDENTITY,
    NOT_PYTHON,
    OTHER,
    PYTHON,
    RECORDING,
    STACK_ID,
    Sampled,
    count,
    native_frame,
    parse_at,
    python_frame,
)


def test_samples_are_kept_by_second_thread_and_mode() -> None:
    sampled = Sampled()
    sampled.add_parse()
    sampled.add_stack(python_frame(0))
    sampled.collected.add_thread(IDENTITY, 4242, "app")
    sampled.collected.add_thread(IDENTITY, 4243, "worker")
    sampled.add_counts(0, count(samples=3), replace(count(samples=2, tid=4243), gil=0))
    sampled.add_counts(1, count(samples=4), replace(count(), kernel_mode=True), count(samples=5))
    profile = sampled.profile()
    assert profile.processes == [PYTHON]
    assert profile.threads == [Thread(4242, "app"), Thread(4243, "worker")]
    assert profile.samples == {
        SampleKey(0, 0, 0, 0, False, Gil.HELD, Outcome.COMPLETE): 3,
        SampleKey(0, 0, 1, 0, False, Gil.UNKNOWN, Outcome.COMPLETE): 2,
        SampleKey(1, 0, 0, 0, False, Gil.HELD, Outcome.COMPLETE): 9,
        SampleKey(1, 0, 0, 0, True, Gil.HELD, Outcome.COMPLETE): 1,
    }
    assert sampled.collected.samples == profile.total == 15


def test_threads_of_two_processes_are_two_though_their_numbers_are_the_same() -> None:
    sampled = Sampled()
    sampled.collected.add_thread(IDENTITY, 7, "mine")
    sampled.collected.add_thread(OTHER, 7, "other's")
    sampled.add_counts(0, count(tid=7), replace(count(tid=7), identity=OTHER))
    profile = sampled.profile()
    assert profile.threads == [Thread(7, "mine"), Thread(7, "other's")]
    assert {(key.process, key.thread) for key in profile.samples} == {(0, 0), (1, 1)}


def test_process_that_nobody_knows_has_its_pid_at_least() -> None:
    sampled = Sampled()
    sampled.add_counts(0, replace(count(tid=18), identity=OTHER))
    profile = sampled.profile()
    assert profile.processes == [Process(17, "?")]
    assert profile.threads == [Thread(18, "")]


def test_stacks_that_are_named_alike_are_one() -> None:
    sampled = Sampled()
    sampled.add_parse()
    for stack_id, position in ((1, 0), (2, 2)):
        sampled.add_stack(python_frame(position), stack_id=stack_id)
        sampled.add_counts(0, count(stack_id=stack_id))
    profile = sampled.profile()
    assert framed_stacks(profile) == [(parse_at(11),)]
    assert list(profile.samples.values()) == [2]


def test_a_stack_is_named_once_for_each_of_its_outcomes() -> None:
    asked: list[StackKey] = []

    def stack_of(key: StackKey) -> Stack:
        asked.append(key)
        return (parse_at(11),)

    builder = ProfileBuilder(Profile(RECORDING), {IDENTITY: PYTHON}, ThreadNames(), stack_of)
    for second in range(2):
        for native in (NativeOutcome.COMPLETE, NativeOutcome.TOO_DEEP):
            builder.add(second, count(), native)
    keys = [(STACK_ID, Outcome.COMPLETE, native) for native in (NativeOutcome.COMPLETE, NativeOutcome.TOO_DEEP)]
    assert asked == keys
    assert framed_stacks(builder.profile) == [(parse_at(11),)]


def test_native_outcomes_of_one_stack_are_counted_apart() -> None:
    sampled = Sampled()
    sampled.add_stack(native_frame(0x40))
    sampled.add_counts(
        0,
        count(Outcome.NOT_PYTHON, 3, native=NativeOutcome.COMPLETE),
        count(Outcome.NOT_PYTHON, 2, native=NativeOutcome.PAGE_MISS),
    )
    profile = sampled.profile(NOT_PYTHON)
    assert profile.native_outcomes() == {NativeOutcome.COMPLETE: 3, NativeOutcome.PAGE_MISS: 2}
    assert [len(stack) for stack in profile.stacks] == [1, 2]


@pytest.mark.parametrize(("process", "outcome"), [(PYTHON, Outcome.NOT_IDENTIFIED), (NOT_PYTHON, Outcome.NOT_PYTHON)])
def test_sample_taken_before_identification_is_truncated_only_in_a_python_process(
    process: Process, outcome: Outcome
) -> None:
    sampled = Sampled()
    sampled.add_stack(native_frame(0x40))
    sampled.add_counts(0, count(Outcome.NOT_IDENTIFIED))
    profile = sampled.profile(process)
    assert profile.outcomes() == {outcome: 1}
    is_marked = framed_stacks(profile)[0][0].kind is FrameKind.MARK
    assert is_marked == (outcome is Outcome.NOT_IDENTIFIED)


@pytest.mark.parametrize("outcome", abi.OUTCOMES)
def test_counted_stack_that_never_came_is_lost_and_still_counted(outcome: Outcome) -> None:
    sampled = Sampled()
    sampled.add_counts(0, count(outcome, samples=5))
    profile = sampled.profile()
    assert profile.outcomes() == {Outcome.STACK_LOST: 5}
    assert framed_stacks(profile) == [(Frame(FrameKind.MARK, "[stack lost]"),)]


def test_lost_stacks_are_one_beside_those_that_came() -> None:
    sampled = Sampled()
    sampled.add_parse()
    sampled.add_stack(python_frame(0))
    sampled.add_counts(0, count(stack_id=1), count(), count(stack_id=2))
    profile = sampled.profile()
    assert framed_stacks(profile) == [(Frame(FrameKind.MARK, "[stack lost]"),), (parse_at(11),)]
    assert profile.outcomes() == {Outcome.STACK_LOST: 2, Outcome.COMPLETE: 1}


def test_a_profile_has_its_recording() -> None:
    assert Sampled().profile().recording is RECORDING


def test_a_walk_that_was_finished_counts_as_it_ended() -> None:
    sampled = Sampled()
    sampled.add_stack(native_frame(0x40))
    sampled.collected.finish_stack(77, [(0x50, 0x200)], NativeOutcome.COMPLETE)
    sampled.add_counts(0, count(Outcome.NOT_PYTHON, native=NativeOutcome.PAGE_MISS))
    profile = sampled.profile(NOT_PYTHON)
    assert profile.native_outcomes() == {NativeOutcome.COMPLETE: 1}
    assert [frame.name for frame in framed_stacks(profile)[0]] == ["native_50", "native_40"]


def test_a_stack_may_come_after_its_walk_was_finished() -> None:
    sampled = Sampled()
    sampled.collected.finish_stack(77, [(0x50, 0x200)], NativeOutcome.COMPLETE)
    sampled.add_stack(native_frame(0x40))
    stack = sampled.stack(Outcome.NOT_PYTHON, NOT_PYTHON, NativeOutcome.PAGE_MISS)
    assert [frame.name for frame in stack] == ["native_50", "native_40"]
