"""What changed between two recordings, and what of it is noise: the arithmetic, without files."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyflame_ebpf.compare.comparison import Change, Changes, Comparison, Measure, Row, Rules, Side, compare, knows_cores
from pyflame_ebpf.compare.tallies import Span, Subject, Tally, tallies
from pyflame_ebpf.profile.model import Process, Profile, Stack, Thread
from tests.profiles import ProfileWriter, native, profiles, python, realistic_profile, recording

FOO = python("foo", "/srv/app.py", 1, 3)
BAR = python("bar", "/srv/app.py", 10, 12)
MAIN = python("<module>", "/srv/app.py", 1, 20)


def profile_of(
    counts: Mapping[Stack, int],
    *,
    seconds: int = 10,
    second_of: Callable[[int, int], int] | None = None,
    **circumstances: Any,
) -> Profile:
    """A recording of one process: {stack: samples}, spread evenly over its seconds unless told otherwise."""
    made = Profile(
        recording(**{"duration": float(seconds), "frequency": 100, "lost": 0, **circumstances}),
        [Process(7, "python3", "python3 app.py", "CPython 3.12.4")],
        [Thread(7, "python3")],
    )
    add = ProfileWriter(made).add
    for stack, count in counts.items():
        for index in range(seconds):
            share = count // seconds + (index < count % seconds) if second_of is None else second_of(index, count)
            if share:
                add(0, 0, stack, share, second=index)
    return made


def bursts(samples: int, **circumstances: Any) -> Profile:
    """47.6 s in which foo has all of its samples in the first seconds of every ten; bar's come steadily."""
    made = steady(samples, **circumstances)
    moved = {key: count for key, count in made.samples.items() if made.frames_of(key.stack)[-1] == FOO}
    for key, count in moved.items():
        del made.samples[key]
        made.samples[key._replace(second=key.second // 10 * 10 + key.second % 3)] += count
    return made


def steady(samples: int, **circumstances: Any) -> Profile:
    """The same with as many samples of foo in each second."""
    return profile_of(
        {(MAIN, FOO): samples, (MAIN, BAR): 750}, seconds=47, **{"duration": 47.6, "cpus": 4, **circumstances}
    )


def total_of(comparison: Comparison) -> Change:
    assert comparison.total is not None
    return comparison.total


def row_of(changes: Changes, name: str) -> Row:
    return next(row for row in changes.rows if row.subject.name == name)


def test_cores_used_do_not_depend_on_duration_or_frequency() -> None:
    before = profile_of({(MAIN, FOO): 500}, seconds=10)
    after = profile_of({(MAIN, FOO): 2000}, seconds=20, frequency=200)
    total = total_of(compare(before, after))
    assert (total.before, total.after, total.change) == (0.5, 0.5, 0.0)


def test_a_function_is_told_by_itself_and_with_what_it_called() -> None:
    before = profile_of({(MAIN, FOO): 500, (MAIN, BAR): 200})
    after = profile_of({(MAIN, FOO): 100, (MAIN, BAR): 200})
    functions = compare(before, after).functions
    assert [row.subject.name for row in functions.rows] == ["foo", "<module>", "bar"]
    assert row_of(functions, "foo").own.change == pytest.approx(-0.4)
    assert row_of(functions, "<module>").own.change == 0
    assert row_of(functions, "<module>").total.change == pytest.approx(-0.4)


def test_a_function_that_calls_itself_counts_once_for_a_stack() -> None:
    comparison = compare(profile_of({(MAIN, FOO, FOO, FOO): 100}), profile_of({(MAIN, FOO): 100}))
    foo = row_of(comparison.functions, "foo")
    assert (foo.total.samples_before, foo.total.samples_after) == (100, 100)


def test_what_c_functions_use_belongs_to_the_line_that_called_them() -> None:
    sort = native("list_sort", "/usr/bin/python3")
    lines = compare(profile_of({(MAIN, FOO, sort): 100}), profile_of({(MAIN, FOO): 10})).lines
    foo = row_of(lines, "foo")
    assert (foo.subject.line, foo.own.samples_before, foo.own.samples_after) == (3, 100, 10)


INTERPRETER = "/usr/lib/libpython3.12.so.1.0"
ALLOCATE, COPY = native("_PyObject_Malloc", INTERPRETER), native("memcpy", "/usr/lib/libc.so.6")


def in_interpreter(counts: Mapping[Stack, int]) -> Profile:
    made = profile_of(counts)
    made.processes = [replace(each, interpreter_file=INTERPRETER) for each in made.processes]
    return made


def test_what_the_interpreter_does_for_a_function_is_the_functions_own() -> None:
    start = native("Py_BytesMain", INTERPRETER)
    profile = in_interpreter({(start, MAIN, FOO, ALLOCATE): 60, (start, MAIN, FOO, ALLOCATE, COPY): 30, (start,): 10})
    own = {row.subject.name: row.own.samples_before for row in compare(profile, profile).functions.rows}
    assert own == {"foo": 60, "memcpy": 30, "Py_BytesMain": 10, "<module>": 0}


def test_the_interpreter_can_be_told_apart() -> None:
    profile = in_interpreter({(MAIN, FOO, ALLOCATE): 60})
    functions = compare(profile, profile, rules=Rules(interpreter_apart=True)).functions
    assert row_of(functions, "_PyObject_Malloc").own.samples_before == 60


def test_frames_that_are_not_shown_leave_their_samples_to_their_callers() -> None:
    sort = native("list_sort", "/usr/bin/python3")
    before = profile_of({(MAIN, FOO, sort): 100, (sort,): 50})
    functions = compare(before, before, rules=Rules(lambda frame: frame != sort)).functions
    own = {row.subject.name: row.own.samples_before for row in functions.rows}
    assert own == {"<module>": 0, "foo": 100, "[no frame is shown]": 50}


def test_shares_are_of_all_samples() -> None:
    before = profile_of({(MAIN, FOO): 300, (MAIN, BAR): 100})
    after = profile_of({(MAIN, FOO): 100, (MAIN, BAR): 100})
    comparison = compare(before, after, Measure.SHARE)
    bar = row_of(comparison.functions, "bar")
    assert (bar.own.before, bar.own.after) == (0.25, 0.5)
    assert total_of(comparison).change == pytest.approx(-0.2)


def test_without_duration_or_frequency_shares_are_compared_and_there_is_no_total() -> None:
    before = profile_of({(MAIN, FOO): 300}, frequency=0)
    comparison = compare(before, profile_of({(MAIN, FOO): 100}))
    assert (comparison.measure, comparison.total) == (Measure.SHARE, None)


def test_the_error_of_a_count_is_that_of_its_ticks() -> None:
    before = profile_of({(MAIN, FOO): 400}, cpus=4)  # of 4,000 ticks on all CPUs
    total = total_of(compare(before, before))
    assert total.variance_before == pytest.approx(400 * (1 - 400 / 4000) / 1000**2)
    assert total.error == pytest.approx(2 * math.sqrt(2 * 360) / 1000)


def test_cpus_that_were_busy_all_the_time_leave_no_error() -> None:
    before = profile_of({(MAIN, FOO): 1000}, cpus=1)
    assert total_of(compare(before, before)).error == 0


def test_a_load_in_bursts_has_the_error_of_its_bursts() -> None:
    steady = profile_of({(MAIN, FOO): 400})
    bursts = profile_of({(MAIN, FOO): 400}, second_of=lambda second, _count: 100 if second % 3 == 0 else 0)
    assert total_of(compare(bursts, bursts)).error > 3 * total_of(compare(steady, steady)).error


def test_a_burst_that_comes_with_all_others_does_not_change_its_share() -> None:
    def half_the_time(second: int, count: int) -> int:
        return count // 5 if second % 2 else 0

    bursts = profile_of({(MAIN, FOO): 500, (MAIN, BAR): 500}, second_of=half_the_time)
    steady = profile_of({(MAIN, FOO): 500, (MAIN, BAR): 500})
    shares = [row_of(compare(each, each, Measure.SHARE).functions, "foo").own for each in (bursts, steady)]
    assert shares[0].error == pytest.approx(shares[1].error)


def test_a_few_samples_are_never_more_than_noise() -> None:
    before, after = profile_of({(MAIN, FOO): 9}), profile_of({(MAIN, BAR): 400})
    assert not total_of(compare(before, profile_of({(MAIN, FOO): 0, (MAIN, BAR): 0}))).is_beyond_noise
    assert compare(before, after).functions.is_beyond_noise(row_of(compare(before, after).functions, "bar").own)


def test_more_rows_ask_for_a_larger_change_before_it_is_one() -> None:
    few = profile_of({(MAIN, python(f"f{index}", "/srv/app.py", index, index)): 20 for index in range(1, 4)})
    many = profile_of({(MAIN, python(f"f{index}", "/srv/app.py", index, index)): 20 for index in range(1, 400)})
    assert compare(few, few).functions.threshold == 3.0
    assert compare(many, many).functions.threshold == pytest.approx(3.84, abs=0.01)


def test_changes_stand_before_noise_and_the_largest_first() -> None:
    before = {(MAIN, FOO): 500, (MAIN, BAR): 100}
    big_noise: dict[Stack, int] = {(MAIN, python(f"noise{index}", "/srv/n.py", 1, 1)): 5000 for index in range(2)}
    after = {(MAIN, FOO): 100, (MAIN, BAR): 400}
    noisy = {stack: count + 60 for stack, count in big_noise.items()}
    rows = compare(profile_of(before | big_noise, cpus=64), profile_of(after | noisy, cpus=64)).functions
    assert [row.subject.name for row in rows.rows[:2]] == ["foo", "bar"]
    assert [rows.is_beyond_noise(row.own) for row in rows.rows] == [True, True, False, False, False]


def test_unequal_durations_do_not_make_a_change_of_nothing() -> None:
    """Four samples a minute: none in five seconds says little, though the error of no samples at all is zero."""
    short = profile_of({(MAIN, BAR): 300}, seconds=5)
    long = profile_of({(MAIN, BAR): 3600, (MAIN, FOO): 40}, seconds=60)
    functions = compare(short, long).functions
    assert not functions.is_beyond_noise(row_of(functions, "foo").own)


def simulated(rate: float, seconds: int, seed: int) -> Profile:
    """Samples of a load that every tick of four CPUs meets by chance, by second."""
    chosen = random.Random(seed)
    counts = [sum(chosen.random() < rate / 4 for _ in range(400)) for _ in range(seconds)]
    return profile_of({(MAIN, FOO): 1}, seconds=seconds, second_of=lambda second, _count: counts[second])


def test_a_steady_load_is_told_from_itself_no_more_often_than_promised() -> None:
    same = [total_of(compare(simulated(1.0, 10, seed), simulated(1.0, 10, 1000 + seed))) for seed in range(100)]
    assert sum(total.is_beyond_noise for total in same) <= 2  # 0.27 expected
    assert sum(abs(total.change) > total.error for total in same) <= 11  # 5 expected


def test_a_load_that_fell_by_a_quarter_is_told() -> None:
    totals = [total_of(compare(simulated(1.0, 10, seed), simulated(0.75, 10, 1000 + seed))) for seed in range(20)]
    assert all(total.is_beyond_noise for total in totals)
    assert sum(abs((total.relative or 0) + 0.25) <= (total.relative_error or 0) for total in totals) >= 17


@settings(max_examples=40, deadline=None)
@given(profiles(), profiles(), st.sampled_from(Measure))
def test_swapping_the_recordings_turns_every_change_round(before: Profile, after: Profile, measure: Measure) -> None:
    there, back = compare(before, after, measure), compare(after, before, measure)
    if there.total and back.total:
        assert there.total.change == -back.total.change
        assert there.total.error == pytest.approx(back.total.error)
    for name in ("functions", "processes"):
        forward, backward = changes_by_subject(there, name), changes_by_subject(back, name)
        if not there.moved and not back.moved:
            assert sorted(forward.values()) == sorted((-change, error) for change, error in backward.values())


def changes_by_subject(comparison: Comparison, table: str) -> dict[Subject, tuple[float, float]]:
    rows = getattr(comparison, table).rows
    return {row.subject: (row.own.change, round(row.own.error, 9)) for row in rows}


@settings(max_examples=40, deadline=None)
@given(profiles(), st.sampled_from(Measure))
def test_a_recording_has_not_changed_from_itself(profile: Profile, measure: Measure) -> None:
    comparison = compare(profile, profile, measure)
    for changes in (comparison.functions, comparison.lines, comparison.processes):
        assert all(row.own.change == row.total.change == 0 for row in changes.rows)
        assert not any(changes.is_beyond_noise(row.total) for row in changes.rows)


@settings(max_examples=40, deadline=None)
@given(profiles(), profiles())
def test_what_functions_and_what_processes_use_themselves_adds_up_to_all(before: Profile, after: Profile) -> None:
    assume(knows_cores(before) and knows_cores(after))
    comparison = compare(before, after)
    for changes in (comparison.functions, comparison.processes):
        assert sum(row.own.samples_before for row in changes.rows) == before.total
        assert sum(row.own.samples_after for row in changes.rows) == after.total
        summed = sum(row.own.change for row in changes.rows)
        assert summed == pytest.approx(total_of(comparison).change, abs=1e-6 * (1 + abs(total_of(comparison).after)))


@settings(max_examples=40, deadline=None)
@given(profiles(), profiles())
def test_with_callees_is_never_less_than_alone(before: Profile, after: Profile) -> None:
    for row in compare(before, after).functions.rows:
        assert row.total.samples_before >= row.own.samples_before
        assert row.total.samples_after >= row.own.samples_after


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_the_relative_change_and_its_error_scale_with_nothing(before: int, after: int) -> None:
    change = Change(before, after, before, after, before, after, before + after)
    tenfold = Change(before * 10, after * 10, before, after, before * 100, after * 100, (before + after) * 100)
    assert change.relative == pytest.approx(tenfold.relative)
    assert change.relative_error == pytest.approx(tenfold.relative_error)


def test_a_recording_that_is_cut_in_two_has_the_cores_of_the_whole() -> None:
    profile = realistic_profile()
    half = replace(profile, samples=Counter({key: n for key, n in profile.samples.items() if key.second < 30}))
    half.recording = replace(half.recording, duration=30.0)
    total = total_of(compare(profile, half))
    assert total.before == pytest.approx(total.after, rel=0.01)
    assert not total.is_beyond_noise


def test_the_scatter_of_the_parts_is_a_sample_variance_of_one_less_than_their_number() -> None:
    span = Span(
        samples=100, counts_per_core=1000.0, cpus=4, part_seconds=1, parts=(10,) * 10, parts_in_all=10.0, is_time=False
    )
    bursts_of_20 = Tally(100, Counter(dict.fromkeys(range(0, 10, 2), 20)))  # 100 from the mean of 10, squared
    assert Side.of(span, Measure.CORES).variance(bursts_of_20) == pytest.approx(10 * 100 / 9 * 10 / 1000**2)
    assert Side.of(span, Measure.SHARE).variance(bursts_of_20) == pytest.approx(10 * 100 / 9 * 10 / 100**2)
    assert Side.of(span, Measure.CORES).variance(Tally(100)) == pytest.approx(100 * (1 - 100 / 4000) / 1000**2)


def test_the_scatter_of_shares_is_from_what_each_part_had_in_all() -> None:
    parts = (20, 60) * 5
    span = Span(samples=400, counts_per_core=0.0, cpus=4, part_seconds=1, parts=parts, parts_in_all=10.0, is_time=False)
    half = Tally(200, Counter({part: samples // 2 for part, samples in enumerate(parts)}))
    moved = Tally(200, half.parts + Counter({0: 6}) - Counter({1: 6}))
    assert Side.of(span, Measure.SHARE).variance(half) == pytest.approx(200 * (1 - 200 / 400) / 400**2)
    assert Side.of(span, Measure.SHARE)._scatter(moved) == pytest.approx(2 * 36 / 9 * 10)


@pytest.mark.parametrize(
    ("frequency", "duration", "known"), [(1, 1.0, True), (99, 0.02, True), (1, 0.9, False), (0, 60.0, False)]
)
def test_cores_are_known_from_one_tick_on(frequency: int, duration: float, known: bool) -> None:
    assert knows_cores(Profile(recording(frequency=frequency, duration=duration))) is known


@pytest.mark.parametrize(("samples", "threshold"), [(10, NormalDist().inv_cdf(1 - 0.05 / 80)), (8, 3.0)])
def test_rows_count_for_the_threshold_from_ten_samples_on(samples: int, threshold: float) -> None:
    profile = profile_of({(python(f"f{index}", "/srv/a.py", 1, 1),): samples // 2 for index in range(40)})
    assert compare(profile, profile).functions.threshold == pytest.approx(threshold)


def test_a_recording_is_cut_into_parts_of_whole_seconds() -> None:
    counts = [3, 4, 0, 5, *[1] * 40]
    profile = profile_of({(FOO,): sum(counts)}, seconds=44, second_of=lambda second, _: counts[second])
    assert Span.of(profile) == Span(
        samples=52,
        counts_per_core=4400.0,
        cpus=4,
        part_seconds=2,
        parts=(7, 5, *[2] * 20),
        parts_in_all=22.0,
        is_time=False,
    )


@pytest.mark.parametrize(("seconds", "parts"), [(7, ()), (8, (1,) * 8)])
def test_fewer_parts_than_eight_tell_no_scatter(seconds: int, parts: tuple[int, ...]) -> None:
    assert Span.of(profile_of({(FOO,): seconds}, seconds=seconds)).parts == parts


def test_samples_without_times_tell_no_scatter() -> None:
    assert Span.of(profile_of({(FOO,): 10}, started=0.0)).parts == ()


def test_samples_are_counted_by_part() -> None:
    counts = [3, 4, 0, 5, *[1] * 40]
    profile = profile_of({(MAIN, FOO): sum(counts)}, seconds=44, second_of=lambda second, _: counts[second])
    by_part = Counter({0: 7, 1: 5, **dict.fromkeys(range(2, 22), 2)})
    counted = tallies(profile, lambda _: True, set())
    assert counted.all == Tally(52, by_part)
    assert list(counted.functions.values()) == [(counted.all, counted.all), (Tally(), counted.all)]
    assert list(counted.processes.values()) == [(counted.all, counted.all)]
