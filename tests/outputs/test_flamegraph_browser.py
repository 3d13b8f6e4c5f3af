"""The flame graph in a real browser, opened from a file as a mail attachment would be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

from pyflame_ebpf.outputs.flamegraph import write_flamegraph
from pyflame_ebpf.profile.model import Profile
from tests.profiles import hostile_profile, realistic_profile, wide_profile
from tests.report_page import OpenPage

pytestmark = pytest.mark.browser
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PARENT, SELF = "basket (shop/views.py:41)", "loads (json/__init__.py:299)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing; install the package chromium, or name its executable in CHROMIUM")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_graph(chromium: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens a profile's graph; at the end of the test, no script of the profile's has run and none of ours failed."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    requests: list[str] = []

    def refuse(dialog: Dialog) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    def opened(profile: Profile, **settings: Any) -> Page:
        file = tmp_path / "flamegraph.svg"
        with file.open("w", encoding="utf-8") as stream:
            write_flamegraph(profile, stream)
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 760}, **settings))
        page = contexts[-1].new_page()
        page.on("dialog", refuse)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("file://")] == []


def box(page: Page, text: str) -> Any:
    """Where the first box with this label is: left, top, width."""
    place = page.evaluate(
        """(text) => {
          const words = [...document.querySelectorAll(".graph text")].find((each) => each.textContent === text);
          const rect = words && words.previousElementSibling.getBoundingClientRect();
          return rect ? [rect.x, rect.y, rect.width] : null;
        }""",
        text,
    )
    assert place, f"no box {text}"
    return place


def click(page: Page, text: str) -> None:
    left, top, width = box(page, text)
    page.mouse.click(left + width / 2, top + 8)


def details(page: Page) -> tuple[str | None, str | None]:
    return page.locator(".details strong").text_content(), page.locator(".details span").text_content()


def share(page: Page, pattern: str) -> str | None:
    page.keyboard.press("/")
    page.locator("input").fill(pattern)
    return page.locator(".share").text_content()


def test_the_root_is_at_the_bottom_and_as_wide_as_the_window(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    root, process = box(page, "all"), box(page, "gunicorn (1201)")
    assert root[1] > process[1]
    assert root[2] == pytest.approx(1280 - 33, abs=2)


def test_a_click_zooms_and_the_reset_button_goes_back(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    before = box(page, PARENT)[2]
    click(page, PARENT)
    assert box(page, PARENT)[2] == pytest.approx(box(page, "all")[2])
    assert box(page, PARENT)[2] > before * 2
    assert page.locator(".path b").text_content() == PARENT
    page.get_by_role("button", name="Reset zoom").click()
    assert box(page, PARENT)[2] == pytest.approx(before)
    assert page.locator(".path b").text_content() == "all"


def test_the_path_leads_back_step_by_step(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    click(page, SELF)
    page.locator(".path button", has_text="gunicorn").click()
    assert page.locator(".path b").text_content() == "gunicorn (1201)"


def test_hovering_tells_label_samples_shares_and_seconds(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    left, top, _ = box(page, SELF)
    page.mouse.move(left + 10, top + 8)
    assert details(page) == (SELF, "960 samples  ·  16.3 % of all  ·  39.0 % of its parent  ·  9.7 s of CPU")


def test_search_says_the_share_that_matches_and_counts_nested_matches_once(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    assert share(page, r"^Tree\.descend") == "34.8 % matched"
    assert page.locator(".graph rect.found").count() == 12
    assert share(page, "json") == "16.3 % matched"


def test_search_tells_the_share_of_the_zoomed_part_too(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    click(page, PARENT)
    assert share(page, "json/") == "39.0 % here, 16.3 % of all"


def test_what_is_no_regular_expression_is_said(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    assert share(page, "(") == "not a regular expression"
    assert share(page, "") == ""


def test_control_f_searches_enter_goes_to_the_widest_match_and_escape_clears(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    page.keyboard.press("Control+f")
    page.keyboard.type("_json")
    page.keyboard.press("Enter")
    assert details(page)[0] == "scanner_call (_json.so)"
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    assert page.locator("input").evaluate("(input) => input.value") == ""
    assert page.locator(".graph rect.found").count() == 0


def test_icicle_puts_the_root_on_top_and_back(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    page.keyboard.press("i")
    assert box(page, "all")[1] < box(page, "gunicorn (1201)")[1]
    page.get_by_role("button", name="Flame").click()
    assert box(page, "all")[1] > box(page, "gunicorn (1201)")[1]


def test_arrows_move_enter_zooms_escape_resets(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    for key in ("ArrowUp", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    assert details(page)[0] == "celery (1317)"
    expect(page.locator(".graph .ring")).to_have_attribute("visibility", "visible")
    page.keyboard.press("Enter")
    assert page.locator(".path b").text_content() == "celery (1317)"
    page.keyboard.press("ArrowDown")
    assert details(page)[0] == "all"
    page.keyboard.press("Escape")
    assert page.locator(".path b").text_content() == "all"


def test_arrows_follow_the_icicle(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    for key in ("i", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    assert details(page)[0] == "gunicorn (1201)"


def test_the_graph_follows_the_windows_width(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    page.set_viewport_size({"width": 800, "height": 600})
    page.wait_for_function("document.querySelector('.graph rect').getBoundingClientRect().width < 800")
    assert box(page, "all")[2] == pytest.approx(800 - 33, abs=2)


def test_words_stay_inside_their_boxes(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile())
    outside = page.evaluate(
        """() => [...document.querySelectorAll(".graph text")].filter((words) => {
          const box = words.previousElementSibling.getBoundingClientRect();
          return words.getBoundingClientRect().right > box.right;
        }).map((words) => words.textContent)"""
    )
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_boxes(open_graph: OpenPage, scheme: str) -> None:
    page = open_graph(realistic_profile(), color_scheme=scheme)
    pairs = page.evaluate(
        """() => [...document.querySelectorAll(".graph text")].map((words) =>
          [getComputedStyle(words).fill, getComputedStyle(words.previousElementSibling).fill])"""
    )
    assert min(contrast(*pair) for pair in pairs) > 4.5


def contrast(*colours: str) -> float:
    light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_hostile_names_are_shown_and_not_run(open_graph: OpenPage) -> None:
    page = open_graph(hostile_profile())
    page.keyboard.press("/")
    page.keyboard.type("<script>alert\\(1\\)</script> \\(100\\)")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.locator(".path b").text_content() == "<script>alert(1)</script> (100)"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def test_without_scripts_the_picture_is_there(open_graph: OpenPage) -> None:
    page = open_graph(realistic_profile(), java_script_enabled=False)
    assert page.locator("#picture rect").count() > 40
    expect(page.locator("#picture text", has_text="gunicorn (1201)")).to_be_visible()


def test_a_deep_graph_opens_at_its_root_and_draws_rows_as_it_is_scrolled(open_graph: OpenPage) -> None:
    page = open_graph(wide_profile(300, depth=120))
    assert box(page, "all")[1] < 760
    page.locator(".graph").evaluate("(graph) => { graph.scrollTop = 0; }")
    page.wait_for_function(
        "[...document.querySelectorAll('.graph .box')].some((box) => box.getBoundingClientRect().y < 200)"
    )


def test_zooming_into_a_thin_box_shows_its_callees(open_graph: OpenPage) -> None:
    page = open_graph(wide_profile(4000))
    page.keyboard.press("/")
    page.keyboard.type("worker-39")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.locator(".path b").text_content() == "worker-39 (1039)"
    names = page.locator(".graph text").all_text_contents()
    assert len([name for name in names if name.startswith("Class")]) > 5


def test_a_screenshot_shows_the_colours_of_all_kinds(open_graph: OpenPage, tmp_path: Path) -> None:
    page = open_graph(realistic_profile())
    picture = tmp_path / "flamegraph.png"
    page.screenshot(path=picture)
    fills = page.evaluate(
        "() => ['python', 'native', 'kernel', 'mark', 'process'].map((kind) =>"
        " getComputedStyle(document.querySelector(`.graph rect[class*=${kind}]`)).fill)"
    )
    assert len(set(fills)) == 5
    assert picture.stat().st_size > 20_000
