#!/usr/bin/env python3
"""Print the BPF time of a native frame, by the number of frames under a C program without frame pointers.

    sudo scripts/bench_native.py                     some three minutes; needs gcc
    sudo scripts/bench_native.py --repeats 1 --seconds 1 --depth 10     quickly

Every CPU runs a program that has called itself so often and computes in its innermost function: through one function,
and through 16 that lie on code pages of their own.  A frame's time is what a sample costs with native frames less what
it costs without, over the frames in it.  Status 1 when a median is above the aim.  The host must be otherwise idle.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from _benchmark import benchmark_options
from _bpf_cost import bpf_cost
from _recordings import cpus, once_alone

from pyflame_ebpf.profile.model import FrameKind, NativeOutcome, Profile

AIM = 400.0  # ns a frame
DEPTHS = (10, 30, 100)
WARM_UP = 2.0  # seconds
PAGES = 16

SOURCE = """
#include <stdio.h>
#include <stdlib.h>

typedef long function(long);
static function *const next[];
static volatile long sink;

static __attribute__((noinline)) long compute(long seed)
{
    for (;;)
        sink = seed = seed * 6364136223846793005 + 1442695040888963407;
}

/* The sum after the call keeps it from becoming a jump. */
#define LEVEL(number) \\
    static __attribute__((noinline, aligned(ALIGNMENT))) long level_##number(long depth) \\
    { \\
        long below = depth ? next[depth % FUNCTIONS](depth - 1) : compute(number); \\
        return below + sink; \\
    }
LEVEL(0) LEVEL(1) LEVEL(2) LEVEL(3) LEVEL(4) LEVEL(5) LEVEL(6) LEVEL(7)
LEVEL(8) LEVEL(9) LEVEL(10) LEVEL(11) LEVEL(12) LEVEL(13) LEVEL(14) LEVEL(15)

static function *const next[] = {level_0, level_1, level_2,  level_3,  level_4,  level_5,  level_6,  level_7,
                                 level_8, level_9, level_10, level_11, level_12, level_13, level_14, level_15};

int main(int count, char **words)
{
    puts("ready");
    fflush(stdout);
    return (int)level_0(atol(words[count - 1]) - 1);
}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One measurement: ns of BPF time a sample, and how many native frames the samples have at the mean."""

    sample: float
    frames: float


def build(directory: Path, functions: int) -> Path:
    """Compile the program that goes through so many functions."""
    source, program = directory / "deep.c", directory / f"deep-{functions}"
    source.write_text(SOURCE, encoding="ascii")
    alignment = 4096 if functions > 1 else 16
    options = ["-O2", "-fomit-frame-pointer", f"-DFUNCTIONS={functions}", f"-DALIGNMENT={alignment}", "-Wno-pedantic"]
    subprocess.run(["gcc", *options, "-o", program, source], check=True)
    return program


@contextmanager
def running(program: Path, depth: int) -> Iterator[tuple[int, ...]]:
    """Yield the PIDs of one process of the program for each CPU."""
    with ExitStack() as processes:
        pids = []
        for _ in range(cpus()):
            process = processes.enter_context(subprocess.Popen([program, str(depth)], stdout=subprocess.PIPE))
            processes.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            pids.append(process.pid)
        yield tuple(pids)


def frames_a_sample(profile: Profile) -> float:
    """Return how many native frames a whole stack has at the mean."""
    samples = frames = 0
    for key, count in profile.samples.items():
        if key.native is NativeOutcome.COMPLETE:
            samples += count
            frames += count * sum(frame.kind is FrameKind.NATIVE for frame in profile.frames_of(key.stack))
    return frames / samples if samples else 0.0


def measure(program: Path, depth: int, seconds: float, *, native: bool) -> Cost:
    """Return what a sample costs, once all code pages and stacks are known."""

    def attempt() -> Cost:
        with running(program, depth) as pids:
            cost = bpf_cost(WARM_UP, seconds, native=native, pids=pids)
        return Cost(cost.time_ns / cost.samples, frames_a_sample(cost.profile))

    return once_alone(attempt)


def bench(program: Path, depth: int, seconds: float, repeats: int) -> tuple[float, float, float, float]:
    """Return medians: frames, ns a sample without and with native frames, ns a frame."""
    without, with_native, frames, each = [], [], [], []
    for _ in range(repeats):
        base = measure(program, depth, seconds, native=False)
        whole = measure(program, depth, seconds, native=True)
        without.append(base.sample)
        with_native.append(whole.sample)
        frames.append(whole.frames)
        each.append((whole.sample - base.sample) / whole.frames)
    return (
        statistics.median(frames),
        statistics.median(without),
        statistics.median(with_native),
        statistics.median(each),
    )


def main() -> int:
    """Measure all depths; the exit status is that of the module's description."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each; default 3")
    parser.add_argument("--depth", type=int, action="append", help=f"calls; repeatable, default {DEPTHS}")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of one measurement")
    arguments = benchmark_options(parser)
    worst = 0.0
    print(f"{'code':<12}{'depth':>6}{'frames':>8}{'sample without, ns':>20}{'with, ns':>10}{'a frame, ns':>13}")
    with tempfile.TemporaryDirectory() as directory:
        for functions in (1, PAGES):
            program = build(Path(directory), functions)
            for depth in arguments.depth or DEPTHS:
                frames, without, whole, each = bench(program, depth, arguments.seconds, arguments.repeats)
                worst = max(worst, each)
                code = f"{functions} page{'s' * (functions > 1)}"
                print(f"{code:<12}{depth:>6}{frames:>8.1f}{without:>20.0f}{whole:>10.0f}{each:>13.0f}", flush=True)
    print(f"aim: {AIM:.0f} ns a frame")
    return 0 if worst <= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
