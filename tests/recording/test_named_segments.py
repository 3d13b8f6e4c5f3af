"""Segments that are named a little at a time, with a clock and namings of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import Profile, Recording
from pyflame_ebpf.recording.named_segments import NamedSegments
from pyflame_ebpf.stacks.profile_builder import ProfileBuilder, SegmentNaming
from pyflame_ebpf.stacks.segments import CountLog, Segment
from pyflame_ebpf.stacks.thread_names import ThreadNames

WITHIN = 0.9


class SlowNaming(SegmentNaming):
    """Takes so many steps; its profile has how many seconds they were given."""

    def __init__(self, number: int, steps: int) -> None:
        recording = Recording(started=number, duration=0.0, frequency=99, cpus=1)
        super().__init__(ProfileBuilder(Profile(recording), {}, ThreadNames(), lambda _key: None), [])
        self.given: list[float] = []
        self._steps = steps

    def name(self, seconds: float) -> bool:
        self.given.append(seconds)
        return len(self.given) >= self._steps


@dataclass
class Host:
    """The clock, and the namings that were begun."""

    steps: int
    now: float = 0.0
    begun: list[SlowNaming] = field(default_factory=list)

    def begin(self, segment: Segment) -> SegmentNaming:
        self.begun.append(SlowNaming(int(segment.begin), self.steps))
        return self.begun[-1]

    def segments(self) -> NamedSegments:
        return NamedSegments(self.begin, WITHIN, lambda: self.now)


def segment(number: int) -> Segment:
    return Segment(number, number + 1, CountLog(Numbering()))


def numbers(profiles: list[Profile | None]) -> list[int | None]:
    return [int(profile.recording.started) if profile else None for profile in profiles]


def test_without_a_segment_there_is_nothing_to_name() -> None:
    names = Host(1).segments()
    assert not names.under_way
    assert names.name(0.02) is None


def test_a_segment_is_handed_out_once_it_is_named() -> None:
    host = Host(3)
    names = host.segments()
    names.add(segment(0))
    assert names.under_way
    assert numbers([names.name(0.02) for _ in range(4)]) == [None, None, 0, None]
    assert not names.under_way
    assert host.begun[0].given == [0.02] * 3


@pytest.mark.parametrize(("now", "handed_out"), [(WITHIN - 0.01, None), (WITHIN, 0)])
def test_a_segment_is_handed_out_in_time_though_not_all_is_named(now: float, handed_out: int | None) -> None:
    host = Host(99, now=5.0)
    names = host.segments()
    names.add(segment(0))
    host.now = 5.0 + now
    assert numbers([names.name(0.02)]) == [handed_out]


def test_the_next_segment_ends_the_naming_of_the_one_before_and_none_is_lost() -> None:
    host = Host(99)
    names = host.segments()
    for number in range(3):
        names.add(segment(number))
    assert numbers([names.name(0.02) for _ in range(3)]) == [0, 1, None]
    host.now = WITHIN
    assert numbers([names.name(0.02) for _ in range(2)]) == [2, None]
