#!/usr/bin/env python3
"""Print how large report.html is for many stacks, and how long it takes to write, to open, to drag and to search.

    scripts/bench_report.py                                 200,000 distinct stacks over 300 seconds
    scripts/bench_report.py --stacks 2000 --seconds 20      the same, quickly
    scripts/bench_report.py --against CHECKOUT              beside another checkout's report

Measures the report of a recording, then that of the same recording compared with itself.  Status 1 when a figure misses
its aim.  Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from _benchmark import benchmark_options
from _chromium import chromium_page

from pyflame_ebpf.compare.comparison import compare
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.html_report import write_html_comparison
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS
from pyflame_ebpf.profile.model import Profile
from tests.profiles import wide_profile

if TYPE_CHECKING:
    from playwright.sync_api import Page

MEGABYTES_MAX = 15.0
FIRST_PAINT_MAX = 3000.0  # milliseconds
REACTION_MAX = 200.0
TURNS = 5
# Collects the milliseconds from each event until the screen shows what it changed.
WATCH = """() => {
  window.reactions = [];
  const watch = (event) => {
    const start = event.timeStamp;
    requestAnimationFrame(() => setTimeout(() => window.reactions.push(performance.now() - start)));
  };
  document.addEventListener("mouseup", watch, true);
  document.addEventListener("input", watch, true);
  document.addEventListener("keydown", watch, true);
}"""


def profile_over(stacks: int, seconds: int) -> Profile:
    """Make a profile of so many distinct stacks whose samples spread over so many seconds."""
    profile = wide_profile(stacks)
    profile.recording = replace(profile.recording, duration=float(seconds))
    profile.samples = Counter(
        {key._replace(second=index % seconds): count for index, (key, count) in enumerate(profile.samples.items())}
    )
    return profile


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stacks", type=int, default=200_000, help="distinct stacks of the recording; default 200,000")
    parser.add_argument("--seconds", type=int, default=300, help="its length; default 300")
    options = benchmark_options(parser)
    profile = profile_over(options.stacks, options.seconds)
    frames = sum(map(len, profile.stacks)) / len(profile.stacks)
    samples = f"{profile.total:,} samples, {options.seconds} s"
    print(f"{options.stacks:,} distinct stacks of {frames:.1f} frames, {samples}")
    missed = []
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "report.html"
        for write in (write_report, write_comparison):
            print(write.__doc__)
            missed += [*time_writing(write, profile, file), *time_browser(file)]
    sys.exit(1 if missed else 0)


def write_report(profile: Profile, file: Path) -> None:
    """One recording."""
    with file.open("wb") as stream:
        OUTPUT_FORMATS["html"].write(profile, stream, DEFAULT_OPTIONS)


def write_comparison(profile: Profile, file: Path) -> None:
    """Two recordings compared."""
    with file.open("w", encoding="utf-8") as stream:
        write_html_comparison(compare(profile, profile), stream, ComparisonOptions())


def time_writing(write: Callable[[Profile, Path], None], profile: Profile, file: Path) -> list[str]:
    """Print the report's time of writing and its size.  Returns the names of missed aims."""
    start = time.perf_counter()
    write(profile, file)
    print(f"{'written in':24} {time.perf_counter() - start:8.2f} s")
    size = file.stat().st_size / 1e6
    return judged("size", size, "MB", MEGABYTES_MAX)


def judged(name: str, figure: float, unit: str, limit: float) -> list[str]:
    """Print a figure beside its aim.  Returns its name if it misses that."""
    print(f"{name:24} {figure:8.1f} {unit}  (under {limit:,.0f})")
    return [] if figure < limit else [name]


def time_browser(file: Path) -> list[str]:
    """Print how long Chromium takes to show the report and to react.  Returns the names of missed aims."""
    with chromium_page(1400, 860) as page:
        page.goto(file.as_uri())
        page.wait_for_selector("[data-drawn]", timeout=60_000)  # the page's policy forbids to wait for a function
        drawn = float(page.locator("[data-drawn]").get_attribute("data-drawn") or "inf")
        missed = judged("first paint of the graph", drawn, "ms", FIRST_PAINT_MAX)
        page.evaluate(WATCH)
        for name, act in ACTIONS.items():
            missed += judged(name, median_reaction(page, act), "ms", REACTION_MAX)
    return missed


def median_reaction(page: Page, act: Callable[[Page, int], None]) -> float:
    """Return the median of some turns in ms; a turn's figure is the slowest reaction to any of its events."""
    slowest = []
    for turn in range(TURNS):
        page.evaluate("window.reactions = []")
        act(page, turn)
        page.wait_for_timeout(400)
        reactions: list[float] = page.evaluate("window.reactions")
        slowest.append(max(reactions))
    return statistics.median(slowest)


def drag(page: Page, turn: int) -> None:
    """Drag over a part of the timeline."""
    place = page.locator(".plot .u-over").bounding_box()
    assert place is not None
    left, middle = place["x"] + place["width"] * (0.1 + turn / 20), place["y"] + place["height"] / 2
    page.mouse.move(left, middle)
    page.mouse.down()
    page.mouse.move(left + place["width"] * 0.2, middle)
    page.mouse.move(left + place["width"] * 0.5, middle)
    page.mouse.up()


def search(page: Page, turn: int) -> None:
    """Search the graph, letter by letter."""
    page.locator("#search").fill(f"method_{turn + 1}.*module2")


def filter_table(page: Page, turn: int) -> None:
    """Filter the table."""
    page.locator("#filter").fill(f"Class{turn}")


def whole_range(page: Page, turn: int) -> None:
    """Move the chosen range by a second, back and forth."""
    page.locator(".plot").press("ArrowRight" if turn % 2 else "ArrowLeft")


ACTIONS = {
    "drag": drag,
    "range by key": whole_range,
    "search": search,
    "filter": filter_table,
}


if __name__ == "__main__":
    main()
