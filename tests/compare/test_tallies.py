"""What is counted of one recording: its time in parts, its functions, lines and processes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pyflame_ebpf.compare.tallies import NO_FRAME, PROCESS, Span, Subject, Tally, part_seconds, tallies
from pyflame_ebpf.profile.file import UnusableProfileError
from pyflame_ebpf.profile.model import Frame, FrameKind, Process, Profile, Stack, Thread
from tests.profiles import ProfileWriter, native, python, recording, wide_profile

MAIN, FOO = python("<module>", "/srv/app.py", 1, 20), python("foo", "/srv/app.py", 1, 3)
INTERPRETER = "/usr/lib/libpython3.12.so.1.0"


def profile_of(samples: Mapping[tuple[int, int, Stack], int], **circumstances: object) -> Profile:
    """A recording of two processes; samples by second, process and stack."""
    made = Profile(
        recording(**{"duration": 40.0, "frequency": 100, **circumstances}),
        [Process(1, "web", "python web.py"), Process(2, "cron")],
        [Thread(1, "main")],
    )
    writer = ProfileWriter(made)
    for (second, process, stack), count in samples.items():
        writer.add(process, 0, stack, count, second=second)
    return made


def counted(profile: Profile, interpreters: frozenset[str] = frozenset()) -> dict[str, dict[Subject, tuple[int, int]]]:
    """Own and total samples by table and subject."""
    found = tallies(profile, lambda _frame: True, interpreters)
    tables = {"functions": found.functions, "lines": found.lines, "processes": found.processes}
    return {
        name: {subject: (own.samples, total.samples) for subject, (own, total) in table.items()}
        for name, table in tables.items()
    }


@pytest.mark.parametrize(("duration", "seconds"), [(0.0, 1), (39.9, 1), (40.0, 2), (59.9, 2), (60.0, 3), (1200.0, 60)])
def test_a_recording_has_twenty_parts_of_whole_seconds(duration: float, seconds: int) -> None:
    assert part_seconds(profile_of({}, duration=duration)) == seconds


def test_a_span_has_the_samples_of_each_whole_part() -> None:
    samples: dict[tuple[int, int, Stack], int] = {
        (0, 0, (MAIN,)): 1,
        (1, 0, (MAIN,)): 2,
        (2, 1, (MAIN,)): 4,
        (45, 0, (MAIN,)): 8,
        (46, 0, (MAIN,)): 16,
    }
    assert Span.of(profile_of(samples, duration=47.0, cpus=3)) == Span(
        samples=31,
        counts_per_core=4700.0,
        cpus=3,
        part_seconds=2,
        parts=(3, 4, *[0] * 20, 8),
        parts_in_all=23.5,
        is_time=False,
    )


@pytest.mark.parametrize(("duration", "parts"), [(7.9, 0), (8.0, 8)])
def test_a_span_of_fewer_than_eight_parts_has_none(duration: float, parts: int) -> None:
    assert len(Span.of(profile_of({(0, 0, (MAIN,)): 1}, duration=duration)).parts) == parts


def test_a_span_without_times_has_no_parts() -> None:
    assert Span.of(profile_of({(0, 0, (MAIN,)): 1}, started=0.0)).parts == ()


def test_a_tally_that_is_merged_has_the_samples_and_parts_of_both() -> None:
    tally, other = Tally(), Tally()
    tally.add(0, 1)
    other.add(0, 2)
    other.add(3, 4)
    tally.merge(other)
    assert (tally.samples, dict(tally.parts)) == (7, {0: 3, 3: 4})


def test_samples_are_counted_by_the_part_that_they_fall_in() -> None:
    found = tallies(profile_of({(1, 0, (FOO,)): 1, (2, 0, (FOO,)): 2, (5, 1, (FOO,)): 4}), lambda _frame: True, set())
    parts = {0: 1, 1: 2, 2: 4}
    assert (found.all.samples, dict(found.all.parts)) == (7, parts)
    ((own, total),) = found.functions.values()
    assert (dict(own.parts), dict(total.parts)) == (parts, parts)


def test_functions_lines_and_processes_have_their_own_samples_and_those_with_callees() -> None:
    assert counted(profile_of({(0, 0, (MAIN, FOO)): 3, (9, 1, (MAIN,)): 5})) == {
        "functions": {
            Subject("python", "foo", "/srv/app.py"): (3, 3),
            Subject("python", "<module>", "/srv/app.py"): (5, 8),
        },
        "lines": {
            Subject("python", "foo", "/srv/app.py", 3): (3, 3),
            Subject("python", "<module>", "/srv/app.py", 20): (5, 8),
        },
        "processes": {Subject(PROCESS, "python web.py"): (3, 3), Subject(PROCESS, "cron"): (5, 5)},
    }


def test_only_python_has_lines_and_a_function_without_a_line_has_its_first() -> None:
    stack = (
        Frame(FrameKind.PYTHON, "unknown", "/srv/app.py"),
        Frame(FrameKind.PYTHON, "first", "/srv/app.py", first_line=7),
        Frame(FrameKind.NATIVE, "sort", "/usr/bin/python3", line=9),
    )
    assert counted(profile_of({(0, 0, stack): 1}))["lines"] == {Subject("python", "first", "/srv/app.py", 7): (1, 1)}


def test_what_started_the_interpreter_is_not_what_it_does_for_a_function() -> None:
    start, allocate = native("Py_BytesMain", INTERPRETER), native("_PyObject_Malloc", INTERPRETER)
    profile = profile_of({(0, 0, (start, MAIN, allocate)): 2, (0, 0, (start,)): 1})
    assert counted(profile, frozenset({INTERPRETER}))["functions"] == {
        Subject("native", "Py_BytesMain", INTERPRETER): (1, 3),
        Subject("python", "<module>", "/srv/app.py"): (2, 2),
    }


def test_a_stack_of_nothing_that_is_shown_is_counted_as_such() -> None:
    found = tallies(profile_of({(0, 0, (MAIN,)): 2}), lambda _frame: False, set())
    assert {subject: own.samples for subject, (own, _) in found.functions.items()} == {NO_FRAME: 2}
    assert found.lines == {}


def test_more_parts_of_functions_than_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = wide_profile(50)
    monkeypatch.setattr("pyflame_ebpf.compare.tallies.PARTS_MAX", 100)
    with pytest.raises(UnusableProfileError, match="more than 100 parts of functions cannot be compared"):
        tallies(profile, lambda _: True, set())
