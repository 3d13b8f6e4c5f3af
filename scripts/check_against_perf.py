#!/usr/bin/env python3
"""Compare the shares of native functions with those that perf finds in the same program at the same time.

    sudo scripts/check_against_perf.py                              20 s at 199 Hz
    sudo scripts/check_against_perf.py --interpreter 3.11.7 --duration 10

Both sample the CPU clock of one process (tests/targets/libraries.py mixture); perf unwinds by DWARF afterwards.
Status 1 unless every function's share, at the leaf and anywhere in the stack, differs by no more than three standard
errors of both and half a point.  A function that one of them cannot name counts by its file.  Shares of functions
anywhere in the stack are of whole stacks, since perf cuts some short.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from _recordings import Interpreter, chosen_interpreters, record_for, samples_of, targets

from pyflame_ebpf.profile.model import FrameKind, Profile

STANDARD_ERRORS, PART = 3, 0.005
SHOWN_FROM = 0.005
STACK_BYTES = 32768  # copied by perf at each sample
FRAME = re.compile(r"\s*[0-9a-f]+ (?P<name>.+?)(?:\+0x[0-9a-f]+)? \((?P<file>[^()]*)\)(?: \(deleted\))?$")

Stacks = Counter[tuple[str, ...]]  # labels of native frames, leaf first


def label(name: str, file: str) -> str:
    """Return the label for a function in both: its name without the symbol's version, or its file."""
    module = Path(file).name
    if name == "[unknown]" or "+0x" in name or not module.startswith(("libpython", "python")):
        return module
    return f"{name.split('@', maxsplit=1)[0]} {module}"


def of_profile(profile: Profile, pid: int) -> Stacks:
    """Return the native frames of one process's samples."""
    found: Stacks = Counter()
    for key, count in samples_of(profile, pid).items():
        frames = [frame for frame in reversed(profile.frames_of(key.stack)) if frame.kind is FrameKind.NATIVE]
        found[tuple(label(frame.name, frame.file) for frame in frames)] += count
    return found


def of_perf(data: Path) -> Stacks:
    """Return the user frames of perf's samples."""
    command = ["perf", "script", "--no-inline", "-i", str(data), "-F", "ip,sym,dso"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: Stacks = Counter()
    for block in text.split("\n\n"):
        frames = [match for line in block.splitlines() if (match := FRAME.fullmatch(line))]
        labels = [label(m["name"], m["file"]) for m in frames if not m["file"].startswith("[kernel")]
        if frames:
            found[tuple(labels)] += 1
    return found


def whole(stacks: Stacks) -> Stacks:
    """Keep the stacks that reach ``_start``, where every stack of the program's only thread begins."""
    return Counter({labels: count for labels, count in stacks.items() if labels and labels[-1].startswith("_start ")})


def shares(stacks: Stacks, leaf_only: bool) -> Counter[str]:
    """Count samples by function: by the leaf, or by every function in the stack."""
    found: Counter[str] = Counter()
    for labels, count in stacks.items():
        for name in set(labels[:1] if leaf_only else labels):
            found[name] += count
    return found


def differences(ours: Stacks, perfs: Stacks, leaf_only: bool) -> list[tuple[float, str, float, float, float]]:
    """Return (difference / allowed, function, our share, perf's share, allowed), worst first."""
    our_total, perf_total = sum(ours.values()), sum(perfs.values())
    mine, theirs = shares(ours, leaf_only), shares(perfs, leaf_only)
    found = []
    for name in mine | theirs:
        a, b = mine[name] / our_total, theirs[name] / perf_total
        if max(a, b) < SHOWN_FROM:
            continue
        error = math.sqrt(a * (1 - a) / our_total + b * (1 - b) / perf_total)
        allowed = STANDARD_ERRORS * error + PART
        found.append((abs(a - b) / allowed, name, a, b, allowed))
    return sorted(found, reverse=True)


def record_both(interpreter: Interpreter, duration: float, frequency: int) -> tuple[Stacks, Stacks]:
    """Record one program with both at the same time.  Returns (our stacks, perf's stacks)."""
    with (
        tempfile.TemporaryDirectory() as directory,
        targets([interpreter], "libraries.py", "mixture") as (target,),
    ):
        target.wait_until_ready()
        data = Path(directory) / "perf.data"
        graph = f"dwarf,{STACK_BYTES}"
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(frequency), "--call-graph", graph]
        perf: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            perf.append(
                subprocess.Popen([*command, "-o", str(data), "-p", str(target.pid), "--", "sleep", str(duration)])
            )

        profile = record_for(duration, frequency, start, pids=[target.pid])
        perf[0].wait()
        return of_profile(profile, target.pid), of_perf(data)


def main() -> int:
    """Record once and compare leaves and whole stacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=20)
    parser.add_argument("--frequency", type=int, default=199)
    parser.add_argument("--interpreter", default="3.12.1", help="part of a name")
    options = parser.parse_args()
    interpreter = chosen_interpreters([options.interpreter])[0]
    ours, perfs = record_both(interpreter, options.duration, options.frequency)
    failed = 0
    for leaf_only, title in ((True, "leaf"), (False, "in the stack")):
        compared = (ours, perfs) if leaf_only else (whole(ours), whole(perfs))
        found = differences(*compared, leaf_only)
        print(*(f"{name}: {each.total()} samples" for name, each in zip(("ours", "perf's"), compared, strict=True)))
        bad = sum(units > 1 for units, *_ in found)
        failed += bad or not found
        print(f"{title}: {len(found)} functions, {bad} differ by more than is allowed")
        for units, name, mine, theirs, allowed in found[:6]:
            print(f"  {name:50}{mine:>8.2%}{theirs:>8.2%}{allowed:>8.2%}{units:>7.2f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
