"""What the live view counts, and the rows it makes of that."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pyflame_ebpf.live import totals as totals_module
from pyflame_ebpf.live.rows import Sort, Wanted, functions, process_rows
from pyflame_ebpf.live.totals import ALL_FRAMES, PYTHON_ONLY, FramesShown, LiveTotals
from pyflame_ebpf.profile.model import Frame, FrameKind, Gil, Outcome, Process, Profile, Stack, Thread
from tests.profiles import HOSTILE_NAMES, ProfileWriter, kernel, native, python, recording

MAIN = python("main", "/app/main.py", 1, 9)
FOO = python("foo", "/app/work.py", 10, 12)
FOO_LATER = python("foo", "/app/work.py", 10, 14)
BAR = python("bar", "/app/work.py", 20, 21)
STRLEN = native("strlen", "/lib/libc.so.6")
READ = kernel("ksys_read")
FREQUENCY = 100


def second(*samples: tuple[int, Stack, int], gil: Gil = Gil.UNKNOWN, outcome: Outcome = Outcome.COMPLETE) -> Profile:
    """A profile of one second: (PID, stack, samples)."""
    pids = list(dict.fromkeys(pid for pid, _, _ in samples))
    profile = Profile(
        recording(duration=1.0, frequency=FREQUENCY),
        [Process(pid, f"app{pid}", f"/usr/bin/app --number {pid}", "CPython 3.12.4") for pid in pids],
        [Thread(1, "main")],
    )
    writer = ProfileWriter(profile)
    for pid, stack, count in samples:
        writer.add(pids.index(pid), 0, stack, count, gil=gil, outcome=outcome)
    return profile


def totals_of(*intervals: Profile) -> LiveTotals:
    totals = LiveTotals()
    for profile in intervals:
        totals.add([profile])
    return totals


def rows(totals: LiveTotals, **wanted: Any) -> dict[str, tuple[float, float, float, float]]:
    found = functions(totals, Wanted(**wanted)).rows(0, 100, FREQUENCY)
    return {row.label: (row.own_percent, row.total_percent, row.own_seconds, row.total_seconds) for row in found}


def test_self_is_of_the_innermost_frame_and_total_of_every_frame_on_the_stack() -> None:
    totals = totals_of(second((1, (MAIN, FOO), 75), (1, (MAIN, BAR), 25)))
    assert rows(totals) == {
        "foo (app/work.py:10)": (75, 75, 0.75, 0.75),
        "bar (app/work.py:20)": (25, 25, 0.25, 0.25),
        "main (app/main.py:1)": (0, 100, 0, 1),
    }


def test_per_cent_are_of_the_last_interval_and_seconds_since_the_start() -> None:
    totals = totals_of(second((1, (MAIN, FOO), 100)), second((1, (MAIN, BAR), 50)))
    assert rows(totals) == {
        "bar (app/work.py:20)": (50, 50, 0.5, 0.5),
        "foo (app/work.py:10)": (0, 0, 1, 1),
        "main (app/main.py:1)": (0, 50, 0, 1.5),
    }


def test_an_interval_of_several_seconds_is_an_average() -> None:
    totals = LiveTotals()
    totals.add([second((1, (FOO,), 100)), second((1, (FOO,), 50))])
    assert rows(totals) == {"foo (app/work.py:10)": (75, 75, 1.5, 1.5)}


def test_recursion_counts_once() -> None:
    totals = totals_of(second((1, (FOO, FOO_LATER, FOO), 10)))
    assert rows(totals) == {"foo (app/work.py:10)": (10, 10, 0.1, 0.1)}


def test_lines_of_a_function_are_told_apart_where_lines_are_wanted() -> None:
    totals = totals_of(second((1, (FOO,), 30), (1, (FOO_LATER,), 20)))
    assert list(rows(totals, lines=True)) == ["foo (app/work.py:12)", "foo (app/work.py:14)"]


@pytest.mark.parametrize(
    ("shown", "hottest"),
    [
        (ALL_FRAMES, "ksys_read_[k]"),
        (FramesShown(kernel=False), "strlen (libc.so.6)"),
        (FramesShown(native=False), "ksys_read_[k]"),
        (PYTHON_ONLY, "foo (app/work.py:10)"),
    ],
)
def test_time_of_frames_that_are_not_shown_goes_to_their_caller(shown: Any, hottest: str) -> None:
    totals = totals_of(second((1, (MAIN, FOO, STRLEN, READ), 10)))
    assert next(iter(rows(totals, frames=shown))) == hottest


def test_a_stack_of_which_nothing_is_shown_keeps_its_samples() -> None:
    totals = totals_of(second((1, (STRLEN,), 10)))
    assert rows(totals, frames=PYTHON_ONLY) == {"[no frame is shown]": (10, 10, 0.1, 0.1)}


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        (Sort.OWN_NOW, "bar (app/work.py:20)"),
        (Sort.TOTAL_NOW, "main (app/main.py:1)"),
        (Sort.OWN_SINCE, "foo (app/work.py:10)"),
        (Sort.TOTAL_SINCE, "main (app/main.py:1)"),
    ],
)
def test_rows_are_sorted_by_the_chosen_column(sort: Sort, first: str) -> None:
    totals = totals_of(second((1, (MAIN, FOO), 90)), second((1, (MAIN, BAR), 50), (1, (MAIN,), 10)))
    assert next(iter(rows(totals, sort=sort))) == first


def test_a_process_restricts_the_functions_to_its_own() -> None:
    totals = totals_of(second((1, (FOO,), 10), (2, (BAR,), 30)))
    assert list(rows(totals, pid=1)) == ["foo (app/work.py:10)"]


def test_a_pattern_keeps_the_functions_that_it_matches_and_the_processes_that_ran_them() -> None:
    totals = totals_of(second((1, (MAIN, FOO), 10), (2, (MAIN, BAR), 30)))
    wanted = Wanted(pattern=re.compile("foo"))
    assert [row.pid for row in process_rows(totals, wanted, FREQUENCY)] == [1]
    assert list(rows(totals, pattern=wanted.pattern)) == ["foo (app/work.py:10)"]


def test_a_pattern_that_no_function_matches_keeps_those_of_the_processes_that_it_matches() -> None:
    totals = totals_of(second((1, (MAIN, FOO), 10), (2, (MAIN, BAR), 30)))
    assert "bar (app/work.py:20)" in rows(totals, pattern=re.compile("--number 2"))
    assert "foo (app/work.py:10)" not in rows(totals, pattern=re.compile("--number 2"))


def test_a_process_has_its_cpu_its_gil_and_its_hottest_line() -> None:
    totals = totals_of(second((7, (MAIN, FOO, STRLEN), 60), (7, (MAIN, BAR), 20), gil=Gil.HELD))
    (row,) = process_rows(totals, Wanted(), FREQUENCY)
    assert (row.pid, row.command, row.interpreter) == (7, "app --number 7", "3.12.4")
    assert (row.cpu_percent, row.gil_percent, row.seconds) == (80, 100, 0.8)
    assert row.hottest == "foo (app/work.py:12)"


def test_processes_are_sorted_by_the_interval_or_by_all_time() -> None:
    totals = totals_of(second((1, (FOO,), 90)), second((1, (FOO,), 10), (2, (BAR,), 50)))
    by_interval = process_rows(totals, Wanted(sort=Sort.OWN_NOW), FREQUENCY)
    by_all_time = process_rows(totals, Wanted(sort=Sort.TOTAL_SINCE), FREQUENCY)
    assert [row.pid for row in by_interval] == [2, 1]
    assert [row.pid for row in by_all_time] == [1, 2]


def test_counting_anew_keeps_the_last_interval() -> None:
    totals = totals_of(second((1, (FOO,), 90)))
    totals.reset()
    assert rows(totals) == {"foo (app/work.py:10)": (90, 90, 0, 0)}


def test_what_is_frozen_does_not_change() -> None:
    totals = totals_of(second((1, (FOO,), 90)))
    still = totals.frozen()
    before = rows(still), process_rows(still, Wanted(), FREQUENCY)
    totals.add([second((1, (BAR,), 10), (2, (FOO,), 10))])
    assert (rows(still), process_rows(still, Wanted(), FREQUENCY)) == before


def test_truncated_samples_are_not_complete() -> None:
    totals = totals_of(second((1, (FOO,), 3)), second((1, (FOO,), 1), outcome=Outcome.TOO_DEEP))
    assert (totals.since.all.complete, totals.since.all.samples) == (3, 4)


def test_short_lived_processes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals_module, "PROCESSES_MAX", 10)
    totals = LiveTotals()
    for pid in range(1, 100):
        totals.add([second((pid, (FOO,), 5), (1000, (FOO,), 10))])
    assert len(totals.since.by_pid) <= 11
    assert len(totals.processes) <= 12
    assert 1000 in totals.since.by_pid
    assert totals.since.all.samples == 99 * 15


def test_names_are_spelled_so_that_a_terminal_does_nothing_with_them() -> None:
    profile = second(*((1, (python(name, name, 1, 1),), 1) for name in HOSTILE_NAMES))
    labels = functions(totals_of(profile), Wanted()).rows(0, 100, FREQUENCY)
    assert len(labels) == len(HOSTILE_NAMES)
    assert all(row.label.isprintable() for row in labels)


def test_a_line_keeps_its_number_when_frames_come_and_go() -> None:
    places = totals_module.Places()
    numbers = [places.line(Frame(FrameKind.PYTHON, "f", "f.py", 1, line % 10)) for line in range(100)]
    assert numbers == list(range(10)) * 10
    assert (len(places.lines), len(places.functions)) == (10, 1)
