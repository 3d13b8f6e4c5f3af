#!/usr/bin/env python3
"""Make docs/report.png, the README's picture, from a real recording of three interpreters at work.

    sudo scripts/readme_picture.py
    sudo scripts/readme_picture.py --seconds 4 --output /tmp/picture.png     quickly, and somewhere else

Needs playwright and Chromium, as the browser tests do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from _checkout import CHECKOUT
from _chromium import chromium_page

from pyflame_ebpf.recording.host_lock import AlreadyRecording
from tests.command_line import wait_for_other_recordings

PROGRAM = CHECKOUT / "tests" / "targets" / "orders.py"
PICTURE = CHECKOUT / "docs" / "report.png"
PARTS = (1.2, 0.65, 0.4)  # of the recording, during which each program runs
WIDTH, HEIGHT = 1400, 800


def interpreters() -> list[Path]:
    """Return up to three interpreters of different releases."""
    installed = Path("~/.pyenv/versions").expanduser()
    wanted = [installed / release / "bin" / "python" for release in ("3.9.18", "3.12.1", "3.13.0")]
    return [path for path in wanted if path.exists()] or [Path(sys.executable)]


def begin(program: subprocess.Popen[bytes]) -> None:
    """Let a program begin, which waits for the end of its standard input."""
    assert program.stdin is not None
    program.stdin.close()


def record(seconds: float, directory: Path) -> Path:
    """Record the programs once no other profiler records; they begin with the recording.  Returns its report."""
    while True:
        wait_for_other_recordings()
        programs = [
            subprocess.Popen([path, PROGRAM, str(seconds * part), "wait"], stdin=subprocess.PIPE)
            for path, part in zip(interpreters(), PARTS, strict=False)
        ]
        pids = [argument for program in programs for argument in ("--pid", str(program.pid))]
        command = [sys.executable, "-m", "pyflame_ebpf", "record", *pids, "--duration", str(seconds)]
        command += ["--frequency", "199", "--output", str(directory)]
        with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as recording:
            assert recording.stderr is not None
            said = recording.stderr.readline()
            for program in programs:
                begin(program)
            said += recording.stderr.read()
        for program in programs:
            program.kill()
            program.wait()
        if recording.returncode != AlreadyRecording.exit_code:
            if recording.returncode:
                sys.exit(said)
            return directory / "report.html"


def photograph(report: Path, seconds: float, picture: Path) -> None:
    """Open the report in Chromium, choose a part of its time, and save a picture of the page."""
    with chromium_page(WIDTH, HEIGHT) as page:
        page.goto(f"{report.as_uri()}#range={seconds * 0.1:.0f}-{seconds * PARTS[1]:.0f}")
        page.wait_for_selector("[data-drawn]")
        page.screenshot(path=picture)


def main() -> None:
    """Record, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=16.0, help="length of the recording; default 16")
    parser.add_argument("--output", type=Path, default=PICTURE, help="where the picture goes; default docs/report.png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = record(options.seconds, Path(temporary) / "recording")
        photograph(report, options.seconds, options.output)
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
