#!/usr/bin/env python3
"""Look for impossible stacks: mixed from two chains of calls, out of order, or with a gap.

    sudo scripts/check_impossible_stacks.py                     at least 50,000 samples at 999 Hz, over all interpreters
    sudo scripts/check_impossible_stacks.py --samples 5000 --interpreter 3.13

The targets (tests/targets/two_chains.py) alternate every few microseconds between two chains of twelve functions that
share none.  Status 1 if one stack is impossible, or if more than one sample in two hundred is incomplete.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence

from _recordings import (
    Interpreter,
    batches,
    chosen_interpreters,
    cpus,
    described,
    python_frames,
    record_for,
    samples_of,
    targets,
)

from pyflame_ebpf.profile.model import Frame, Outcome, Profile

COMPLETE = 0.995
FIRST_SECONDS = 5.0

Tally = Counter[str]  # samples, incomplete, at the end of a and of b, and each fault


def possible(names: Sequence[str], chains: Sequence[Sequence[str]]) -> bool:
    """True for a possible stack of the target: <module>, alternate, and the beginning of one chain."""
    expected = (["<module>", "alternate", *chain][: len(names)] for chain in chains)
    return len(names) > 0 and list(names) in expected


def judge(profile: Profile, pid: int, chains: Sequence[Sequence[str]]) -> Tally:
    """Count one target's samples by their faults."""
    tally: Tally = Counter()
    for key, count in samples_of(profile, pid).items():
        frames = python_frames(profile.frames_of(key.stack))
        tally["samples"] += count
        if key.outcome is not Outcome.COMPLETE:
            tally["incomplete"] += count
            names = [frame.name for frame in profile.frames_of(key.stack)]
            tally[f"incomplete: {key.outcome.value}: {' '.join(names)}"] += count
        elif not possible([frame.name for frame in frames], chains):
            tally["impossible: " + " ".join(map(described, frames))] += count
        elif wrong := [frame for frame in frames if is_chained(frame.name, chains) and not right_line(frame)]:
            tally["wrong line: " + described(wrong[0])] += count
        elif frames[-1].name.endswith("12"):
            tally["at the end of " + frames[-1].name[0]] += count
    return tally


def is_chained(name: str, chains: Sequence[Sequence[str]]) -> bool:
    """True for a function of one of the chains."""
    return any(name in chain for chain in chains)


def right_line(frame: Frame) -> bool:
    """True if the line is the function's def, or in its body of one line or of five."""
    first, line, name = frame.first_line, frame.line, frame.name
    return first <= line <= first + (4 if name.endswith("12") else 1)


def check(interpreters: Sequence[Interpreter], seconds: float, frequency: int) -> list[Tally]:
    """Record the interpreters at once, and count each target's samples."""
    with targets(interpreters, "two_chains.py") as running:
        chains = [json.loads(target.read_line()) for target in running]
        for target in running:
            target.wait_until_ready()
        profile = record_for(seconds, frequency)
        return [judge(profile, target.pid, own) for target, own in zip(running, chains, strict=True)]


def show(name: str, tally: Tally) -> None:
    """Print a line for a target, and its faults."""
    ends = f"{tally['at the end of a']:>8}{tally['at the end of b']:>8}"
    print(f"{name:15}{tally['samples']:>8}{tally['incomplete']:>12}{faults(tally):>7}{ends}")
    for text, count in tally.most_common():
        if text.startswith(("impossible:", "wrong", "incomplete:")):
            print(f"    {count} times {text}")


def faults(tally: Tally) -> int:
    """Count the samples with an impossible stack."""
    return sum(count for text, count in tally.items() if text.startswith(("impossible:", "wrong")))


def main() -> int:
    """Record batch after batch until there are enough samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--frequency", type=int, default=999)
    parser.add_argument("--interpreter", action="append", default=[], help="part of a name; default all")
    options = parser.parse_args()
    interpreters = chosen_interpreters(options.interpreter)
    groups = list(batches(interpreters, cpus()))
    total: Tally = Counter()
    seconds = max(2.0, 1.15 * options.samples / len(interpreters) / options.frequency)
    print(f"{'interpreter':15}{'samples':>8}{'incomplete':>12}{'wrong':>7}{'in a12':>8}{'in b12':>8}")
    while total["samples"] < options.samples:
        for group in groups:
            for interpreter, tally in zip(group, check(group, seconds, options.frequency), strict=True):
                show(interpreter.name, tally)
                total += tally
        seconds = max(FIRST_SECONDS, math.ceil(seconds / 4))
    print(f"{total['samples']} samples, {total['incomplete']} incomplete, {faults(total)} impossible")
    return 1 if faults(total) or total["incomplete"] > (1 - COMPLETE) * total["samples"] else 0


if __name__ == "__main__":
    sys.exit(main())
