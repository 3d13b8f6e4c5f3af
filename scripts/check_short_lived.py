#!/usr/bin/env python3
"""Start a script that lives 50 ms again and again, and check that its samples are named.

    sudo scripts/check_short_lived.py                 20 s at 199 Hz: a static, a shared and the newest interpreters
    sudo scripts/check_short_lived.py --duration 5 --interpreter 3.13

Every run of tests/targets/short_lived.py measures its own CPU time from the script's first line to its end.  A sample
counts as taken in Python if it has Python frames, or an outcome that means they are missing; so does a sample of a
process that is not identified yet, although it may still be in the dynamic linker.  Status 1 unless 99 % of these
samples have file and line in all frames, and the samples with the script's <module> are as many as the measured CPU
time makes, within three standard errors of sampling and 2 %.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from _recordings import TARGETS, Interpreter, TargetProcess, chosen_interpreters, python_frames, record_for

from pyflame_ebpf.profile.model import FrameKind, Outcome, Profile, Stack

NAMED = 0.99
DEFAULT = ("system-3.11", "pyenv-3.6", "pyenv-3.11", "pyenv-3.13", "sid-3.15")


@dataclass(slots=True)
class Loop:
    """One interpreter's runs: their PIDs, and the sum of their own CPU seconds."""

    interpreter: Interpreter
    command: list[str]
    stop: threading.Event
    pids: set[int] = field(default_factory=set)
    script_cpu: float = 0.0

    def run(self) -> None:
        """Start the script again as soon as it has ended."""
        while not self.stop.is_set():
            with subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True) as process:
                self.pids.add(process.pid)
                said = process.communicate()[0].split()
            self.script_cpu += float(said[1]) - float(said[0])


@dataclass(slots=True)
class Tally:
    """Samples of one interpreter's runs."""

    all: int = 0
    python: int = 0
    named: int = 0
    in_script: int = 0
    startup: int = 0  # no Python frames, and none to fear: the dynamic linker, the interpreter's start and end
    defective_runs: set[int] = field(default_factory=set)
    defects: Counter[str] = field(default_factory=Counter)


def defect(stack: Stack, outcome: Outcome) -> str:
    """Describe what a stack in Python lacks; "" for nothing."""
    if outcome is not Outcome.COMPLETE:
        return f"{outcome.value}, in {brief(stack)}"
    for frame in python_frames(stack):
        if frame.kind is FrameKind.MARK or not frame.file or frame.name.startswith("["):
            return f"unnamed frame {frame.name} ({frame.file})"
        if not frame.line or not frame.first_line:
            return f"no line: {frame.name} ({frame.file})"
    return ""


def brief(stack: Stack) -> str:
    """Spell the innermost frames of a stack without Python frames."""
    return " ".join(f"{frame.name} ({frame.file.rsplit('/', 1)[-1]})" for frame in stack[1:][-3:]) or "an unknown place"


def tally(profile: Profile, pids: set[int], script: str) -> Tally:
    """Count the samples of these processes by kind, without those before the exec of the interpreter."""
    found = Tally()
    for key, count in profile.samples.items():
        process, stack = profile.processes[key.process], profile.frames_of(key.stack)
        if process.pid not in pids or (process.command and script not in process.command):
            continue
        found.all += count
        if key.outcome is Outcome.NOT_PYTHON:
            found.startup += count
            continue
        found.python += count
        missing = defect(stack, key.outcome)
        found.named += 0 if missing else count
        if missing:
            found.defects[missing] += count
            found.defective_runs.add(process.pid)
        frames = python_frames(stack)
        if any(frame.name == "<module>" and frame.file.endswith(script) for frame in frames):
            found.in_script += count
    return found


def check(loops: Sequence[Loop], duration: float, frequency: int) -> Profile:
    """Record while the loops run, which start and end with the recording."""
    threads = [threading.Thread(target=loop.run) for loop in loops]

    def begin() -> None:
        for thread in threads:
            thread.start()

    def end() -> None:
        for loop in loops:
            loop.stop.set()
        for thread in threads:
            thread.join()

    return record_for(duration, frequency, begin, end)


def show(loop: Loop, found: Tally, frequency: int) -> bool:
    """Print a line for an interpreter.  Returns whether it passed."""
    expected = loop.script_cpu * frequency
    allowed = 3 * math.sqrt(expected) + 0.02 * expected
    named = found.named / max(1, found.python)
    passed = found.python > 0 and named >= NAMED and abs(found.in_script - expected) <= allowed
    print(
        f"{loop.interpreter.name:15}{len(loop.pids):>6}{found.all:>9}{found.startup:>9}{found.python:>8}{named:>9.2%}"
        f"{found.in_script:>11}{expected:>10.0f} +-{allowed:<6.0f} {'ok' if passed else 'FAILED'}"
    )
    if found.defects:
        print(f"    {found.defects.total()} samples of {len(found.defective_runs)} runs are not named:")
    for text, count in found.defects.most_common(3):
        print(f"    {count} times {text}")
    return passed


def main() -> int:
    """Run one loop for each interpreter, all at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=20)
    parser.add_argument("--frequency", type=int, default=199)
    parser.add_argument("--milliseconds", type=int, default=50, help="CPU time of each run, its start included")
    parser.add_argument("--interpreter", action="append", default=[], help=f"part of a name; default {DEFAULT}")
    options = parser.parse_args()
    stop = threading.Event()
    loops = []
    for interpreter in chosen_interpreters(options.interpreter or DEFAULT):
        placed = TargetProcess(interpreter, "short_lived.py", "0")  # for its copy in the interpreter's root
        command = [*interpreter.argv, placed.script, str(options.milliseconds)]
        loops.append((placed, Loop(interpreter, command, stop)))
    profile = check([loop for _, loop in loops], options.duration, options.frequency)
    script = (TARGETS / "short_lived.py").name
    heads = f"{'runs':>6}{'samples':>9}{'start-up':>9}{'Python':>8}{'named':>9}{'in script':>11}{'expected':>10}"
    print(f"{'interpreter':15}{heads}")
    passed = [show(loop, tally(profile, loop.pids, script), options.frequency) for _, loop in loops]
    for placed, _ in loops:
        placed.close()
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
