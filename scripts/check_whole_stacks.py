#!/usr/bin/env python3
"""Count the samples whose native frames reach the thread's root, over all interpreters and many C libraries.

    sudo scripts/check_whole_stacks.py                            numpy and scipy too, in an environment of their own
    sudo scripts/check_whole_stacks.py --interpreter 3.11 --no-packages --duration 5

Each interpreter runs the programs of tests/targets/libraries.py, two of them started with the recording.  Status 1
unless at least 97 % of each process's samples are whole, and 99.5 % of its samples after its first two seconds.  Other
samples are listed by reason and by the outermost function reached.  At the end come the interpreters' functions that
are shown by default, to keep pyflame_ebpf/cpython/plumbing.py up to date.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from _recordings import Interpreter, TargetProcess, chosen_interpreters, record_for, samples_of

from pyflame_ebpf.profile.model import FrameKind, NativeOutcome, Profile, SampleKey, Stack
from tests.extension.build import build_extension

LIBRARIES = ("python", "sqlite3", "zlib", "hashlib", "ssl", "re", "json", "extension")
PACKAGES = ("numpy", "scipy")
STARTED_LATE = ("mixture", "extension")
WARM = 2  # seconds
WHOLE, WHOLE_FROM_THE_FIRST = 0.995, 0.97


@dataclass(slots=True)
class Verdict:
    """The result for one process; ``reasons`` and ``early`` count by (outcome, outermost frame reached)."""

    name: str
    samples: int = 0
    whole: int = 0
    late: int = 0  # samples after the first seconds
    late_whole: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    early: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        """True if enough samples are whole, from the first one on and later."""
        return (
            self.late > 0 and self.late_whole >= WHOLE * self.late and self.whole >= WHOLE_FROM_THE_FIRST * self.samples
        )


def reached(stack: Stack) -> str:
    """Spell the outermost native frame of a stack, with its file."""
    for frame in stack:
        if frame.kind is FrameKind.NATIVE:
            return f"{frame.name} ({Path(frame.file).name})"
    return "nothing"


def judge(name: str, profile: Profile, pid: int) -> Verdict:
    """Count one process's samples."""
    verdict = Verdict(name)
    samples = samples_of(profile, pid)
    first = min((key.second for key in samples), default=0)
    for key, count in samples.items():
        late = key.second >= first + WARM
        verdict.samples += count
        verdict.late += late * count
        if key.native is NativeOutcome.COMPLETE:
            verdict.whole += count
            verdict.late_whole += late * count
        else:
            reason = key.native.value, reached(profile.frames_of(key.stack))
            (verdict.reasons if late else verdict.early)[reason] += count
    return verdict


@dataclass(slots=True)
class Shown:
    """Functions of the interpreters' own files that are shown by default, with their samples."""

    samples: Counter[str] = field(default_factory=Counter)
    unnamed: Counter[str] = field(default_factory=Counter)  # by file

    def add(self, profile: Profile, keys: Counter[SampleKey]) -> None:
        """Add the shown functions of these samples."""
        for key, count in keys.items():
            interpreter = profile.processes[key.process].interpreter_file
            frames = {
                frame for frame in profile.frames_of(key.stack) if frame.file == interpreter and not frame.plumbing
            }
            for frame in frames:
                if "+0x" in frame.name:
                    self.unnamed[frame.file] += count
                else:
                    self.samples[frame.name] += count


def check(
    interpreter: Interpreter, programs: Sequence[str], late: Sequence[str], recorded: tuple[float, int], shown: Shown
) -> list[Verdict]:
    """Record the programs in one interpreter for ``recorded`` (seconds, frequency in Hz), and judge each."""
    with ExitStack() as ended:
        running: list[tuple[str, TargetProcess]] = []

        def start(program: str, note: str) -> None:
            target = TargetProcess(interpreter, "libraries.py", program)
            ended.callback(target.close)
            running.append((f"{interpreter.name} {program}{note}", target))

        for program in programs:
            start(program, "")
        for _, target in running:
            target.wait_until_ready()
        busy = [target.pid for _, target in running]

        def start_late() -> None:
            for program in late:
                start(program, " (new)")

        profile = record_for(*recorded, start_late, busy=busy)
        for _, target in running:
            shown.add(profile, samples_of(profile, target.pid))
        return [judge(name, profile, target.pid) for name, target in running]


def show(verdict: Verdict) -> None:
    """Print a line for a process, and the reasons for stacks that are cut short."""
    whole, late = verdict.whole / max(1, verdict.samples), verdict.late_whole / max(1, verdict.late)
    result = "ok" if verdict.passed else "FAILED"
    print(f"{verdict.name:28}{verdict.samples:>8}{whole:>10.2%}{verdict.late:>8}{late:>10.2%}  {result}")
    for when, reasons in (("late", verdict.reasons), ("early", verdict.early)):
        for (reason, place), count in reasons.most_common(4):
            print(f"    {when:6}{count:>5} {reason}: from {place}")


def environment_with_packages(base: Interpreter, directory: str) -> Interpreter:
    """Make an environment in the directory, with the packages from wheels.  Returns its interpreter."""
    subprocess.run([*base.argv, "-m", "venv", directory], check=True)
    python = str(Path(directory) / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *PACKAGES], check=True)
    return Interpreter(f"{base.name}+wheels", base.version, (python,), "/", base.shared, base.stripped)


def main() -> int:
    """Check interpreter after interpreter, and the packages in the newest that can install them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=10, help="seconds of each recording")
    parser.add_argument("--frequency", type=int, default=299)
    parser.add_argument("--interpreter", action="append", default=[], help="part of a name; default all")
    parser.add_argument("--no-packages", action="store_true", help="leave out what must be downloaded")
    parser.add_argument("--packages-in", default="3.12", help="release that numpy and scipy are installed for")
    parser.add_argument("--environment", help="directory of that environment, kept; default one that is removed")
    options = parser.parse_args()
    build_extension()
    print(f"{'program':28}{'samples':>8}{'whole':>10}{'late':>8}{'whole':>10}")
    verdicts: list[Verdict] = []
    shown = Shown()

    def check_one(interpreter: Interpreter, programs: Sequence[str], late: Sequence[str]) -> None:
        found = check(interpreter, programs, late, (options.duration, options.frequency), shown)
        for verdict in found:
            show(verdict)
        verdicts.extend(found)

    with tempfile.TemporaryDirectory() as directory:
        for interpreter in chosen_interpreters(options.interpreter):
            check_one(interpreter, LIBRARIES, STARTED_LATE)
        if not options.no_packages:
            base = chosen_interpreters([f"pyenv-{options.packages_in}", options.packages_in])[0]
            check_one(environment_with_packages(base, options.environment or directory), PACKAGES, PACKAGES)
    summarize(verdicts, shown)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def summarize(verdicts: Sequence[Verdict], shown: Shown) -> None:
    """Print the sums, and the shown functions."""
    late, whole = sum(verdict.late for verdict in verdicts), sum(verdict.late_whole for verdict in verdicts)
    samples, from_first = sum(verdict.samples for verdict in verdicts), sum(verdict.whole for verdict in verdicts)
    print(f"{samples} samples, {from_first / max(1, samples):.3%} whole; {late} late, {whole / max(1, late):.3%} whole")
    print(f"{len(verdicts)} processes, {sum(not verdict.passed for verdict in verdicts)} failed")
    print("functions of the interpreters that are shown, with the samples they are in:")
    print("  " + ", ".join(f"{name} {count}" for name, count in shown.samples.most_common()))
    for file, count in shown.unnamed.most_common():
        print(f"  functions without a name of {file}: {count}")


if __name__ == "__main__":
    sys.exit(main())
