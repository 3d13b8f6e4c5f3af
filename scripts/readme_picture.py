#!/usr/bin/env python3
"""Make docs/report.png, the README's picture, from a real recording of three interpreters at work.

    sudo scripts/readme_picture.py [SECONDS]

Needs what the browser tests need: playwright, and Chromium (or CHROMIUM in the environment).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.command_line import wait_for_other_recordings  # noqa: E402

PROGRAM = ROOT / "tests" / "targets" / "orders.py"
PICTURE = ROOT / "docs" / "report.png"
WARM_UP = 1.5
ALREADY_RECORDING = 8
PARTS = (1.2, 0.65, 0.4)  # of the recording, in which each program runs
SIZE = {"width": 1400, "height": 800}
BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def interpreters() -> list[Path]:
    """Up to three of different releases."""
    installed = Path("~/.pyenv/versions").expanduser()
    wanted = [installed / release / "bin" / "python" for release in ("3.9.18", "3.12.1", "3.13.0")]
    return [path for path in wanted if path.exists()] or [Path(sys.executable)]


def record(seconds: float, directory: Path) -> Path:
    """The report of a recording of the programs, made when nobody else on this host records."""
    while True:
        wait_for_other_recordings()
        programs = [
            subprocess.Popen([path, PROGRAM, str(seconds * part + 2 * WARM_UP)])
            for path, part in zip(interpreters(), PARTS, strict=False)
        ]
        pids = [argument for program in programs for argument in ("--pid", str(program.pid))]
        command = [sys.executable, "-m", "pyflame_ebpf", "record", *pids, "--duration", str(seconds)]
        ended = subprocess.run([*command, "--frequency", "199", "--output", directory], cwd=ROOT, check=False)
        for program in programs:
            program.kill()
            program.wait()
        if ended.returncode != ALREADY_RECORDING:
            ended.check_returncode()
            return directory / "report.html"


def photograph(report: Path, seconds: float) -> None:
    """Open the report in Chromium, choose a part of it, and keep what it looks like."""
    with sync_playwright() as playwright:
        executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_OPTIONS)
        page = browser.new_page(viewport=SIZE)
        page.goto(f"{report.as_uri()}#range={seconds * 0.1:.0f}-{seconds * PARTS[1]:.0f}")
        page.wait_for_selector("[data-drawn]")
        page.screenshot(path=PICTURE)
        browser.close()


def main() -> None:
    """Record, and take the picture."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 16.0
    PICTURE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        photograph(record(seconds, Path(temporary) / "recording"), seconds)
    print(PICTURE)


if __name__ == "__main__":
    main()
