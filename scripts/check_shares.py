#!/usr/bin/env python3
"""Compare recordings with what target programs measured of themselves, in every interpreter of this machine.

    sudo scripts/check_shares.py                                       20 s at 199 Hz, as many at once as there are CPUs
    sudo scripts/check_shares.py --duration 5 --interpreter sid-3.14   one of them, quickly

Each target (tests/targets/shares.py) divides its CPU 75/25 between pairs of functions (sections), and measures the
division by its threads' CPU clocks.  Status 1 unless every section's share differs by at most three standard errors
of sampling plus half a point; every function, file, line and call is one of the target's; and 99.5 % of the samples are
complete, from <module> or the thread's entry to the leaf.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from _recordings import (
    Interpreter,
    TargetProcess,
    batches,
    chosen_interpreters,
    cpus,
    described,
    python_frames,
    record_for,
    samples_of,
    targets,
)

from pyflame_ebpf.profile.model import Frame, Outcome, Profile, Stack

PART = 0.005  # half a point
STANDARD_ERRORS = 3
COMPLETE = 0.995

CodeKey = tuple[str, str, int]  # name, file, first line


@dataclass(slots=True)
class Oracle:
    """All that may be seen of a target; names are not qualified before 3.11, whose code objects have no others."""

    lines: dict[CodeKey, set[int]]
    calls: set[tuple[CodeKey, int, CodeKey]]
    sections: list[CodeKey]
    deep: list[CodeKey]
    depth: int
    file: str

    @classmethod
    def of(cls, target: TargetProcess) -> Oracle:
        """Read a target's description of itself, its first line."""
        said = json.loads(target.read_line())
        lines = {(name, file, first): set(lines) for name, file, first, lines in said["codes"]}
        calls = {(tuple(caller), line, tuple(called)) for caller, line, called in said["calls"]}
        sections = [tuple(section) for section in said["sections"]]
        return cls(lines, calls, sections, [tuple(deep) for deep in said["deep"]], said["depth"], said["file"])

    def is_entry(self, frame: Frame) -> bool:
        """True for the first Python frame of a thread."""
        if frame.name == "<module>":
            return frame.file == self.file
        return frame.name.split(".")[-1] == "_bootstrap" and frame.file.endswith("/threading.py")

    def fault(self, frames: Sequence[Frame]) -> str:
        """Describe an impossible frame or call in this stack; "" for none."""
        for frame in frames:
            if frame.line not in self.lines.get(code_key(frame), ()):
                return f"no such function or line: {described(frame)}"
        for caller, called in itertools.pairwise(frames):
            if (
                self.file == caller.file == called.file
                and "report" not in (caller.name, called.name)
                and not self.may_call(caller, called)
            ):
                return f"no such call: {described(caller)} to {described(called)}"
        return self.depth_fault(frames)

    def may_call(self, caller: Frame, called: Frame) -> bool:
        """True if the target makes this call from this line; <module> makes calls that its dry run did not."""
        return caller.name == "<module>" or (code_key(caller), caller.line, code_key(called)) in self.calls

    def depth_fault(self, frames: Sequence[Frame]) -> str:
        """Describe a recursion that is not as deep as the target's; "" for none."""
        if len(frames) < 2 or code_key(frames[-2]) not in self.deep or code_key(frames[-1]) in self.deep:
            return ""
        depth = sum(code_key(frame) == code_key(frames[-2]) for frame in frames)
        return "" if depth == self.depth else f"{depth} frames of {described(frames[-2])}, not {self.depth}"


@dataclass(slots=True)
class Verdict:
    """The result for one target; ``shares`` holds (section, measured, sampled, allowed difference)."""

    name: str
    samples: int = 0
    complete: int = 0
    shares: list[tuple[str, float, float, float]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    incomplete: Counter[str] = field(default_factory=Counter)

    @property
    def worst(self) -> tuple[str, float, float, float]:
        """The section whose difference is the largest part of the allowed one."""
        return max(self.shares, key=lambda share: abs(share[1] - share[2]) / share[3])

    @property
    def passed(self) -> bool:
        """True if the target's samples are complete, possible and divided right."""
        return (
            self.samples > 0
            and not self.faults
            and self.complete >= COMPLETE * self.samples
            and all(abs(measured - sampled) <= allowed for _, measured, sampled, allowed in self.shares)
        )


def code_key(frame: Frame) -> CodeKey:
    """Return the key of a frame's function."""
    return frame.name, frame.file, frame.first_line


def section_of(frames: Sequence[Frame], sections: Sequence[CodeKey]) -> int | None:
    """Return the index of a stack's section; None outside of all sections."""
    return next((sections.index(code_key(frame)) for frame in frames if code_key(frame) in sections), None)


def judge(name: str, oracle: Oracle, profile: Profile, pid: int, spent: Sequence[float]) -> Verdict:
    """Compare one process's samples with its own figures; ``spent`` is CPU seconds by section."""
    verdict = Verdict(name)
    found = [0] * len(oracle.sections)
    for key, count in samples_of(profile, pid).items():
        frames = python_frames(profile.frames_of(key.stack))
        verdict.samples += count
        if key.outcome is not Outcome.COMPLETE or not frames or not oracle.is_entry(frames[0]):
            verdict.incomplete[f"{key.outcome.value}: {brief(profile.frames_of(key.stack))}"] += count
            continue
        verdict.complete += count
        if fault := oracle.fault(frames):
            verdict.faults[fault] += count
        if (section := section_of(frames, oracle.sections)) is not None:
            found[section] += count
    total, charged = max(1, sum(found)), sum(spent)
    for (function, _, _), samples, seconds in zip(oracle.sections, found, spent, strict=True):
        share = seconds / charged
        allowed = STANDARD_ERRORS * math.sqrt(share * (1 - share) / total) + PART
        verdict.shares.append((function, share, samples / total, allowed))
    return verdict


def brief(stack: Stack) -> str:
    """Spell the outermost and innermost frames of a stack."""
    names = [frame.name for frame in stack]
    return " ".join(names if len(names) < 6 else [*names[:2], "…", *names[-3:]])


def check(interpreters: Sequence[Interpreter], duration: float, frequency: int) -> list[Verdict]:
    """Record the interpreters at once, and judge each."""

    def snapshot() -> None:
        for target in running:
            os.kill(target.pid, signal.SIGUSR1)

    with targets(interpreters, "shares.py") as running:
        oracles = [Oracle.of(target) for target in running]
        for target in running:
            target.wait_until_ready()
        profile = record_for(duration, frequency, snapshot, snapshot, busy=[target.pid for target in running])
        verdicts = []
        for target, oracle in zip(running, oracles, strict=True):
            before, after = json.loads(target.read_line()), json.loads(target.read_line())
            spent = [end - start for start, end in zip(before, after, strict=True)]
            verdicts.append(judge(target.interpreter.name, oracle, profile, target.pid, spent))
        return verdicts


def show(verdict: Verdict, every_section: bool) -> None:
    """Print a line for a target, and its faults."""
    name, measured, sampled, allowed = verdict.worst
    complete = verdict.complete / max(1, verdict.samples)
    print(
        f"{verdict.name:15}{verdict.samples:>8}{complete:>10.2%}{sum(verdict.faults.values()):>7}"
        f"  {name:22}{measured:>8.2%}{sampled:>8.2%}{allowed:>8.2%}  {'ok' if verdict.passed else 'FAILED'}"
    )
    for section, measured, sampled, allowed in verdict.shares if every_section else ():
        print(f"{'':42}{section:22}{measured:>8.2%}{sampled:>8.2%}{allowed:>8.2%}")
    for fault, count in (verdict.faults + verdict.incomplete).most_common(4):
        print(f"    {count} times {fault}")


def main() -> int:
    """Check all interpreters in batches of as many as there are CPUs, then all of them at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=20, help="seconds of each recording")
    parser.add_argument("--frequency", type=int, default=199)
    parser.add_argument("--interpreter", action="append", default=[], help="part of a name; default all")
    parser.add_argument("--no-crowd", action="store_true", help="leave out the round with more targets than CPUs")
    parser.add_argument("--sections", action="store_true", help="print every section, not just the worst")
    options = parser.parse_args()
    interpreters = chosen_interpreters(options.interpreter)
    rounds = list(batches(interpreters, cpus()))
    if len(rounds) > 1 and not options.no_crowd:
        rounds.append(interpreters)
    print(
        f"{'interpreter':15}{'samples':>8}{'complete':>10}{'wrong':>7}"
        f"  {'worst section':22}{'itself':>8}{'sampled':>8}{'allowed':>8}"
    )
    failed = checked = 0
    for group in rounds:
        print(f"{len(group)} at once, {options.duration:g} s at {options.frequency} Hz")
        for verdict in check(group, options.duration, options.frequency):
            show(verdict, options.sections)
            checked += 1
            failed += not verdict.passed
    print(f"{checked} recordings of a process, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
