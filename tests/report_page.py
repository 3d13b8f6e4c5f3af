"""report.html in headless Chromium, opened from a file as a mail attachment would be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

OpenPage = Callable[..., Page]  # shows what it is given, perhaps at a fragment of its address
NONE = "\u2013"  # what stands for no samples


@contextmanager
def chromium_browser() -> Iterator[Browser]:
    """A browser; the test is skipped, or in CI fails, where there is none."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing; install the package chromium, or name its executable in CHROMIUM")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """One page, with everything that it complained of or asked for."""

    def __init__(self, browser: Browser, **settings: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 860}, **settings})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("dialog", self._refuse)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _refuse(self, dialog: Dialog) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def at(self, file: Path, fragment: str = "") -> Page:
        self.page.goto(f"{file.as_uri()}{fragment}")
        self.page.wait_for_selector("[data-drawn]")
        return self.page

    def close(self) -> None:
        """Close it; no script but ours has run, ours did not fail, and nothing was fetched."""
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("file://")] == []


def drawn(page: Page, graph: int = 0) -> list[dict[str, Any]]:
    """The boxes in view of a flame graph."""
    boxes: list[dict[str, Any]] = page.locator(".graph").nth(graph).evaluate("(graph) => graph.boxes()")
    return boxes


def box(page: Page, text: str, graph: int = 0) -> dict[str, Any]:
    """The widest box with this label."""
    found = [each for each in drawn(page, graph) if each["text"] == text]
    assert found, f"no box {text}"
    return max(found, key=lambda each: each["width"])


def click_box(page: Page, text: str, graph: int = 0) -> None:
    place = box(page, text, graph)
    page.mouse.click(place["left"] + place["width"] / 2, place["top"] + 9)


def rows(page: Page) -> dict[str, list[float]]:
    """The rows of the table in view: self in per cent and seconds, total in per cent and seconds."""
    found = {}
    for line in page.locator(".grid .rows .line").all():
        name, *figures = line.locator("[role=cell]").all_text_contents()
        found[name] = [0.0 if figure == NONE else float(figure.replace(",", "")) for figure in figures]
    return found


def drag(page: Page, begin: float, end: float, seconds: float) -> None:
    """Choose these seconds of a recording of so many by dragging in the timeline."""
    place = page.locator(".plot .u-over").bounding_box()
    assert place is not None
    at = [place["x"] + place["width"] * second / seconds for second in (begin, end)]
    middle = place["y"] + place["height"] / 2
    page.mouse.move(at[0], middle)
    page.mouse.down()
    page.mouse.move(sum(at) / 2, middle)
    page.mouse.move(at[1], middle)
    page.mouse.up()


def fragment(page: Page) -> str:
    found: str = page.evaluate("location.hash")
    return found
