"""A comparison in the report's page, in a real browser: what changed, in which recording, and how sure that is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from pyflame_ebpf.compare.comparison import Changes, Comparison, Measure, Rules, compare
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions
from pyflame_ebpf.outputs.html_report import write_html_comparison
from pyflame_ebpf.profile.folded_file import load_folded
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.profile.selection import Selection
from tests.compare.test_comparison import BAR, FOO, MAIN, bursts, profile_of
from tests.profiles import hostile_profile
from tests.report_page import Opened, OpenPage, box, chromium_browser, drag, drawn, fragment

pytestmark = pytest.mark.browser
BEFORE = profile_of({(MAIN, FOO): 2250, (MAIN, BAR): 750})
AFTER = profile_of({(MAIN, FOO): 240, (MAIN, BAR): 750})
FOO_BOX, BAR_BOX = "foo (srv/app.py:1)", "bar (srv/app.py:10)"
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_browser() as browser:
        yield browser


@pytest.fixture
def open_comparison(chromium: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens the page of two recordings; at the end, no foreign script has run and ours has not failed."""
    opened = []

    def open_page(
        before: Profile = BEFORE,
        after: Profile = AFTER,
        fragment: str = "",
        comparison: Comparison | None = None,
        reverse: bool = False,
        **settings: Any,
    ) -> Page:
        file = tmp_path / "difference.html"
        options = ComparisonOptions(core_hour_price=0.04, reversed_graph=reverse)
        with file.open("w", encoding="utf-8") as stream:
            write_html_comparison(comparison or compare(before, after), stream, options)
        opened.append(Opened(chromium, **settings))
        return opened[-1].at(file, fragment)

    yield open_page
    for each in opened:
        each.close()


def cells(page: Page) -> dict[str, list[str]]:
    """The rows of the table, by the name of each, in their order."""
    lines = page.locator(".grid .rows .line").all()
    found = [line.locator("[role=cell]").all_text_contents() for line in lines]
    return {name: figures for name, *figures in found}


def is_red(colour: str) -> bool:
    red, _, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red > blue + 20


def is_blue(colour: str) -> bool:
    red, _, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return blue > red + 20


def test_the_page_says_what_changed_and_what_that_saves(open_comparison: OpenPage) -> None:
    page = open_comparison()
    expect(page.locator(".changed")).to_contain_text("CPU per second fell 67.0 % ± 1.9 %: 3.000 → 0.990 cores")
    expect(page.locator(".changed")).to_contain_text("That saves 58.7 ± 2.3 a month")


def test_the_table_has_what_was_what_is_the_change_and_its_error(open_comparison: OpenPage) -> None:
    found = cells(open_comparison())
    assert next(iter(found)) == FOO_BOX
    assert found[FOO_BOX] == ["2.250", "0.240", f"{MINUS}2.010", "±0.070"]
    assert found[BAR_BOX] == ["0.750", "0.750", "~ 0.000", "±0.070"]


def test_with_callees_the_caller_changed_as_much(open_comparison: OpenPage) -> None:
    page = open_comparison()
    page.get_by_role("button", name="With callees").click()
    assert cells(page)["<module> (srv/app.py:1)"][2] == f"{MINUS}2.010"
    assert "callees=1" in fragment(page)


def test_boxes_are_blue_where_less_is_used_and_as_wide_as_after(open_comparison: OpenPage) -> None:
    page = open_comparison()
    assert is_blue(box(page, FOO_BOX)["colour"])
    assert not is_blue(box(page, BAR_BOX)["colour"])
    assert not is_red(box(page, BAR_BOX)["colour"])
    assert box(page, FOO_BOX)["width"] < box(page, BAR_BOX)["width"]


def test_before_boxes_are_as_wide_as_they_were(open_comparison: OpenPage) -> None:
    page = open_comparison()
    page.get_by_role("button", name="Before", exact=True).first.click()
    assert box(page, FOO_BOX)["width"] > box(page, BAR_BOX)["width"]
    assert is_blue(box(page, FOO_BOX)["colour"])
    assert "side=before" in fragment(page)


def test_normalised_what_did_not_shrink_has_grown(open_comparison: OpenPage) -> None:
    page = open_comparison()
    page.get_by_role("button", name="Normalised").click()
    assert is_red(box(page, BAR_BOX)["colour"])
    assert cells(page)[BAR_BOX][:3] == ["25.00", "75.76", "+50.76"]


def test_a_shared_view_opens_as_it_was(open_comparison: OpenPage) -> None:
    page = open_comparison(fragment="#side=before&shares=1&callees=1")
    assert cells(page)["<module> (srv/app.py:1)"][:2] == ["100.00", "100.00"]
    assert box(page, FOO_BOX)["samples"] == 2250


def test_options_of_the_command_decide_what_is_shown_at_first(open_comparison: OpenPage) -> None:
    page = open_comparison(comparison=compare(BEFORE, AFTER, Measure.SHARE, Rules(by_total=True)), reverse=True)
    assert cells(page)["<module> (srv/app.py:1)"][:2] == ["100.00", "100.00"]
    assert box(page, FOO_BOX)["samples"] == 2250
    assert fragment(page) == ""
    page.get_by_role("group", name="Recording").get_by_role("button", name="After").click()
    assert fragment(page) == "#side=after"


def test_folded_stacks_are_compared_by_shares(open_comparison: OpenPage) -> None:
    before, after = (load_folded(io.BytesIO(b"app;foo %d\napp;bar 750\n" % count), "folded") for count in (2250, 240))
    page = open_comparison(before, after)
    expect(page.locator(".timeline")).to_contain_text("990 samples. When each was taken is not known.")
    assert cells(page)["bar"][:2] == ["25.00", "75.76"]


def test_the_key_of_colours_comes_back_to_those_of_the_change(open_comparison: OpenPage) -> None:
    page = open_comparison()
    for wanted in ("#colour=kind", "#colour=module", "#colour=process", ""):
        page.keyboard.press("c")
        assert fragment(page) == wanted


def test_a_range_of_the_one_is_compared_with_all_of_the_other(open_comparison: OpenPage) -> None:
    page = open_comparison()
    drag(page, 2.1, 5.9, 10)
    assert "range=2-6" in fragment(page)
    assert cells(page)[FOO_BOX][:2] == ["2.250", "0.240"]
    assert sum(each["samples"] for each in drawn(page) if each["text"] == FOO_BOX) == 96


def errors_of(changes: Changes, shares: bool) -> Any:
    """What the table of ``diff`` says of each function with what it calls: its error as the page shows it."""
    unit, digits = (100, 2) if shares else (1, 3)
    return {row.subject.name: f"±{unit * row.total.error:.{digits}f}" for row in changes.rows}


def errors_in(page: Page) -> Any:
    """The same in the page."""
    return {name.split(" ")[0]: figures[3] for name, figures in cells(page).items()}


@pytest.mark.parametrize("measure", Measure)
def test_errors_are_those_of_the_table(open_comparison: OpenPage, measure: Measure) -> None:
    comparison = compare(bursts(2250), bursts(900), measure, Rules(by_total=True))
    page = open_comparison(comparison=comparison)
    assert errors_in(page) == errors_of(comparison.functions, measure is Measure.SHARE)
    page.get_by_role("button", name="Before", exact=True).first.click()
    assert errors_in(page) == errors_of(comparison.functions, measure is Measure.SHARE)


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize(("begin", "end"), [(10, 34), (20, 48), (4, 9)])
def test_errors_of_a_range_are_those_of_that_range_alone(
    open_comparison: OpenPage, measure: Measure, begin: int, end: int
) -> None:
    before, after = bursts(2250), bursts(900)
    page = open_comparison(
        comparison=compare(before, after, measure, Rules(by_total=True)), fragment=f"#range={begin}-{end}"
    )
    part = Selection(begin=begin, end=end).of(after)
    alone = compare(before, part, measure).functions
    assert errors_in(page) == errors_of(alone, measure is Measure.SHARE)


def test_the_error_of_a_box_is_that_of_its_row(open_comparison: OpenPage) -> None:
    page = open_comparison(bursts(2250), bursts(900))
    place = box(page, FOO_BOX)
    page.mouse.move(place["left"] + place["width"] / 2, place["top"] + 9)
    expect(page.locator(".details")).to_contain_text(f"{cells(page)[FOO_BOX][3].replace('±', '± ')}  ·")


def test_pointing_at_a_box_tells_both_figures(open_comparison: OpenPage) -> None:
    page = open_comparison()
    place = box(page, FOO_BOX)
    page.mouse.move(place["left"] + place["width"] / 2, place["top"] + 9)
    expect(page.locator(".details")).to_contain_text(f"2.250 → 0.240 cores  ·  {MINUS}2.010 ± 0.070  ·  {MINUS}89.3 %")


def test_what_is_gone_stays_in_the_table(open_comparison: OpenPage) -> None:
    page = open_comparison(after=profile_of({(MAIN, BAR): 750}))
    assert cells(page)[FOO_BOX][:3] == ["2.250", "0.000", f"{MINUS}2.250"]
    assert FOO_BOX not in {each["text"] for each in drawn(page)}


def test_hostile_names_are_shown_and_not_run(open_comparison: OpenPage) -> None:
    page = open_comparison(hostile_profile(), hostile_profile())
    assert page.locator("img").count() == 0
    assert any("<script>alert(1)</script>" in each["text"] for each in drawn(page))
