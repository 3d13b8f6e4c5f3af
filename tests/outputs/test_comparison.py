"""What a comparison is written as: words, tables, JSON, CSV, folded stacks and a differential flame graph."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from pyflame_ebpf.compare.comparison import Comparison, Measure, compare
from pyflame_ebpf.compare.tallies import part_seconds
from pyflame_ebpf.outputs.comparison.differential import both_stacks, tallies_at
from pyflame_ebpf.outputs.comparison.formats import COMPARISON_FORMATS
from pyflame_ebpf.outputs.comparison.options import DEFAULT_COMPARISON_OPTIONS, ComparisonOptions
from pyflame_ebpf.outputs.comparison.words import doubts, headline, plain, saving, signed
from pyflame_ebpf.outputs.flame_tree import flame_boxes
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.profile.selection import Selection
from tests.compare.test_comparison import BAR, FOO, MAIN, bursts, profile_of, steady
from tests.profiles import hostile_profile, native, profiles, python, realistic_profile

MINUS = "\N{MINUS SIGN}"
SVG = "{http://www.w3.org/2000/svg}"
BEFORE = profile_of({(MAIN, FOO): 2250, (MAIN, BAR): 750})
AFTER = profile_of({(MAIN, FOO): 240, (MAIN, BAR): 750})


def written(name: str, comparison: Comparison, **options: Any) -> str:
    stream = io.BytesIO()
    COMPARISON_FORMATS[name].write(comparison, stream, ComparisonOptions(**options))
    return stream.getvalue().decode()


def graph(comparison: Comparison, **options: Any) -> ET.Element:
    return ET.fromstring(written("svg", comparison, **options))


def data(svg: ET.Element) -> Any:
    return json.loads(svg.findtext(f"{SVG}script[@id='pyflame-data']", ""))


def box_classes(document: Any) -> Any:
    """The class of each box by its label."""
    names = [document["labels"][index] for index in document["label"]]
    return dict(zip(names, (document["classes"][index] for index in document["boxClass"]), strict=True))


def test_what_fell_is_said_in_cores_and_per_cent_with_its_error() -> None:
    assert headline(compare(BEFORE, AFTER)) == (
        f"CPU per second fell 67.0 % ± 1.9 %: 3.000 → 0.990 cores ({MINUS}2.010 ± 0.077)."
    )


def test_what_rose_is_said() -> None:
    assert headline(compare(AFTER, BEFORE)).startswith("CPU per second rose 203")


def test_what_came_of_nothing_has_no_per_cent() -> None:
    nothing = profile_of({(MAIN, FOO): 0})
    assert headline(compare(nothing, AFTER)) == "CPU per second rose: 0.000 → 0.990 cores (+0.990 ± 0.055)."


def test_no_change_is_said_with_what_was_measured() -> None:
    assert headline(compare(BEFORE, BEFORE)) == "No change beyond noise: 3.000 → 3.000 cores (0.000 ± 0.077)."


def test_what_is_saved_a_month_is_told_with_its_error() -> None:
    text = saving(compare(BEFORE, AFTER), 0.04)
    assert text == "That saves 58.7 ± 2.3 a month (730 hours at 0.04 a core-hour)."
    assert saving(compare(AFTER, BEFORE), 0.04).startswith("That costs 58.7 ± 2.3 a month more")
    assert saving(compare(AFTER, AFTER), 0.04).startswith("No saving beyond noise: 0.0 ± 2.3 a month")


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [(3.14159, 0.0412, "3.142"), (1234.5, 67.0, "1,234"), (0.5, 0.0, "0.50"), (0.00001, 0.000001, "0.0000")],
)
def test_a_figure_has_as_many_digits_as_its_error_allows(value: float, error: float, shown: str) -> None:
    assert plain(value, error) == shown


def test_a_change_that_rounds_to_nothing_has_no_sign() -> None:
    assert (signed(-0.0001, 0.1), signed(-0.2, 0.1), signed(0.2, 0.1)) == ("0.00", f"{MINUS}0.20", "+0.20")


def test_different_hosts_and_lost_samples_are_doubts() -> None:
    other = replace(AFTER, recording=replace(AFTER.recording, cpus=8, lost=500))
    said = list(doubts(compare(BEFORE, other)))
    assert any("500 samples were lost after" in doubt for doubt in said)
    assert any("4 CPUs before, 8 after" in doubt for doubt in said)


def test_the_table_marks_noise_and_puts_the_change_first() -> None:
    lines = written("table", compare(BEFORE, AFTER), by=("function",)).splitlines()
    rows = [line for line in lines if "(srv/app.py" in line]
    assert [row.split()[-2] for row in rows] == ["foo", "<module>", "bar"]
    assert [row.lstrip().startswith("~") for row in rows] == [False, True, True]


def test_top_limits_the_rows_and_says_what_is_left_out() -> None:
    text = written("table", compare(BEFORE, AFTER), by=("function",), top=1)
    assert "2 more, 0 of them beyond noise" in text
    assert "bar" not in text


def test_json_has_everything_in_figures() -> None:
    document = json.loads(written("json", compare(BEFORE, AFTER), core_hour_price=0.04))
    assert document["total"]["relative_change"] == pytest.approx(-0.67)
    assert document["total"]["beyond_noise"] is True
    assert document["saving"]["monthly"] == pytest.approx(2.01 * 730 * 0.04)
    first = document["functions"][0]
    assert (first["name"], first["file"], first["self"]["samples_after"]) == ("foo", "/srv/app.py", 240)
    assert document["processes"][0]["name"] == "python app.py"


def test_csv_has_a_line_for_the_whole_and_for_each_row() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv", compare(BEFORE, AFTER)))))
    assert [row["by"] for row in rows] == ["all", *["function"] * 3, *["line"] * 3, "process"]
    assert float(rows[1]["self_change"]) == pytest.approx(-2.01)


def test_folded_stacks_have_two_counts() -> None:
    text = written("folded", compare(BEFORE, AFTER))
    assert text.splitlines() == [
        "python app.py;<module> (srv/app.py:1);bar (srv/app.py:10) 750 750",
        "python app.py;<module> (srv/app.py:1);foo (srv/app.py:1) 2250 240",
    ]


def test_folded_counts_before_are_scaled_to_the_later_recordings_length() -> None:
    long = profile_of({(MAIN, FOO): 4500}, seconds=20)
    assert written("folded", compare(long, AFTER)).splitlines()[1].endswith(" 2250 240")


def test_normalized_folded_counts_add_up_alike() -> None:
    text = written("folded", compare(BEFORE, AFTER, Measure.SHARE))
    counts = [tuple(map(int, line.rsplit(" ", 2)[1:])) for line in text.splitlines()]
    assert abs(sum(before for before, _ in counts) - sum(after for _, after in counts)) <= len(counts)


def test_boxes_are_blue_where_less_is_used_red_where_more_and_grey_within_noise() -> None:
    shrunk = box_classes(data(graph(compare(BEFORE, AFTER))))
    grown = box_classes(data(graph(compare(AFTER, BEFORE))))
    assert shrunk["foo (srv/app.py:1)"].startswith("less")
    assert grown["foo (srv/app.py:1)"].startswith("more")
    assert shrunk["bar (srv/app.py:10)"] == grown["bar (srv/app.py:10)"] == "same"


def test_normalized_what_did_not_shrink_has_grown() -> None:
    shares = box_classes(data(graph(compare(BEFORE, AFTER, Measure.SHARE))))
    assert shares["bar (srv/app.py:10)"].startswith("more")
    assert shares["all"] == "same"


def test_boxes_are_as_wide_as_after_or_reversed_as_before() -> None:
    comparison = compare(BEFORE, AFTER)
    forward, backward = data(graph(comparison)), data(graph(comparison, reversed_graph=True))
    assert (forward["samples"][0], forward["compared"]["others"][0]) == (990, 3000)
    assert (backward["samples"][0], backward["compared"]["others"][0]) == (3000, 990)
    assert box_classes(backward)["foo (srv/app.py:1)"] == box_classes(forward)["foo (srv/app.py:1)"]


def test_the_picture_without_scripts_tells_both_figures() -> None:
    titles = [title.text for title in graph(compare(BEFORE, AFTER)).iter(f"{SVG}title")]
    assert f"foo (srv/app.py:1): 2.250 → 0.240 cores, {MINUS}2.010 ±0.070" in titles


@pytest.mark.parametrize("measure", Measure)
def test_the_error_of_a_box_is_that_of_its_row_in_the_table(measure: Measure) -> None:
    comparison = compare(bursts(2250), bursts(900), measure)
    document = data(graph(comparison))
    names = [document["labels"][index] for index in document["label"]]
    errors = dict(zip(names, document["compared"]["errors"], strict=True))
    digits, unit = (3, 1) if measure is Measure.CORES else (2, 100)
    rows = {row.subject.name: row.total for row in comparison.functions.rows}
    assert errors["foo (srv/app.py:1)"] == round(unit * rows["foo"].error, digits)
    assert errors["bar (srv/app.py:10)"] == round(unit * rows["bar"].error, digits)
    assert errors["foo (srv/app.py:1)"] > 5 * steady_error(measure) * unit


def steady_error(measure: Measure) -> float:
    comparison = compare(steady(2250), steady(900), measure)
    return next(row.total.error for row in comparison.functions.rows if row.subject.name == "foo")


def test_what_is_gone_is_a_box_only_by_what_was_before() -> None:
    gone = profile_of({(MAIN, BAR): 750})
    comparison = compare(BEFORE, gone)
    assert "foo (srv/app.py:1)" not in data(graph(comparison))["labels"]
    assert box_classes(data(graph(comparison, reversed_graph=True)))["foo (srv/app.py:1)"].startswith("less")


def test_stacks_of_processes_that_share_a_command_are_one() -> None:
    double = realistic_profile()
    both = both_stacks(compare(double, double), DEFAULT_COMPARISON_OPTIONS.output)
    assert both.before == both.after


@settings(max_examples=30, deadline=None)
@given(profiles(), profiles())
def test_every_box_has_the_samples_that_its_stacks_have(before: Profile, after: Profile) -> None:
    both = both_stacks(compare(before, after), DEFAULT_COMPARISON_OPTIONS.output)
    boxes = flame_boxes(both.after.stacks, 0.0, 10**6)
    assert [tally.samples for tally in tallies_at(boxes, both.after)] == boxes.samples
    every = tallies_at(boxes, both.before)[0]
    width = part_seconds(before)
    assert every.samples == before.total
    assert every.parts == Counter(key.second // width for key in before.samples.elements())


def test_what_the_whole_recording_lost_is_not_said_of_a_part() -> None:
    lost = profile_of({(MAIN, FOO): 2250}, lost=40)
    part = Selection(end=1.0).of(lost)
    assert list(doubts(compare(part, part))) == [
        f"40 samples were lost in the whole recording {name}, so that too little CPU may be counted there"
        for name in ("before", "after")
    ]
    few = Selection(end=1.0).of(profile_of({(MAIN, FOO): 2250}, lost=20))  # 20 of the whole's 2,270, not of 245
    assert list(doubts(compare(few, few))) == []


@pytest.mark.parametrize("name", COMPARISON_FORMATS)
def test_hostile_names_break_no_format(name: str) -> None:
    before = hostile_profile()
    text = written(name, compare(before, realistic_profile()))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>alert" not in text or name in ("json", "csv", "table", "folded")
    if name == "svg":
        ET.fromstring(text)
    if name == "json":
        assert json.loads(text)["measure"] == "cores"


def test_native_functions_of_different_libraries_are_different() -> None:
    one, other = native("init", "/usr/lib/liba.so"), native("init", "/usr/lib/libb.so")
    functions = compare(profile_of({(one,): 100}), profile_of({(other,): 100})).functions
    assert len(functions.rows) == 2


def test_a_label_says_where_the_later_recording_has_the_function() -> None:
    moved = profile_of({(MAIN, python("foo", "/srv/app.py", 101, 103)): 240})
    text = written("folded", compare(BEFORE, moved))
    assert "foo (srv/app.py:101) 2250 240" in text
