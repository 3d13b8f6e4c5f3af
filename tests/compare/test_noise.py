"""From which figures on a comparison speaks of cores and of changes."""

from __future__ import annotations

from statistics import NormalDist

import pytest

from pyflame_ebpf.compare.comparison import Change, compare, knows_cores
from pyflame_ebpf.profile.model import Process, Profile, Thread
from tests.profiles import ProfileWriter, python, recording


def profile_of(samples: dict[str, int], *, duration: float = 10.0, frequency: int = 100) -> Profile:
    """A recording of functions that call nothing, by their samples."""
    made = Profile(
        recording(duration=duration, frequency=frequency), [Process(1, "web", "python web.py")], [Thread(1, "main")]
    )
    writer = ProfileWriter(made)
    for name, count in samples.items():
        writer.add(0, 0, (python(name, "/srv/app.py", 1, 2),), count)
    return made


@pytest.mark.parametrize(("duration", "known"), [(0.9, False), (1.0, True), (1.9, True)])
def test_cores_are_known_from_a_duration_of_one_tick_on(duration: float, known: bool) -> None:
    assert knows_cores(profile_of({}, duration=duration, frequency=1)) is known


def test_what_is_in_one_recording_only_had_no_samples_in_the_other() -> None:
    rows = compare(profile_of({"old": 40}), profile_of({"new": 50})).functions.rows
    counts = {
        row.subject.name: (
            row.own.samples_before,
            row.own.samples_after,
            row.total.samples_before,
            row.total.samples_after,
        )
        for row in rows
    }
    assert counts == {"old": (40, 0, 40, 0), "new": (0, 50, 0, 50)}


def test_rows_of_ten_samples_and_more_raise_the_threshold() -> None:
    few = {f"few{number}": 4 for number in range(30)}  # of either recording
    enough = {f"enough{number}": 5 for number in range(20)}
    profile = profile_of(few | enough)
    assert compare(profile, profile).functions.threshold == pytest.approx(NormalDist().inv_cdf(1 - 0.05 / (2 * 20)))


def test_a_changes_noise_is_that_of_both_recordings() -> None:
    change = Change(1.0, 2.0, 100, 200, variance_before=0.09, variance_after=0.16, variance_if_same=0.04)
    assert change.score == pytest.approx(2.0)
    assert change.standard_error == pytest.approx(0.5)


def test_a_changes_noise_is_that_of_no_change_where_this_is_larger() -> None:
    change = Change(1.0, 2.0, 100, 200, variance_before=0.01, variance_after=0.01, variance_if_same=0.25)
    assert change.score == pytest.approx(2.0)
