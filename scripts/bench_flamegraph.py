#!/usr/bin/env python3
"""Print how long a flame graph of many stacks takes to write, to open, to zoom and to search, and how large it is.

    scripts/bench_flamegraph.py                    100,000 distinct stacks
    scripts/bench_flamegraph.py --stacks 2000      the same, quickly

The browser's times need Chromium and playwright.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _benchmark import benchmark_options
from _chromium import chromium_page, executable

from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS
from pyflame_ebpf.profile.model import Profile
from tests.profiles import wide_profile

# Runs an action, and returns the milliseconds until its result is on the screen.
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stacks", type=int, default=100_000, help="distinct stacks of the profile; default 100,000")
    options = benchmark_options(parser)
    profile = wide_profile(options.stacks)
    print(f"{options.stacks:,} distinct stacks, {profile.total:,} samples, {mean_depth(profile):.1f} frames a stack")
    with tempfile.TemporaryDirectory() as directory:
        for each in OUTPUT_FORMATS.values():
            time_writing(profile, each.name, Path(directory) / each.file_name)
        time_browser(Path(directory) / "flamegraph.svg")


def mean_depth(profile: Profile) -> float:
    """Return the average number of frames of a stack."""
    return sum(map(len, profile.stacks)) / len(profile.stacks)


def time_writing(profile: Profile, name: str, file: Path) -> None:
    """Write one format, and print its seconds and its size."""
    start = time.perf_counter()
    with file.open("wb") as stream:
        OUTPUT_FORMATS[name].write(profile, stream, DEFAULT_OPTIONS)
    print(f"{name:12} {time.perf_counter() - start:6.2f} s to write {file.stat().st_size / 1e6:8.2f} MB")


def time_browser(file: Path) -> None:
    """Print the milliseconds that Chromium takes to show, to zoom and to search the file."""
    if not executable():
        print("Chromium is not installed: no browser times")
        return
    with chromium_page(1200, 800) as page:
        page.goto(file.as_uri())
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0", timeout=20_000)
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        print(f"first paint  {painted:6.0f} ms")
        print(f"zoom         {page.evaluate(TIMED, ZOOM):6.0f} ms")
        page.keyboard.press("Escape")
        print(f"search       {page.evaluate(TIMED, SEARCH):6.0f} ms, {page.locator('.share').text_content()}")


if __name__ == "__main__":
    main()
