#!/usr/bin/env python3
"""Print the memory and CPU that samples take until they are named, where each sample is a new stack.

    scripts/bench_kept_samples.py                                      64 CPUs, 60 s
    scripts/bench_kept_samples.py --cpus 4 --seconds 3600 --live       as top keeps samples
    scripts/bench_kept_samples.py --cpus 2 --seconds 5                 quickly

Makes the samples itself, so it needs no root.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import time
from pathlib import Path

from _benchmark import benchmark_options

from pyflame_ebpf.commands.top import PLAN
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.abi import FRAME_NATIVE, FRAME_PYTHON
from pyflame_ebpf.sampling.events import Count, StackEvent
from pyflame_ebpf.stacks.collected import Collected

PROCESSES, PATHS = 64, 8  # processes, and hot call paths of each
COMMON = 12  # outermost frames that all paths of a process share, in Python and in native code
PYTHON_FRAMES, NATIVE_FRAMES = 20, 34
_FRAME = struct.Struct("<QQiI")


def frame(chance: random.Random, kind: int) -> bytes:
    """Make a raw frame at a random address."""
    return _FRAME.pack(chance.getrandbits(46), chance.getrandbits(46), 0, kind)


def call_paths(chance: random.Random) -> list[bytearray]:
    """Make the raw stacks of one process's hot call paths."""

    def frames(number: int, kind: int) -> bytes:
        return b"".join(frame(chance, kind) for _ in range(number))

    python, native = frames(COMMON, FRAME_PYTHON), frames(COMMON, FRAME_NATIVE)
    return [
        bytearray(
            frames(PYTHON_FRAMES - COMMON, FRAME_PYTHON)
            + python
            + frames(NATIVE_FRAMES - COMMON, FRAME_NATIVE)
            + native
        )
        for _ in range(PATHS)
    ]


def new_stack(chance: random.Random, identity: Identity, path: bytearray) -> StackEvent:
    """Make a stack of the path that is at another place in two Python and two native functions."""
    raw = path.copy()
    for at in (0, chance.randrange(PYTHON_FRAMES)):
        raw[at * _FRAME.size + 16] = chance.randrange(256)
    for at in (PYTHON_FRAMES, PYTHON_FRAMES + chance.randrange(NATIVE_FRAMES)):
        raw[at * _FRAME.size] = chance.randrange(256)
    return StackEvent(identity, chance.getrandbits(64), False, bytes(raw))


def resident() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the memory at every tenth of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpus", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--frequency", type=int, default=99)
    parser.add_argument("--live", action="store_true", help="let old samples go, as top does")
    options = benchmark_options(parser)
    chance = random.Random(1)
    paths = [(Identity(process, process, 0), path) for process in range(PROCESSES) for path in call_paths(chance)]
    collected = Collected(lambda *_: b"", PLAN.kept if options.live else None)
    collected.kept.begin_segment(0.0)
    before, used, stacks, came = resident(), 0.0, 0, 0
    for second in range(options.seconds):
        events = [new_stack(chance, *chance.choice(paths)) for _ in range(options.cpus * options.frequency)]
        counts = [Count(event.identity, event.identity.tgid, event.stack_id, 0, 1, False, 0, 1) for event in events]
        stacks, came = stacks + len(events), came + sum(len(event.raw) for event in events)
        began = time.process_time()
        for event in events:
            collected.add_stack(event, None)
        collected.add_counts(second, counts)
        if options.live:
            collected.make_room()
            collected.kept.begin_segment(second + 1.0)
        used += time.process_time() - began
        if (second + 1) % max(1, options.seconds // 10) == 0:
            print(f"{second + 1} s: {came / 1e6:.0f} MB came, {resident() - before:.0f} MB more memory", flush=True)
    begin = collected.kept.segments[0].begin
    print(f"{stacks} stacks, {used / stacks * 1e6:.1f} us each; kept from second {begin:.0f} on")


if __name__ == "__main__":
    main()
