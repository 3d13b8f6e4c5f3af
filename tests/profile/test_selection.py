"""Parts of a recording: ranges of its time, some of its processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.errors import UsageError
from pyflame_ebpf.outputs.processes import process_rows
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.profile.selection import Selection
from tests.profiles import NGINX, SCRIPT, WEB, WORKER, hostile_profile, profiles, realistic_profile


def sampled_processes(profile: Profile) -> set[int]:
    return {key.process for key in profile.samples}


def test_a_range_is_a_recording_of_its_own() -> None:
    whole = realistic_profile()
    part = Selection(10, 25).of(whole)
    assert (part.recording.started, part.recording.duration) == (whole.recording.started + 10, 15)
    assert {key.second for key in part.samples} == set(range(15))
    assert part.recording.scheduler_cpu is None
    assert {process.scheduler_cpu for process in part.processes} == {None}


def test_cpu_use_in_a_range_is_of_the_range() -> None:
    whole, part = (process_rows(selection.of(realistic_profile())) for selection in (Selection(), Selection(30, 40)))
    use = {row.pid: row.cpu_percent for row in whole}
    assert [row.pid for row in part] == [row.pid for row in whole]
    assert [row.cpu_percent for row in part] == pytest.approx([use[row.pid] for row in part], rel=0.01)


@pytest.mark.parametrize(
    ("begin", "end", "seconds", "duration"),
    [(0.5, 1.5, {0, 1}, 2), (59, 60, {0}, 1), (59, None, {0}, 1), (58, 90, {0, 1}, 2), (60, None, set(), 0)],
)
def test_a_range_is_widened_to_whole_seconds_and_ends_with_the_recording(
    begin: float, end: float | None, seconds: set[int], duration: int
) -> None:
    part = Selection(begin, end).of(realistic_profile())
    assert ({key.second for key in part.samples}, part.recording.duration) == (seconds, duration)


def test_a_range_with_an_end_only_is_a_recording_of_its_own() -> None:
    whole = realistic_profile()
    part = Selection(end=25).of(whole)
    assert (part.recording.started, part.recording.duration) == (whole.recording.started, 25)
    assert {key.second for key in part.samples} == set(range(25))
    assert {process.scheduler_cpu for process in part.processes} == {None}
    assert part.recording.part_of == whole.total


def test_what_the_scheduler_charged_is_known_of_no_range() -> None:
    for part in (Selection(10), Selection(end=25)):
        assert {process.scheduler_cpu for process in part.of(realistic_profile()).processes} == {None}


def test_a_part_of_a_part_is_a_part_of_the_whole_recording() -> None:
    whole = realistic_profile()
    part = Selection(10, 25).of(Selection(5).of(whole))
    assert (part.recording.part_of, part.recording.started) == (whole.total, whole.recording.started + 15)


def test_the_whole_recording_is_itself() -> None:
    whole = realistic_profile()
    assert Selection().of(whole) is whole


def test_samples_that_were_drained_after_the_last_second_belong_to_it() -> None:
    profile = realistic_profile()
    late = next(key for key in profile.samples if key.second == 59)._replace(second=60)
    profile.samples[late] = 5
    assert Selection(0, 60).of(profile).total == profile.total


@pytest.mark.parametrize(
    ("pattern", "processes"),
    [
        ("1317", {WORKER}),
        ("131", set()),
        ("celery", {WORKER}),
        ("^nginx$", {NGINX}),
        ("nightly|: worker", {NGINX, WEB, SCRIPT}),
        ("CELERY", set()),
    ],
)
def test_a_pattern_is_a_pid_or_searched_for_in_name_and_command_line(pattern: str, processes: set[int]) -> None:
    assert sampled_processes(Selection(processes=(pattern,)).of(realistic_profile())) == processes


def test_of_several_patterns_one_must_match() -> None:
    assert sampled_processes(Selection(processes=("803", "celery")).of(realistic_profile())) == {NGINX, WORKER}


def test_what_is_not_python_can_be_left_out() -> None:
    assert sampled_processes(Selection(python=True).of(realistic_profile())) == {WEB, WORKER, SCRIPT}


def test_what_the_scheduler_charged_to_a_process_stays_when_only_processes_are_chosen() -> None:
    part = Selection(processes=("celery",)).of(realistic_profile())
    assert part.processes[WORKER].scheduler_cpu == 20.4
    assert part.recording.scheduler_cpu is None


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (Selection(-1), "no time from -1 s to the end"),
        (Selection(3, 3), "no time from 3 s to 3 s"),
        (Selection(0, 0), "no time from 0 s to 0 s"),
        (Selection(processes=("a", "[")), "is not a regular expression"),
    ],
)
def test_a_part_that_no_recording_has_is_refused(selection: Selection, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        selection.check()


@pytest.mark.parametrize("selection", [Selection(), Selection(0, 0.5), Selection(3), Selection(processes=("1", "a|b"))])
def test_any_other_part_may_be_asked_for(selection: Selection) -> None:
    selection.check()


def test_hostile_names_can_be_chosen_by() -> None:
    assert len(sampled_processes(Selection(processes=("script",)).of(hostile_profile()))) == 3


@settings(deadline=None)
@given(profiles(), st.integers(1, 3))
def test_two_ranges_that_meet_have_all_samples_between_them(profile: Profile, middle: int) -> None:
    profile.recording = replace(profile.recording, duration=4.0)
    parts = Selection(0, middle).of(profile), Selection(middle).of(profile)
    assert sum(part.total for part in parts) == profile.total
