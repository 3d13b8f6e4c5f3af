"""Naming while a recording goes on: a segment at a time, each stack once."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, Profile
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.stacks import profile_naming
from pyflame_ebpf.stacks.naming import FrameNames
from pyflame_ebpf.stacks.profile_builder import NOT_NAMED, SegmentNaming
from tests.profiles import framed_stacks
from tests.stacks.records import (
    IDENTITY,
    PYTHON,
    RECORDING,
    Sampled,
    count,
    native,
    native_frame,
    parse_at,
    python_frame,
)


class Names:
    """Native names that become known later, and how often they were asked for."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self.asked: list[int] = []
        self.expected: list[set[int]] = []

    def name(self, _identity: Identity, address: int) -> Frame | None:
        self.asked.append(address)
        return native(self.known[address]) if address in self.known else None

    def expect(self, _identity: Identity, addresses: Iterable[int]) -> None:
        self.expected.append(set(addresses))


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def sampled(names: Names) -> Sampled:
    return Sampled(name=names.name, expect=names.expect)


def begin(sampled: Sampled, second: int, *counts: Count) -> SegmentNaming:
    """These samples are a segment of their own, which is to be named."""
    segment = sampled.segment
    sampled.add_counts(second, *counts)
    sampled.next_segment(second + 1.0)
    return sampled.naming.begin(segment, RECORDING, {IDENTITY: PYTHON})


def named(sampled: Sampled, second: int, *counts: Count) -> Profile:
    naming = begin(sampled, second, *counts)
    assert naming.name(60.0)
    return naming.profile()


def test_a_segment_has_its_samples_and_the_profile_those_of_all(sampled: Sampled) -> None:
    sampled.add_parse()
    sampled.add_stack(python_frame())
    assert named(sampled, 0, count(samples=3)).total == 3
    later = named(sampled, 1, count(samples=4))
    assert (later.total, framed_stacks(later)) == (4, [(parse_at(11),)])
    assert sampled.profile().total == sampled.collected.samples == 7


def test_seconds_count_from_the_first_segment(sampled: Sampled) -> None:
    named(sampled, 0, count())
    later = named(sampled, 1, count())
    assert [key.second for key in later.samples] == [0]
    assert sorted(key.second for key in sampled.profile().samples) == [0, 1]


def test_a_stack_that_the_segment_before_had_is_not_named_again(sampled: Sampled, names: Names) -> None:
    names.known[0x5000] = "work"
    sampled.add_stack(native_frame(0x5000))
    first, second = named(sampled, 0, count()), named(sampled, 1, count())
    assert framed_stacks(second) == framed_stacks(first) == [(native("work"),)]
    assert names.asked == [0x5000]
    assert names.expected == [{0x5000}]


@pytest.mark.parametrize(("maximum_and_segments", "again"), [((1, 1), False), ((1, 2), True), ((3, 2), False)])
def test_a_stack_stays_named_while_few_others_come(
    sampled: Sampled, names: Names, monkeypatch: pytest.MonkeyPatch, maximum_and_segments: tuple[int, int], again: bool
) -> None:
    maximum, segments = maximum_and_segments
    monkeypatch.setattr(profile_naming, "STACKS_MAX", maximum)
    for number in range(3):
        names.known[0x5000 + number] = "work"
        sampled.add_stack(native_frame(0x5000 + number), stack_id=number)
    for second in range(segments):
        named(sampled, second, count(stack_id=second))
    names.expected.clear()
    named(sampled, segments, count(stack_id=0))
    assert names.expected == [{0x5000}] * again


def test_what_had_no_name_is_asked_for_again_in_the_end(sampled: Sampled, names: Names) -> None:
    sampled.add_stack(native_frame(0x5000))
    assert framed_stacks(named(sampled, 0, count())) == [(native("0x5000"),)]
    names.known[0x5000] = "work"
    assert framed_stacks(sampled.profile()) == [(native("work"),)]


def test_code_that_comes_after_its_stack_is_named_in_the_next_segment_and_in_the_end(sampled: Sampled) -> None:
    sampled.add_stack(python_frame())
    named(sampled, 0, count())
    sampled.add_parse()
    assert framed_stacks(named(sampled, 1, count())) == [(parse_at(11),)]
    assert framed_stacks(sampled.profile()) == [(parse_at(11),)]


def test_samples_that_are_not_named_in_time_count_under_a_mark(sampled: Sampled, names: Names) -> None:
    sampled.add_stack(native_frame(0x5000))
    naming = begin(sampled, 0, count(samples=5))
    assert not naming.name(0.0)
    profile = naming.profile()
    assert (profile.total, framed_stacks(profile)) == (5, [(NOT_NAMED,)])
    assert not names.asked


def test_addresses_are_expected_before_the_first_of_them_is_named(sampled: Sampled, names: Names) -> None:
    sampled.add_stack(native_frame(0x5000), native_frame(0x6000), python_frame(), stack_id=1)
    sampled.add_stack(native_frame(0x7000), stack_id=2)
    sampled.add_stack(native_frame(0x8000), stack_id=3)
    begin(sampled, 0, count(stack_id=1), count(stack_id=2))
    assert names.expected == [{0x5000, 0x6000, 0x7000}]
    sampled.profile()
    assert names.expected[1] == {0x5000, 0x6000, 0x7000, 0x8000}


def test_native_addresses_are_named_at_the_end_and_once(sampled: Sampled, names: Names) -> None:
    names.known = {0x40: "f", 0x50: "f"}
    sampled.add_stack(native_frame(0x40, 0x7FFD00), native_frame(0x40, 0x7FFE00), native_frame(0x50))
    assert names.asked == []
    sampled.stack()
    assert sorted(names.asked) == [0x40, 0x50]


def test_names_are_bounded_when_a_segment_begins(sampled: Sampled, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded: list[FrameNames] = []
    monkeypatch.setattr(sampled.names, "bound", lambda: bounded.append(sampled.names))
    named(sampled, 0, count())
    sampled.profile()
    assert bounded == [sampled.names]
