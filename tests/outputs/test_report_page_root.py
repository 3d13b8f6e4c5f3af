"""The report of a recording of real programs, whose load changes in its middle."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from pyflame_ebpf.commands.report import load
from tests.command_line import RunningRecording, wait_for_other_recordings
from tests.conftest import StartTarget
from tests.interpreters import Interpreter
from tests.report_page import Opened, chromium_browser, drag, rows
from tests.target_process import wait_until_used

pytestmark = [pytest.mark.root, pytest.mark.browser]
HALF = 6.0  # seconds
SAMPLED = 2.0  # seconds of CPU that each target has in each half, which takes longer on a busy host
FREQUENCY = 199
ALREADY_RECORDING = 8


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_browser() as browser:
        yield browser


def recording_of(targets: Any, directory: Path) -> Any:
    """A recording that has begun; there can be only one at a time on a host."""
    pids = [argument for target in targets for argument in ("--pid", str(target.pid))]
    while True:
        wait_for_other_recordings()
        running = RunningRecording(*pids, "--frequency", str(FREQUENCY), "--output", directory)
        try:
            running.wait_for("; output: ")
        except AssertionError:
            if running.end() != ALREADY_RECORDING:
                raise
        else:
            return running


def last(targets: Any) -> None:
    """One half of the recording."""
    end = time.monotonic() + HALF
    for target in targets:
        wait_until_used(target.pid, SAMPLED)
    time.sleep(max(0.0, end - time.monotonic()))  # not for anything to happen: this is how long a load lasts


def recorded(targets: Any, directory: Path) -> Any:
    """When each target's load changed, after half of the time, and how it spent its CPU before and afterwards."""
    running = recording_of(targets, directory)
    last(targets)
    for target in targets:
        target.write_line()
    changed = [json.loads(target.read_line()) for target in targets]
    last(targets)
    assert running.interrupt() == 0, running.stderr
    for target in targets:
        target.write_line()
    return changed, [json.loads(target.read_line()) for target in targets]


def split(page: Page, process: int) -> tuple[float, float]:
    """The share of foo in what one process shows in the table, and the CPU seconds of both."""
    page.evaluate(
        "(index) => { location.hash = location.hash.replace(/&process=\\d+/, '') + `&process=${index}`; }", process
    )
    page.wait_for_selector(".filters .chip")
    shown = {name.split(" ")[0]: figures[3] for name, figures in rows(page).items()}
    both = shown["foo"] + shown["bar"]
    return shown["foo"] / both, both


def test_each_half_of_a_changing_load_shows_its_own_split(
    chromium: Browser, start_target: StartTarget, interpreters: tuple[Interpreter, ...], tmp_path: Path
) -> None:
    targets = [start_target(each, "changing_load.py") for each in (interpreters[0], interpreters[-1])]
    directory = tmp_path / "out"
    changed, spent = recorded(targets, directory)
    profile = load(directory)
    seconds = math.ceil(profile.recording.duration)
    change = [moment - profile.recording.started for moment in changed]
    processes = [[each.pid for each in profile.processes].index(target.pid) for target in targets]
    opened = Opened(chromium)
    page = opened.at(directory / "report.html")
    for half, (begin, end) in enumerate([(0.1, int(min(change)) - 0.1), (int(max(change)) + 1.1, seconds - 0.1)]):
        drag(page, begin, end, seconds)
        for process, true in zip(processes, spent, strict=True):
            truth = true[half][0] / sum(true[half])
            shown, cpu = split(page, process)
            error = math.sqrt(truth * (1 - truth) / (cpu * FREQUENCY))
            assert shown == pytest.approx(truth, abs=4 * error)
        page.evaluate("location.hash = ''")
    page.screenshot(path=tmp_path / "report.png")
    opened.close()
