"""A profile whose counts are nanoseconds, of CPU or of another clock, through everything that takes counts for time."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from pyflame_ebpf.compare.comparison import compare
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.pprof_messages import profile_class
from pyflame_ebpf.outputs.processes import closing_line, process_rows
from pyflame_ebpf.profile.file import UnusableProfileError, load_profile, save_profile
from pyflame_ebpf.profile.model import Clock, Outcome, Process, Profile, SampleUnit, Stack, Thread
from pyflame_ebpf.profile.selection import Selection
from tests.profiles import ProfileWriter, python, recording

MAIN = python("main", "/srv/app.py", 1, 9)
READ = python("read", "/srv/app.py", 20, 22)
SECOND = 1_000_000_000


def waiting(by_stack: Mapping[Stack, float], seconds: int = 10, clock: Clock = Clock.OFF_CPU) -> Profile:
    """One process that waits so many seconds of each second in each stack."""
    profile = Profile(
        recording(duration=float(seconds), frequency=0, clock=clock, in_nanoseconds=True, lost=0, scheduler_cpu=None),
        [Process(7, "app", "app", "CPython 3.12.4")],
        [Thread(7, "app")],
    )
    writer = ProfileWriter(profile)
    for second in range(seconds):
        for stack, share in by_stack.items():
            writer.add(0, 0, stack, round(share * SECOND), second=second)
    return profile


def written(profile: Profile, name: str) -> bytes:
    stream = io.BytesIO()
    OUTPUT_FORMATS[name].write(profile, stream, OutputOptions())
    return stream.getvalue()


def saved(profile: Profile) -> bytes:
    stream = io.BytesIO()
    save_profile(profile, stream)
    return stream.getvalue()


PROFILE = waiting({(MAIN,): 0.25, (MAIN, READ): 0.5})


@pytest.mark.parametrize(
    ("unit", "count", "seconds", "nanoseconds"),
    [
        (SampleUnit(Clock.CPU, 99), 198, 2.0, 2 * SECOND),
        (SampleUnit(Clock.CPU, 99), 1, 1 / 99, 10_101_010),
        (SampleUnit(Clock.WALL, SECOND), 1_500_000_000, 1.5, 1_500_000_000),
        (SampleUnit(Clock.CPU, 0), 5, 0.0, 0),
    ],
)
def test_a_count_becomes_time_by_its_unit(unit: SampleUnit, count: int, seconds: float, nanoseconds: int) -> None:
    assert (unit.seconds(count), unit.nanoseconds(count)) == (seconds, nanoseconds)


def test_a_recording_counts_ticks_of_the_cpu_clock_unless_it_says_otherwise() -> None:
    assert recording(frequency=49).unit == SampleUnit(Clock.CPU, 49)
    assert recording(frequency=49, in_nanoseconds=True).unit == SampleUnit(Clock.CPU, SECOND)
    assert [recording(frequency=49).unit.is_time, PROFILE.unit.is_time] == [False, True]


@pytest.mark.parametrize("profile", [PROFILE, waiting({(MAIN,): 1}, clock=Clock.CPU)], ids=["waiting", "running"])
def test_a_profile_in_nanoseconds_is_saved_with_its_unit(profile: Profile) -> None:
    assert load_profile(io.BytesIO(saved(profile))) == profile


def test_a_profile_in_ticks_is_saved_as_older_versions_read_it() -> None:
    document = json.loads(gzip.decompress(saved(Profile(recording()))))
    assert (document["version"], "unit" in document["recording"]) == (3, False)


@pytest.mark.parametrize("unit", [None, {"clock": 9, "nanoseconds": 1}, {"clock": 0, "nanoseconds": True}, {}])
def test_a_unit_that_makes_no_sense_is_refused(unit: Any) -> None:
    document = json.loads(gzip.decompress(saved(PROFILE)))
    assert document["version"] == 4
    document["recording"]["unit"] = unit
    with pytest.raises(UnusableProfileError, match="not a profile that can be read"):
        load_profile(io.BytesIO(gzip.compress(json.dumps(document).encode())))


def test_a_part_of_the_time_keeps_the_unit() -> None:
    part = Selection(begin=2, end=4).of(PROFILE)
    assert (part.unit.seconds(part.total), part.unit) == (1.5, PROFILE.unit)


def test_the_table_shows_the_time_as_a_share_of_the_recordings() -> None:
    (row,) = process_rows(PROFILE)
    assert (row.cpu_percent, row.samples) == (75.0, 7_500_000_000)
    assert row.hot_line is not None
    assert (row.hot_line.function, row.hot_line.samples) == ("read", 5_000_000_000)
    assert b"75.0" in written(PROFILE, "table")
    assert closing_line(PROFILE).endswith("they account for 7.5 s of waiting")


def test_pprof_has_the_nanoseconds_of_the_clock_alone() -> None:
    message = profile_class().FromString(gzip.decompress(written(PROFILE, "pprof")))
    text = message.string_table
    assert [(text[each.type], text[each.unit]) for each in message.sample_type] == [("off-cpu", "nanoseconds")]
    assert (text[message.default_sample_type], text[message.period_type.type], message.period) == (
        "off-cpu",
        "off-cpu",
        1,
    )
    assert [list(sample.value) for sample in message.sample] == [[2_500_000_000], [5_000_000_000]]


def test_folded_stacks_count_nanoseconds() -> None:
    assert written(PROFILE, "folded").decode() == (
        "app (7);main (srv/app.py:1) 2500000000\napp (7);main (srv/app.py:1);read (srv/app.py:20) 5000000000\n"
    )


def test_json_lines_speedscope_and_firefox_have_seconds() -> None:
    lines = [json.loads(line) for line in written(PROFILE, "jsonl").splitlines()]
    assert [line["cpu_seconds"] for line in lines] == [5.0, 2.5]
    (sampled,) = json.loads(written(PROFILE, "speedscope"))["profiles"]
    assert (sampled["unit"], sampled["endValue"]) == ("seconds", 7.5)
    document = json.loads(gzip.decompress(written(PROFILE, "firefox")))
    (thread,) = document["threads"]
    assert document["meta"]["interval"] == 1
    assert (thread["samples"]["weightType"], sum(thread["samples"]["weight"])) == ("tracing-ms", 7500.0)
    assert "threadCPUDelta" not in thread["samples"]


def test_the_flame_graph_tells_seconds_of_waiting() -> None:
    assert "7.5 s of waiting · 10.0 s on 4 CPUs" in written(PROFILE, "svg").decode()


def test_a_comparison_is_in_cores_and_time_that_was_measured_scatters_between_parts_only() -> None:
    later = waiting({(MAIN,): 0.25, (MAIN, READ): 0.75})
    comparison = compare(PROFILE, later)
    total = comparison.total
    assert total is not None
    assert (total.before, total.after, total.standard_error, total.is_beyond_noise) == (0.75, 1.0, 0.0, True)
    own = {row.subject.name: (row.own.before, row.own.after) for row in comparison.functions.rows}
    assert own == {"read": (0.5, 0.75), "main": (0.25, 0.25)}


def test_ticks_and_measured_time_of_one_clock_compare_in_cores() -> None:
    ticks = Profile(recording(duration=10.0, frequency=100), [Process(7, "app", "app")], [Thread(7, "app")])
    writer = ProfileWriter(ticks)
    for second in range(10):
        writer.add(0, 0, (MAIN,), 25, second=second, outcome=Outcome.COMPLETE)
    total = compare(ticks, waiting({(MAIN,): 0.5}, clock=Clock.CPU)).total
    assert total is not None
    assert (total.before, total.after) == (0.25, 0.5)
    assert total.variance_before > 0
    assert total.variance_after == 0
