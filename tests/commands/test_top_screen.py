"""The lines of the live view on screens of all sizes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from pyflame_ebpf.commands.top_screen import HELP_KEYS, Situation, screen
from pyflame_ebpf.live.rows import Sort
from pyflame_ebpf.live.totals import LiveTotals
from pyflame_ebpf.live.view import Action, ViewState, pressed
from pyflame_ebpf.profile.model import Process, Profile, Thread
from pyflame_ebpf.recording.recorder import Progress
from tests.profiles import HOSTILE_NAMES, profile_with, python, realistic_profile, recording, set_stacks

SITUATION = Situation("all processes", "web-1", 99, 4, Progress(61.5, 6166, 40, 3, 2))


@pytest.fixture(scope="module")
def totals() -> LiveTotals:
    totals = LiveTotals()
    totals.add([realistic_profile()])
    return totals


def text(state: ViewState, totals: LiveTotals, width: int = 120, height: int = 40) -> str:
    return "\n".join(line.plain for line in screen(state, totals, SITUATION, width, height).lines)


def changed(state: ViewState = ViewState(), **wanted: Any) -> ViewState:  # noqa: B008 - frozen
    return replace(state, wanted=replace(state.wanted, **wanted))


@pytest.mark.parametrize("width", [20, 40, 55, 63, 80, 120, 200])
@pytest.mark.parametrize("height", [8, 24, 40, 100])
@pytest.mark.parametrize("state", [ViewState(), ViewState(help=True), ViewState(typed="x" * 150)])
def test_a_screen_is_filled_and_never_left(totals: LiveTotals, width: int, height: int, state: ViewState) -> None:
    lines = screen(state, totals, SITUATION, width, height).lines
    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= width


def test_the_header_tells_what_is_recorded_and_how_far_to_trust_it(totals: LiveTotals) -> None:
    shown = text(ViewState(), totals)
    assert "1:01  all processes on web-1, 99 Hz" in shown
    assert re.search(r"CPU \d\.\d\d of 4 cores  6,166 samples, \d+\.?\d* % complete, 2 lost", shown)


def test_both_panes_have_their_rows(totals: LiveTotals) -> None:
    shown = text(ViewState(), totals)
    assert re.search(r"1201 .*3\.11\.2 +gunicorn: worker", shown)
    assert re.search(r"\d scanner_call \(_json\.so\)", shown)


def test_the_column_that_sorts_is_marked(totals: LiveTotals) -> None:
    marked = {}
    for sort in Sort:
        lines = screen(changed(sort=sort), totals, SITUATION, 120, 40).lines
        names = next(line for line in lines if "Total%" in line.plain and line.style)
        marked[sort] = [names.plain[span.start : span.end] for span in names.spans]
    assert marked == {sort: [sort.value] for sort in Sort}


def test_a_narrow_screen_leaves_columns_out_and_keeps_names(totals: LiveTotals) -> None:
    shown = text(ViewState(), totals, 48, 24)
    assert "GIL%" not in shown
    assert "Total s" not in shown
    assert "scanner_call" in shown
    assert "PID" in shown


def test_a_label_that_is_too_long_loses_its_middle(totals: LiveTotals) -> None:
    shown = text(changed(lines=True), totals, 62, 40)
    assert re.search(r"JSON\S*…\S*ecoder\.py:337\)", shown)


def test_the_chosen_process_stays_in_sight(totals: LiveTotals) -> None:
    many = LiveTotals()
    profile = profile_with(
        recording(duration=1.0),
        [Process(pid, f"p{pid}") for pid in range(1, 60)],
        [Thread(1, "t")],
        [(python("f", "f", 1, 1),)],
    )
    example = next(iter(realistic_profile().samples))
    for index in range(59):
        profile.samples[example._replace(process=index, thread=0, stack=0)] += 100 - index
    many.add([profile])
    assert "p50" not in text(ViewState(), many)
    lines = screen(ViewState(cursor=50), many, SITUATION, 120, 40).lines
    assert any(line.plain.split()[:1] == ["50"] and line.style for line in lines)


def test_what_is_typed_is_shown_with_what_it_is_for(totals: LiveTotals) -> None:
    assert text(ViewState(typed="foo"), totals).endswith("filter: /foo_")
    assert text(ViewState(typed="/tmp/x", asks=Action.SAVE), totals).endswith("save to: /tmp/x_")


def test_every_key_of_the_help_does_something() -> None:
    def key_names() -> list[str]:
        names = [part for keys, _ in HELP_KEYS for part in keys.split(", ") if part]
        known = {"space": " ", "Enter": "enter", "PgUp": "page up", "PgDn": "page down"}
        return [known.get(name, name) for name in names if name != "Ctrl-C"]

    busy = ViewState(first=20, cursor=2)
    shown = screen(ViewState(), LiveTotals(), SITUATION, 80, 24).shown
    for key in key_names():
        state, action = pressed(busy, key, replace(shown, pids=(1, 2, 3), functions=100), "d")
        assert action or state != busy, key


def test_hostile_names_do_nothing_to_the_terminal() -> None:
    profile = Profile(recording(duration=1.0), [Process(1, name, name) for name in HOSTILE_NAMES], [Thread(1, "t")])
    set_stacks(profile, [(python(name, name, 1, 1),) for name in HOSTILE_NAMES])
    example = next(iter(realistic_profile().samples))
    for index in range(len(HOSTILE_NAMES)):
        profile.samples[example._replace(process=index, thread=0, stack=index)] += 1
    hostile = LiveTotals()
    hostile.add([profile])
    console = Console(width=120, color_system=None)
    lines = screen(ViewState(message="\x1b[2J"), hostile, SITUATION, 120, 80).lines
    drawn = [
        segment.text for line in lines for segment in console.render(line, console.options) if segment.text != "\n"
    ]
    assert all(part.isprintable() for part in drawn)


def test_nothing_sampled_yet_is_an_empty_screen_with_its_header() -> None:
    assert "CPU 0.00 of 4 cores" in text(ViewState(), LiveTotals(), 80, 24)
