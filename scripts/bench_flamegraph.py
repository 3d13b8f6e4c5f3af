"""How long a flame graph of many distinct stacks takes to write, to open, to zoom and to search, and how large it is.

    python scripts/bench_flamegraph.py [STACKS]

Builds a profile of 100,000 distinct stacks unless told otherwise.  The browser's times need Chromium and playwright.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pyflame_ebpf.outputs import DEFAULT_OPTIONS, OUTPUT_FORMATS  # noqa: E402
from pyflame_ebpf.profile.model import Profile  # noqa: E402
from tests.profiles import wide_profile  # noqa: E402

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Runs an action and waits until its result is on the screen; milliseconds.
TIMED = """async (action) => {
  const start = performance.now();
  new Function(action)();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}"""
ZOOM = """
  const box = document.querySelectorAll(".graph rect.box")[2].getBoundingClientRect();
  const at = { bubbles: true, clientX: box.x + 4, clientY: box.y + 4 };
  document.querySelector(".graph svg").dispatchEvent(new MouseEvent("click", at));
"""
SEARCH = """
  const input = document.querySelector("input");
  input.value = "method_1.*module2";
  input.dispatchEvent(new Event("input"));
"""


def main() -> None:
    """Print the figures."""
    stacks = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    profile = wide_profile(stacks)
    print(f"{stacks:,} distinct stacks, {profile.total:,} samples, {mean_depth(profile):.1f} frames a stack")
    with tempfile.TemporaryDirectory() as directory:
        for each in OUTPUT_FORMATS.values():
            time_writing(profile, each.name, Path(directory) / each.file_name)
        time_browser(Path(directory) / "flamegraph.svg")


def mean_depth(profile: Profile) -> float:
    """Frames of a stack, on average."""
    return sum(map(len, profile.stacks)) / len(profile.stacks)


def time_writing(profile: Profile, name: str, file: Path) -> None:
    """Print how long one format takes to write and how large it is."""
    start = time.perf_counter()
    with file.open("wb") as stream:
        OUTPUT_FORMATS[name].write(profile, stream, DEFAULT_OPTIONS)
    print(f"{name:12} {time.perf_counter() - start:6.2f} s to write {file.stat().st_size / 1e6:8.2f} MB")


def time_browser(file: Path) -> None:
    """Print how long Chromium takes to show, zoom and search the file."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        print("Chromium is not installed: no browser times")
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(file.as_uri())
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0", timeout=20_000)
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        print(f"first paint  {painted:6.0f} ms")
        print(f"zoom         {page.evaluate(TIMED, ZOOM):6.0f} ms")
        page.keyboard.press("Escape")
        print(f"search       {page.evaluate(TIMED, SEARCH):6.0f} ms, {page.locator('.share').text_content()}")
        browser.close()


if __name__ == "__main__":
    main()
