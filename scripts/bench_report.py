"""How large report.html is for many distinct stacks, and how long it takes to write, to open, to drag and to search.

    python scripts/bench_report.py [STACKS [SECONDS]]

200,000 distinct stacks over 300 seconds unless told otherwise, then the same recording compared with itself.  Ends with
exit code 1 when a figure misses its target.
Needs Chromium and playwright.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pyflame_ebpf.compare.comparison import compare  # noqa: E402
from pyflame_ebpf.outputs import DEFAULT_OPTIONS, OUTPUT_FORMATS  # noqa: E402
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions  # noqa: E402
from pyflame_ebpf.outputs.html_report import write_html_comparison  # noqa: E402
from pyflame_ebpf.profile.model import Profile  # noqa: E402
from tests.profiles import wide_profile  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
MEGABYTES_MAX = 15.0
FIRST_PAINT_MAX = 3000.0  # milliseconds
REACTION_MAX = 200.0
TURNS = 5
# Milliseconds from the first event of an action until what it changed is on the screen.
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
    """So many distinct stacks, sampled in so many seconds."""
    profile = wide_profile(stacks)
    profile.recording = replace(profile.recording, duration=float(seconds))
    profile.samples = Counter(
        {key._replace(second=index % seconds): count for index, (key, count) in enumerate(profile.samples.items())}
    )
    return profile


def main() -> None:
    """Print the figures."""
    stacks = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    profile = profile_over(stacks, seconds)
    frames = sum(map(len, profile.stacks)) / len(profile.stacks)
    print(f"{stacks:,} distinct stacks of {frames:.1f} frames, {profile.total:,} samples, {seconds} s")
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
    """Print how long the report takes to write and how large it is; gives the targets missed."""
    start = time.perf_counter()
    write(profile, file)
    print(f"{'written in':24} {time.perf_counter() - start:8.2f} s")
    size = file.stat().st_size / 1e6
    return judged("size", size, "MB", MEGABYTES_MAX)


def judged(name: str, figure: float, unit: str, limit: float) -> list[str]:
    """Print a figure beside its target; gives its name when it misses."""
    print(f"{name:24} {figure:8.1f} {unit}  (under {limit:,.0f})")
    return [] if figure < limit else [name]


def time_browser(file: Path) -> list[str]:
    """Print how long Chromium takes to show the report and to react; gives the targets missed."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the writing is measured without it

    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 860})
        page.goto(file.as_uri())
        page.wait_for_selector("[data-drawn]", timeout=60_000)  # the page's policy forbids to wait for a function
        drawn = float(page.locator("[data-drawn]").get_attribute("data-drawn") or "inf")
        missed = judged("first paint of the graph", drawn, "ms", FIRST_PAINT_MAX)
        page.evaluate(WATCH)
        for name, act in ACTIONS.items():
            missed += judged(name, median_reaction(page, act), "ms", REACTION_MAX)
        browser.close()
    return missed


def median_reaction(page: Page, act: Callable[[Page, int], None]) -> float:
    """The median of some turns, each the slowest reaction to any of its events."""
    slowest = []
    for turn in range(TURNS):
        page.evaluate("window.reactions = []")
        act(page, turn)
        page.wait_for_timeout(400)
        slowest.append(max(page.evaluate("window.reactions")))
    return statistics.median(slowest)


def drag(page: Page, turn: int) -> None:
    """Choose a part of the timeline."""
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
    """Back to the whole recording, or on by a second."""
    page.locator(".plot").press("ArrowRight" if turn % 2 else "ArrowLeft")


ACTIONS = {
    "drag": drag,
    "range by key": whole_range,
    "search": search,
    "filter": filter_table,
}


if __name__ == "__main__":
    main()
