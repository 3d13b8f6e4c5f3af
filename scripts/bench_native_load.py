#!/usr/bin/env python3
"""What native stacks cost the profiler itself, and how soon they are whole.

    sudo scripts/bench_native_load.py                             every part
    sudo scripts/bench_native_load.py libraries --python venv/bin/python --modules pyarrow.compute,scipy.linalg,torch
    sudo scripts/bench_native_load.py interpreters --repeat 3

libraries      one process that has mapped very large libraries and runs code in them
interpreters   one busy process in each interpreter of this machine: samples that are whole from the first one on
many           50 Python processes: memory
steady         20 busy Python processes: CPU once warm
short          a 50 ms script again and again

Each part is recorded by a child process, so that its CPU time and memory are the profiler's alone; medians of the
repetitions.  Stacks of the part's own processes count, CPU and memory are those of recording the whole host; the
profile is made, outputs are not written.  A stack is whole when its walk reached the thread's root, in the BPF programs
or, from the copy of its memory, in user space.  A sample has the time at which it was taken from the programs' counts,
every 0.1 s at first.  scripts/bench_start.py measures the start of the command itself.
"""

from __future__ import annotations

import argparse
import compileall
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from _benchmark import benchmark_options
from _recordings import CHECKOUT, Interpreter, chosen_interpreters, repeated, workloads

from pyflame_ebpf.profile.model import NativeOutcome

RECORDING = Path(__file__).parent / "_watched_recording.py"
PARTS = ("libraries", "interpreters", "many", "steady", "short")

LARGE = """
import importlib, sys, threading
modules = [importlib.import_module(name) for name in sys.argv[1].split(",")]
import numpy
print("ready", flush=True)
table = numpy.random.rand(300, 300)
while True:
    for name, module in zip(sys.argv[1].split(","), modules):
        if name == "pyarrow.compute":
            module.sort_indices(table.ravel()[:20000]) if hasattr(module, "sort_indices") else None
        elif name == "scipy.linalg":
            module.svd(table[:120, :120])
        elif name == "torch":
            module.nn.functional.softmax(module.from_numpy(table) @ module.from_numpy(table), dim=1).sum()
        else:
            sorted(range(20000), key=lambda number: -number)
"""
SHORT = "import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: sorted(range(300), key=abs)"


def run_child(seconds: float, frequency: int) -> dict[str, Any]:
    """Record in a process of its own, and return what that says."""
    command = [sys.executable, str(RECORDING), str(seconds), str(frequency), str(time.monotonic())]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def whole_share(result: dict[str, Any], pids: set[int]) -> tuple[float, Counter[str], list[float]]:
    """Return the whole share of the processes' samples with a user stack, samples by outcome, the share by second."""
    total: Counter[str] = Counter()
    seconds: dict[int, Counter[str]] = {}
    for pid in pids & {int(pid) for pid in result["outcomes"]}:
        for second, outcomes in result["outcomes"][str(pid)].items():
            counted = Counter({name: number for name, number in outcomes.items() if name != NativeOutcome.NONE.value})
            total += counted
            seconds.setdefault(int(second), Counter()).update(counted)
    whole = NativeOutcome.COMPLETE.value
    by_second = [counted[whole] / max(1, sum(counted.values())) for _, counted in sorted(seconds.items())]
    return total[whole] / max(1, sum(total.values())), total, by_second


def first_of(result: dict[str, Any], name: str, pids: set[int]) -> float:
    """Return the seconds from the command to the processes' first sample of a kind; infinity without one."""
    return min((float(seconds) for pid, seconds in result[name].items() if int(pid) in pids), default=float("inf"))


def report(part: str, results: list[tuple[dict[str, Any], set[int]]]) -> None:
    """Print the medians, and why other stacks were not whole."""

    def median(name: str) -> float:
        return statistics.median(float(result[name]) for result, _ in results)

    def first(name: str) -> float:
        return statistics.median(first_of(result, name, pids) for result, pids in results)

    shares = [whole_share(result, pids) for result, pids in results]
    in_programs = [
        sum(samples for pid, samples in result["whole_in_programs"].items() if int(pid) in pids) / max(1, total.total())
        for (result, pids), (_, total, _) in zip(results, shares, strict=True)
    ]
    after = statistics.median(result["cpu_sampling"] + result["cpu_profile"] for result, _ in results)
    print(f"== {part}, medians of {len(results)}")
    print(
        f"  command to first tick {median('ready'):.2f} s, to first whole sample {first('first_whole'):.2f} s"
        f" (to the first that the BPF programs walked alone {first('first_whole_in_programs'):.2f} s)"
    )
    print(
        f"  CPU from the command on {median('cpu'):.2f} s: start {median('cpu_start'):.2f} s;"
        f" from the first tick on {after:.2f} s: sampling {median('cpu_sampling'):.2f} s,"
        f" the profile at the end {median('cpu_profile'):.2f} s; warm {median('steady'):.2%}"
    )
    megabytes = [median(name) / 1e6 for name in ("private", "private_end", "maps")]
    print("  memory: {:.0f} MB private, {:.0f} at the end; BPF maps {:.0f} MB".format(*megabytes))
    print(
        f"  whole {statistics.median(share for share, _, _ in shares):.2%}"
        f" ({statistics.median(in_programs):.2%} by the BPF programs alone); stacks {median('stacks'):.0f}"
    )
    print("  by second " + " ".join(f"{share:.1%}" for share in shares[-1][2][:6]))
    print("  " + ", ".join(f"{name}: {number}" for name, number in shares[-1][1].most_common()))


@contextmanager
def libraries(options: argparse.Namespace) -> Iterator[set[int]]:
    """Run a process with very large libraries."""
    command = [options.python, "-c", LARGE, options.modules]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                sys.exit(f"{options.python} cannot import {options.modules}")
            yield {process.pid}
        finally:
            process.kill()


@contextmanager
def busy(interpreters: list[Interpreter], workload: str = "busy") -> Iterator[set[int]]:
    """Run a process in each interpreter."""
    with workloads(interpreters, workload) as started:
        yield {target.pid for target in started}


@contextmanager
def short(options: argparse.Namespace) -> Iterator[set[int]]:
    """Run a script of 50 ms of CPU again and again."""
    over = threading.Event()
    pids: set[int] = set()

    def loop() -> None:
        while not over.is_set():
            with subprocess.Popen([options.python, "-c", SHORT]) as process:
                pids.add(process.pid)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield pids
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Record the chosen parts, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--python", default=sys.executable, help="of the process with large libraries, and of the script"
    )
    parser.add_argument("--modules", default="json,decimal,sqlite3")
    parser.add_argument("--duration", type=float, default=10.0)
    parser.add_argument("--frequency", type=int, default=99)
    parser.add_argument("--repeat", type=int, default=3)
    options = benchmark_options(parser)
    compileall.compile_dir(CHECKOUT / "pyflame_ebpf", quiet=1)  # as in an installed package
    interpreters = chosen_interpreters([])
    targets: dict[str, Callable[[], AbstractContextManager[set[int]]]] = {
        "libraries": lambda: libraries(options),
        "interpreters": lambda: busy(interpreters),
        "many": lambda: busy(repeated(interpreters, 50), "bursty"),
        "steady": lambda: busy(repeated(interpreters, 20)),
        "short": lambda: short(options),
    }
    for part in options.parts or PARTS:
        results = []
        for _ in range(options.repeat):
            with targets[part]() as pids:
                results.append((run_child(options.duration, options.frequency), pids))
        report(part, results)


if __name__ == "__main__":
    main()
