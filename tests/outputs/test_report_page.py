"""The report in a real browser: what each control shows, by mouse and by keyboard."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from pyflame_ebpf.outputs.html_report import write_html_report
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.processes import closing_line, process_rows
from pyflame_ebpf.profile.folded_file import load_folded
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.profile.selection import Selection
from tests.profiles import hostile_profile, realistic_profile, recording, wide_profile
from tests.report_page import Opened, OpenPage, box, chromium_browser, click_box, drag, drawn, fragment, rows

pytestmark = pytest.mark.browser
PARENT, SELF = "basket (shop/views.py:41)", "loads (json/__init__.py:299)"
RECURSIVE = "Tree.descend (shop/tree.py:7)"
SCANNER = "scanner_call (_json.so)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_browser() as browser:
        yield browser


@pytest.fixture
def open_report(chromium: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens a profile's report; at the end of the test, no foreign script has run and ours has not failed."""
    opened = []

    def open_page(profile: Profile, fragment: str = "", options: OutputOptions | None = None, **settings: Any) -> Page:
        file = tmp_path / "report.html"
        with file.open("w", encoding="utf-8") as stream:
            write_html_report(profile, stream, options or OutputOptions())
        opened.append(Opened(chromium, **settings))
        return opened[-1].at(file, fragment)

    yield open_page
    for each in opened:
        each.close()


def halves() -> Profile:
    """A minute in which only gunicorn runs first, and only celery from second 30 on."""
    profile = realistic_profile()
    profile.samples = Counter(
        {key: count for key, count in profile.samples.items() if key.process == (0 if key.second < 30 else 1)}
    )
    return profile


# The timeline


def test_dragging_chooses_the_seconds_for_graph_and_table(open_report: OpenPage) -> None:
    page = open_report(halves())
    assert {each["text"] for each in drawn(page)} > {"gunicorn (1201)", "celery (1317)"}
    drag(page, 30.1, 59.9, 60)
    assert "gunicorn (1201)" not in {each["text"] for each in drawn(page)}
    assert rows(page)["score (shop/tree.py:30)"][0] == pytest.approx(100 * 21 / 34, abs=0.1)
    assert fragment(page) == "#range=30-60"


def test_the_chosen_range_is_stated_with_its_ends_and_its_share_of_the_cpu(open_report: OpenPage) -> None:
    page = open_report(halves(), "#range=0-30")
    begin, end = page.locator("input.end").all()
    assert (begin.input_value(), end.input_value()) == ("0:00", "0:30")
    samples = 49 * 30, 34 * 30
    share = 100 * samples[0] / sum(samples)
    expect(page.locator(".chosen")).to_contain_text(f"{share:.1f} % of the recording\u2019s CPU in 0:30")
    expect(page.locator(".chosen")).to_contain_text(f"{samples[0] / 99 / 30:.2f} of 4 cores")


def test_the_ends_can_be_typed_as_minutes_and_seconds(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    begin, end = page.locator("input.end").all()
    end.fill("0:20")
    end.press("Enter")
    begin.fill("5")
    begin.press("Enter")
    assert fragment(page) == "#range=5-20"
    begin.fill("nonsense")
    begin.press("Enter")
    assert begin.input_value() == "0:05"


def test_arrow_keys_move_the_range_and_with_shift_and_alt_its_ends(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), "#range=10-20")
    for key in ("ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "Alt+ArrowLeft"):
        page.locator(".plot").press(key)
    assert fragment(page) == "#range=10-23"
    page.keyboard.press("Escape")
    assert fragment(page) == ""


# The flame graph


def test_a_click_zooms_and_escape_goes_back(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    before = box(page, PARENT)["width"]
    click_box(page, PARENT)
    assert box(page, PARENT)["width"] == pytest.approx(box(page, "all")["width"])
    assert box(page, PARENT)["width"] > 2 * before
    page.keyboard.press("Escape")
    assert box(page, PARENT)["width"] == pytest.approx(before)


def test_the_zoom_survives_another_choice_of_frames(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    click_box(page, PARENT)
    page.keyboard.press("n")
    assert box(page, PARENT)["width"] == pytest.approx(box(page, "all")["width"])


def test_hovering_tells_label_samples_shares_and_seconds(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    place = box(page, SELF)
    page.mouse.move(place["left"] + 10, place["top"] + 8)
    assert page.locator(".details strong").text_content() == SELF
    assert page.locator(".details span").text_content() == (
        "960 samples  ·  16.3 % of all  ·  39.0 % of its parent  ·  0.0 % itself  ·  9.70 s of CPU"
    )


def test_search_says_the_share_that_matches_and_counts_nested_matches_once(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    page.keyboard.press("/")
    page.keyboard.type(r"^Tree\.descend")
    assert page.locator("output.share").text_content() == "34.8 % matched"
    assert {each["text"] for each in drawn(page) if each["found"]} == {RECURSIVE}
    page.locator("#search").fill("(")
    assert page.locator("output.share").text_content() == "not a regular expression"


def test_search_tells_the_share_of_the_zoomed_part_too(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    click_box(page, PARENT)
    page.locator("#search").fill("json/")
    assert page.locator("output.share").text_content() == "39.0 % here, 16.3 % of all"


def test_the_icicle_has_its_root_on_top(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    assert box(page, "all")["top"] > box(page, PARENT)["top"]
    page.keyboard.press("i")
    assert box(page, "all")["top"] < box(page, PARENT)["top"]


def test_folded_recursion_is_one_box(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    assert len([each for each in drawn(page) if each["text"] == RECURSIVE]) == 12
    page.keyboard.press("r")
    assert len([each for each in drawn(page) if each["text"] == RECURSIVE]) == 1


@pytest.mark.parametrize(
    ("key", "gone", "stays"),
    [
        ("n", SCANNER, SELF),
        ("k", "tcp_sendmsg_locked_[k]", SCANNER),
        ("l", SELF, SCANNER),
    ],
)
def test_frames_of_a_kind_are_hidden_by_key(open_report: OpenPage, key: str, gone: Any, stays: Any) -> None:
    page = open_report(realistic_profile())
    page.keyboard.press(key)
    texts = {each["text"] for each in drawn(page)}
    assert gone not in texts
    assert stays in texts
    page.keyboard.press(key)
    assert gone in {each["text"] for each in drawn(page)}


def test_hidden_frames_count_as_their_callers_own_time(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    page.keyboard.press("n")
    page.keyboard.press("k")
    assert rows(page)["JSONDecoder.decode (json/decoder.py:332)"][0] == pytest.approx(16.3)


def test_arrows_move_between_boxes_and_enter_zooms(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    for key in ("ArrowUp", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator(".details strong").text_content() == "celery (1317)"
    page.keyboard.press("Enter")
    assert box(page, "celery (1317)")["width"] == pytest.approx(box(page, "all")["width"])


def test_boxes_are_coloured_by_kind_module_or_process(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    pictures = set()
    for _ in range(3):
        pictures.add(page.locator("canvas").last.evaluate("(canvas) => canvas.toDataURL()"))
        page.keyboard.press("c")
    assert len(pictures) == 3


# The table


def test_the_table_agrees_with_the_samples(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    shown = rows(page)
    assert shown["score (shop/tree.py:30)"] == [21.4, 12.73, 21.4, 12.73]
    page.locator("#filter").fill("descend")
    assert rows(page) == {RECURSIVE: [0.0, 0.0, 34.8, 20.75]}


def test_every_column_sorts_both_ways(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    head = page.locator(".grid .head")
    head.get_by_role("button", name="Total").click()
    totals = [figures[2] for figures in rows(page).values()]
    assert totals == sorted(totals, reverse=True)
    head.get_by_role("button", name="Total").click()
    totals = [figures[2] for figures in rows(page).values()]
    assert totals == sorted(totals)
    head.get_by_role("button", name="Function").click()
    assert list(rows(page)) == sorted(rows(page))


@pytest.mark.parametrize(
    ("grouping", "row", "total"),
    [
        ("line", "score (shop/tree.py:33)", 21.4),
        ("module", "shop/tree.py", 34.8),
        ("process", "celery (1317)", 34.8),
        ("thread", "ThreadPoolExec (1209)", 8.1),
    ],
)
def test_the_table_groups_by(open_report: OpenPage, grouping: str, row: str, total: float) -> None:
    page = open_report(realistic_profile(), f"#by={grouping}")
    assert rows(page)[row][2] == pytest.approx(total)


def test_a_row_lights_its_boxes_and_a_box_its_row(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    page.locator(".grid .rows .line", has_text="scanner_call").hover()
    assert {each["text"] for each in drawn(page) if each["lit"]} == {SCANNER}
    place = box(page, "dict_lookup (python3.12)")
    page.mouse.move(place["left"] + 5, place["top"] + 8)
    assert page.locator(".grid .line.pointed").all_text_contents()[0].startswith("dict_lookup")


def test_each_of_table_and_graph_can_be_closed_and_opened_again(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    page.keyboard.press("t")
    assert page.locator(".pane.table").count() == 0
    page.keyboard.press("g")
    assert (page.locator(".pane.table").count(), page.locator(".graph").count()) == (1, 0)
    page.get_by_role("button", name="Show graph").click()
    assert (page.locator(".pane.table").count(), page.locator(".graph").count()) == (1, 1)


# One function


def test_the_sandwich_shows_callers_and_callees_of_the_selected_function(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    page.locator("#filter").fill("JSONDecoder")
    page.locator(".grid .rows .line").dblclick()
    callers, callees = ({each["text"] for each in drawn(page, graph)} for graph in (0, 1))
    assert {SELF, PARENT} < callers
    assert SCANNER not in callers
    assert callees == {"JSONDecoder.decode (json/decoder.py:332)", SCANNER, "__memmove_avx_unaligned_erms (libc.so.6)"}
    expect(page.locator(".sandwich")).to_contain_text("16.3 % of all, 9.70 s")
    click_box(page, SCANNER, 1)
    assert drawn(page, 1)[0]["text"] == SCANNER


def test_lines_of_a_function_stand_with_their_shares(open_report: OpenPage) -> None:
    profile = realistic_profile()
    page = open_report(profile)
    page.locator("#filter").fill("score")
    page.locator(".grid .rows .line").click()
    page.keyboard.press("3")
    cells = page.locator(".lines tbody tr").first.locator("td").all_text_contents()
    assert cells[:5] == ["33", "21.4", "21.4", "12.73", "1,260"]


def test_the_source_text_stands_beside_the_lines_where_it_was_embedded(open_report: OpenPage) -> None:
    profile = realistic_profile()
    profile.sources = {"/srv/shop/tree.py": {30: "def score(self):", 31: "    # \u202e<b>", 33: "\treturn self.weight"}}
    page = open_report(profile)
    page.locator("#filter").fill("score")
    page.locator(".grid .rows .line").click()
    page.keyboard.press("e")
    code = {row[0]: row[-1] for row in (
        line.locator("td").all_text_contents() for line in page.locator(".lines tbody tr").all()
    )}  # fmt: skip
    assert code == {"30": "def score(self):", "31": r"    # \u202e<b>", "33": "    return self.weight"}


# Without a mouse, and without looking


def test_tabs_are_one_stop_of_the_tab_key_and_arrows_choose(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    views = page.get_by_role("tablist", name="Views")
    views.get_by_role("tab", selected=True).focus()
    page.keyboard.press("ArrowRight")
    expect(views.get_by_role("tab", name="Processes", selected=True)).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Processes")).to_be_visible()
    page.keyboard.press("End")
    expect(views.get_by_role("tab", name="Trust", selected=True)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(views.get_by_role("tab", name="Functions", selected=True)).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") != "tab"


def test_the_panes_tabs_name_what_they_show(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    tabs = page.get_by_role("tablist", name="What the pane shows")
    tabs.get_by_role("tab", name="Flame graph", selected=True).press("ArrowRight")
    panel = page.get_by_role("tabpanel", name="Callers & callees")
    expect(panel).to_be_visible()
    assert tabs.get_by_role("tab", selected=True).get_attribute("aria-controls") == panel.get_attribute("id")


def test_the_table_tells_its_rows_columns_and_order(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    table = page.get_by_role("table", name="Functions by CPU")
    columns = table.get_by_role("columnheader")
    assert [each.get_attribute("aria-sort") for each in columns.all()] == ["none", "descending", None, "none", None]
    columns.nth(3).get_by_role("button").press("Enter")
    columns.nth(3).get_by_role("button").press("Enter")
    assert [each.get_attribute("aria-sort") for each in columns.all()] == ["none", "none", None, "ascending", None]
    table.get_by_role("rowgroup", name="Rows.").press("ArrowDown")
    expect(table.locator("[aria-current=true]")).to_have_count(1)
    assert table.locator("[aria-current=true]").get_attribute("aria-rowindex") == "2"


def test_the_table_of_processes_names_every_column(open_report: OpenPage) -> None:
    table = open_report(realistic_profile(), "#tab=processes").get_by_role("table", name="Processes by CPU")
    names = [each.get_attribute("aria-label") or each.inner_text() for each in table.get_by_role("columnheader").all()]
    assert len(names) == 11
    assert all(names)


# Processes and trust


def test_the_processes_have_the_figures_of_the_csv(open_report: OpenPage) -> None:
    profile = realistic_profile()
    page = open_report(profile, "#tab=processes")
    for row in process_rows(profile):
        cells = page.locator(".sheet tbody tr", has_text=str(row.pid)).locator("td").all_text_contents()
        assert cells[4] == f"{row.samples:,}"
        assert float(cells[5]) == pytest.approx(row.cpu_percent, abs=0.06)
        assert float(cells[7]) == pytest.approx(row.kernel_percent, abs=0.06)
        assert cells[8] == "" if row.gil_percent is None else float(cells[8]) == pytest.approx(row.gil_percent, abs=0.5)
        assert float(cells[9]) == pytest.approx(row.scheduler_cpu, abs=0.006)
        assert cells[10] == (
            f"{row.hot_line.short_file}:{row.hot_line.line} {row.hot_line.function}" if row.hot_line else ""
        )


def test_a_range_up_to_a_cut_last_second_has_the_figures_of_the_csv_of_that_range(open_report: OpenPage) -> None:
    profile = realistic_profile()
    profile.recording = recording(duration=59.4)
    page = open_report(profile, "#tab=processes&range=58-60")
    row = process_rows(Selection(begin=58.0).of(profile))[0]
    cells = page.locator(".sheet tbody tr", has_text=str(row.pid)).locator("td").all_text_contents()
    assert float(cells[5]) == pytest.approx(row.cpu_percent, abs=0.06)


def test_a_process_and_a_thread_are_filters(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), "#tab=processes")
    page.get_by_label("Only gunicorn (1201)").check()
    page.get_by_role("button", name="gunicorn: worker").click()
    page.get_by_label("Only thread ThreadPoolExec (1209)").check()
    page.keyboard.press("1")
    texts = {each["text"] for each in drawn(page)}
    assert "thumbnail (shop/images.py:12)" in texts
    assert not texts & {"celery (1317)", PARENT}
    page.locator(".filters").get_by_role("button", name="Show all").click()
    assert "celery (1317)" in {each["text"] for each in drawn(page)}


def test_a_process_and_a_thread_of_another_one_are_seen_together(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), "#tab=processes")
    page.get_by_label("Only celery (1317)").check()
    page.get_by_role("button", name="gunicorn: worker").click()
    page.get_by_label("Only thread ThreadPoolExec (1209)").check()
    page.keyboard.press("1")
    texts = {each["text"] for each in drawn(page)}
    assert {"thumbnail (shop/images.py:12)", "celery (1317)"} <= texts
    assert not texts & {"nginx (803)", PARENT}


def test_the_filter_of_the_processes_is_shared_and_escape_clears_it(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), "#tab=processes&commands=nginx")
    expect(page.locator(".sheet tbody tr")).to_have_count(1)
    page.locator("#process-filter").press("Escape")
    expect(page.locator(".sheet tbody tr")).to_have_count(4)
    assert fragment(page) == "#tab=processes"


def test_trust_tells_why_samples_were_lost(open_report: OpenPage) -> None:
    profile = realistic_profile()
    profile.recording = recording(lost=12, counters={"counts_full": 10, "tail_calls_failed": 2, "ticks": 6000})
    page = open_report(profile, "#tab=trust")
    expect(page.locator(".trust")).to_contain_text("12 (10 no room to count them, 2 the kernel refused to go on)")


def test_trust_says_of_a_part_that_the_whole_recording_lost_so_many(open_report: OpenPage) -> None:
    whole = realistic_profile()
    page = open_report(Selection(end=10.0).of(whole), "#tab=trust")
    said = f"{whole.recording.lost} of the whole recording\N{RIGHT SINGLE QUOTATION MARK}s {whole.total:,}"
    expect(page.locator(".trust dl > div", has_text="Samples lost")).to_contain_text(said)


def test_trust_states_every_outcome_and_the_circumstances(open_report: OpenPage) -> None:
    profile = realistic_profile()
    page = open_report(profile, "#tab=trust")
    text = page.locator(".trust").inner_text()
    for wanted in (closing_line(profile), "frame unreadable", "62.3 s", "web-1", "record --all", "Linux 6.1.0"):
        assert wanted in text


def test_the_schedulers_cpu_time_is_that_of_the_processes_that_are_shown(open_report: OpenPage) -> None:
    page = open_report(Selection(processes=("nginx",)).of(realistic_profile()), "#tab=trust")
    charged = page.locator(".trust dl > div", has_text="charged these processes")
    expect(charged).to_contain_text("4.9 s")


@pytest.mark.parametrize("view", ["", "#view=sandwich&selected=function-1", "#tab=processes", "#tab=trust"])
def test_folded_stacks_are_told_no_time(open_report: OpenPage, view: str) -> None:
    page = open_report(load_folded(io.BytesIO(b"app;main;work 30\napp;main;rest 10\n"), "stacks.folded"), view)
    expect(page.locator(".timeline")).to_contain_text("40 samples. When each was taken is not known.")
    text = page.locator("body").inner_text()
    assert not {word for word in ("NaN", "Infinity", "\u221e", "1970", " 0 Hz") if word in text}


# The page


def test_the_fragment_holds_the_whole_view(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    click_box(page, PARENT)
    for key in ("n", "i", "c"):
        page.keyboard.press(key)
    page.locator("#search").fill("json")
    page.locator("#filter").fill("render")
    drag(page, 5.1, 19.9, 60)
    here, boxes, table = fragment(page), drawn(page), rows(page)
    again = open_report(realistic_profile(), here)
    assert (fragment(again), rows(again)) == (here, table)
    assert drawn(again) == boxes


@pytest.mark.parametrize("given", ["#range=99-2&zoom=-4&by=x&process=9.a&selected=line-99999", "#%", "#zoom=99999999"])
def test_a_damaged_fragment_shows_what_there_is(open_report: OpenPage, given: str) -> None:
    page = open_report(realistic_profile(), given)
    assert box(page, "all")["samples"] == realistic_profile().total


def test_options_of_the_command_decide_what_is_shown_at_first(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), options=OutputOptions(python_only=True, lines=True))
    texts = {each["text"] for each in drawn(page)}
    assert "loads (json/__init__.py:346)" in texts
    assert SCANNER not in texts


@pytest.mark.parametrize(
    ("group", "shown"),
    [
        ("command", {"gunicorn: worker [shop.wsgi]", "celery -A shop worker"}),
        ("interpreter", {"CPython 3.11.2", "CPython 3.12.4", "not Python"}),
    ],
)
def test_the_root_is_called_by_what_it_is_grouped_by(open_report: OpenPage, group: str, shown: Any) -> None:
    page = open_report(realistic_profile(), options=OutputOptions(group_by=(group,)))
    texts = {each["text"] for each in drawn(page)}
    assert texts >= shown
    assert "gunicorn (1201)" not in texts


def test_the_search_follows_what_the_root_is_called(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), "#search=gunicorn \\(1201")
    expect(page.locator(".seek .share")).not_to_have_text("0.0 % matched")
    page.get_by_label("Root").select_option("command")
    expect(page.locator(".seek .share")).to_have_text("0.0 % matched")


def test_many_changes_leave_the_last_view_in_the_fragment_and_do_not_flood_the_history(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    page.evaluate(
        "() => { const replace = history.replaceState.bind(history); window.written = 0;"
        " history.replaceState = (...given) => { window.written += 1; replace(...given); }; }"
    )
    for _ in range(150):
        page.keyboard.press("i")
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile("#native=0$"))
    assert page.evaluate("window.written") < 70


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_system_until_it_is_switched(open_report: OpenPage, scheme: str) -> None:
    page = open_report(realistic_profile(), color_scheme=scheme)
    shades = {"light": "rgb(251, 250, 247)", "dark": "rgb(23, 22, 20)"}
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == shades.pop(scheme)
    page.keyboard.press("d")
    assert page.evaluate(background) == next(iter(shades.values()))


def test_the_keys_are_listed_on_demand(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    page.keyboard.press("?")
    expect(page.locator("dialog.help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog.help")).to_be_hidden()


def test_what_is_printed_is_light_and_complete(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), color_scheme="dark")
    page.emulate_media(media="print")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.locator(".grid .rows .line").count() == 40
    assert page.pdf().startswith(b"%PDF")


def test_hostile_names_are_shown_and_not_run(open_report: OpenPage) -> None:
    page = open_report(hostile_profile(), "#by=process")
    names = list(rows(page))
    assert "<script>alert(1)</script> (100)" in names
    assert r"\u202etxet sdrawkcab\u2066 (109)" in names
    for tab in ("processes", "trust"):
        page.goto(page.url.split("#")[0] + f"#tab={tab}")
        expect(page.locator(".sheet")).to_be_visible()
    assert page.locator("img, b > i, iframe").count() == 0
    assert page.locator("script").count() == 2


def test_nothing_but_the_pages_own_script_may_run(open_report: OpenPage) -> None:
    page = open_report(realistic_profile())
    policy = page.locator("meta[http-equiv]").get_attribute("content") or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_without_scripts_the_page_says_what_was_recorded(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    with file.open("w", encoding="utf-8") as stream:
        write_html_report(realistic_profile(), stream)
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    expect(page.locator("#page")).to_contain_text("5,895 samples: 5,340 complete")
    context.close()


def test_a_recording_without_samples_says_so(open_report: OpenPage) -> None:
    profile = realistic_profile()
    profile.samples = Counter()
    page = open_report(profile)
    expect(page.locator(".pane.flame")).to_contain_text("Nothing was sampled")
    for key in ("2", "3", "4", "5"):
        page.keyboard.press(key)


def test_a_long_table_draws_only_the_rows_in_view(open_report: OpenPage) -> None:
    page = open_report(wide_profile(3000))
    assert page.locator(".grid .rows .line").count() < 80
    page.locator(".grid .body").press("End")
    expect(page.locator(".grid .line.selected")).to_be_in_viewport()


def test_the_page_has_room_on_a_narrow_screen(open_report: OpenPage) -> None:
    page = open_report(realistic_profile(), viewport={"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
