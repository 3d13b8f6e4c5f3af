"""What the live view counts by number, and which processes it forgets."""

from __future__ import annotations

import pytest

from pyflame_ebpf.live import totals as totals_module
from pyflame_ebpf.live.totals import Places, Span
from pyflame_ebpf.profile.model import Gil, Process, Profile, Thread
from tests.profiles import ProfileWriter, python, recording

FOO = python("foo", "/app/work.py", 10, 12)
FOO_LATER = python("foo", "/app/work.py", 10, 14)


def second(samples: dict[int, int], gil: Gil = Gil.UNKNOWN) -> Profile:
    """A profile of one second: samples of one function by PID."""
    profile = Profile(recording(duration=1.0), [Process(pid, "app") for pid in samples], [Thread(1, "main")])
    writer = ProfileWriter(profile)
    for index, count in enumerate(samples.values()):
        writer.add(index, 0, (FOO,), count, gil=gil)
    return profile


def test_a_function_has_no_line_and_one_text_for_all_of_its_lines() -> None:
    places = Places()
    assert [places.line(frame) for frame in (FOO, FOO_LATER)] == [0, 1]
    assert places.lines == [FOO, FOO_LATER]
    assert places.functions == [python("foo", "/app/work.py", 10, 0)]
    assert places.function_of_line == [0, 0]
    assert places.line_texts == ["foo (/app/work.py:12)", "foo (/app/work.py:14)"]
    assert places.function_texts == ["foo (/app/work.py:10)"]


@pytest.mark.parametrize(("gil", "known", "held"), [(Gil.UNKNOWN, 0, 0), (Gil.NOT_HELD, 30, 0), (Gil.HELD, 30, 30)])
def test_samples_that_cannot_tell_who_holds_the_gil_are_left_out_of_its_share(gil: Gil, known: int, held: int) -> None:
    span = Span(Places())
    span.add(second({1: 30}, gil))
    assert (span.all.gil_known, span.all.gil_held) == (known, held)
    assert (span.by_pid[1].gil_known, span.by_pid[1].gil_held) == (known, held)


def test_as_many_processes_as_the_limit_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals_module, "PROCESSES_MAX", 6)
    span = Span(Places())
    span.add(second({pid: pid for pid in range(1, 7)}))
    assert list(span.by_pid) == [1, 2, 3, 4, 5, 6]


def test_of_more_processes_the_half_of_the_limit_that_used_most_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals_module, "PROCESSES_MAX", 6)
    span = Span(Places())
    span.add(second({1: 5, 2: 1, 3: 7, 4: 2, 5: 6, 6: 3, 7: 4}))
    assert {pid: tally.samples for pid, tally in span.by_pid.items()} == {3: 7, 5: 6, 1: 5}
    assert span.all.samples == 28
