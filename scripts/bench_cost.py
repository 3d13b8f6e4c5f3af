#!/usr/bin/env python3
"""Print what a recording costs: in the kernel, in this profiler's own process, and in the program that is recorded.

    sudo scripts/bench_cost.py                  everything, some four minutes
    sudo scripts/bench_cost.py --quick          the same with short measurements
    sudo scripts/bench_cost.py --only bpf --interpreter sid-3.14
    sudo scripts/bench_cost.py --against CHECKOUT       beside another checkout, in turns

Parts:
    bpf         time of the BPF programs for a sample of 20 and of 200 Python frames, while every CPU is busy
    own         CPU and memory of `pyflame-ebpf record --all` at 99 Hz over 20 busy Python processes, and the time from
                its start to the first tick
    slowdown    throughput of a program at 99 and 999 Hz, as a part of that without any before and after; beside
                py-spy where that is installed

The host must be otherwise idle.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from _benchmark import benchmark_options
from _bpf_cost import bpf_cost, fields, map_bytes
from _recordings import (
    CHECKOUT,
    Interpreter,
    TargetProcess,
    chosen_interpreters,
    cpu_seconds,
    cpus,
    once_alone,
    workloads,
)

from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.recording.host_lock import AlreadyRecording

OWN_PROCESSES = 20
SETTLED = 5.0  # seconds after which a recording has met what runs all the time
WARM_UP = 1.5  # seconds before the programs' time is read
DEFAULT = ("pyenv-3.8", "pyenv-3.11", "system-3.11", "pyenv-3.12", "sid-3.15")
DEPTHS = (20, 200)
FREQUENCIES = (99, 999)

Profiler = Callable[[int, TargetProcess, float], AbstractContextManager[None]]


# ---- the BPF programs ----


def nanoseconds_a_sample(interpreter: Interpreter, depth: int, seconds: float, *, native: bool) -> float:
    """Return the mean BPF time of a sample of ``depth`` Python frames while every CPU is busy."""

    def measure() -> float:
        with workloads([interpreter] * cpus(), "deep", str(depth)):
            cost = bpf_cost(WARM_UP, seconds, native=native)
        return cost.time_ns / cost.ticks

    return once_alone(measure)


def bench_bpf(interpreters: Sequence[Interpreter], seconds: float) -> None:
    """Print the kernel's part of the cost."""
    print(f"BPF time a sample, us     {'20 frames':>10} {'200 frames':>10} {'20, native':>10} {'200, native':>10}")
    for interpreter in interpreters:
        cells = [(depth, native) for native in (False, True) for depth in DEPTHS]
        costs = [nanoseconds_a_sample(interpreter, depth, seconds, native=native) / 1000 for depth, native in cells]
        print(
            f"  {interpreter.name:24}{costs[0]:>10.2f}{costs[1]:>12.2f}{costs[2]:>12.2f}{costs[3]:>13.2f}", flush=True
        )
    print("  aims without native frames: 4 and 20")


# ---- this profiler's own process ----


def became_sampling(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a process has opened perf events; False if it ended before."""
    while process.poll() is None:
        for fd in Path(f"/proc/{process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if str(fd.readlink()) == "anon_inode:[perf_event]":
                    return True
        time.sleep(0.02)
    return False


@contextmanager
def command(settle: float, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Yield a sampling `pyflame-ebpf` and the time of its start in seconds since the epoch; interrupt it at the end."""
    while True:
        started = time.time()
        words = [sys.executable, "-m", "pyflame_ebpf", *arguments]
        process = subprocess.Popen(words, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if became_sampling(process):
            time.sleep(settle)
            break
        message = process.communicate()[1].decode()
        if process.returncode != AlreadyRecording.exit_code:
            sys.exit(f"pyflame-ebpf {' '.join(arguments)} ended with status {process.returncode}: {message}")
    try:
        yield process, started
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def bench_own(interpreter: Interpreter, seconds: float) -> None:
    """Print the CPU and memory of the profiler's own process, and its time to the first tick."""
    with workloads([interpreter] * OWN_PROCESSES, "busy"), tempfile.TemporaryDirectory() as directory:
        output = str(Path(directory) / "recording")
        with command(SETTLED, "record", "--all", "--frequency", "99", "--output", output) as (process, started):
            began, before = time.monotonic(), cpu_seconds(process.pid)
            time.sleep(seconds)
            part = (cpu_seconds(process.pid) - before) / (time.monotonic() - began)
            memory = fields(Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii"))
            in_kernel = map_bytes(process.pid)
        first = first_tick(output) - started
    megabytes = {name: int(memory[name].split()[0]) / 1024 for name in ("Rss", "Pss")}
    print(f"at 99 Hz over {OWN_PROCESSES} busy processes of {interpreter.name} on {cpus()} CPUs")
    print(f"  own CPU, % of one core  {part:>10.2%}    aim: 1 %")
    print(f"  memory, MiB             {megabytes['Rss']:>10.1f} RSS, {megabytes['Pss']:.1f} PSS")
    print(f"  BPF maps, MiB           {in_kernel / 2**20:>10.1f}")
    print(f"  start to first tick, s  {first:>10.2f}    aim: 1.5; every CPU was busy")


def first_tick(directory: str) -> float:
    """Return the latest time of a recording's first tick, in seconds since the epoch."""
    with (Path(directory) / "profile.json.gz").open("rb") as stream:
        recording = load_profile(stream).recording
    return recording.started + 1 / recording.frequency


def start_on_idle_host() -> float:
    """Return the seconds from the command's start to its first tick with nothing else running."""
    with tempfile.TemporaryDirectory() as directory:
        output = str(Path(directory) / "recording")
        with command(1.0, "record", "--all", "--output", output) as (_, started):
            pass
        return first_tick(output) - started


# ---- the program that is recorded ----


def rate(target: TargetProcess, seconds: float) -> float:
    """Return the rounds a second that the target does in the next ``seconds``."""
    progress = []
    for wait in (seconds, 0):
        os.kill(target.pid, signal.SIGUSR1)
        rounds, moment = target.read_line().split()
        progress.append((int(rounds), float(moment)))
        time.sleep(wait)
    return (progress[1][0] - progress[0][0]) / (progress[1][1] - progress[0][1])


@contextmanager
def ours(frequency: int, _target: TargetProcess, _seconds: float) -> Iterator[None]:
    """Run pyflame-ebpf over the whole host."""
    with command(1.0, "record", "--all", "--frequency", str(frequency), "--output", "-"):
        yield


@contextmanager
def py_spy(frequency: int, target: TargetProcess, seconds: float) -> Iterator[None]:
    """Run py-spy on the target."""
    words = [py_spy_path(), "record", "-r", str(frequency), "-d", str(int(seconds + 6)), "-o", os.devnull]
    words += ["--format", "raw", "--pid", str(target.pid)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.5)
        yield
        if process.poll() is not None:
            sys.exit("py-spy ended while it was measured")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def py_spy_path() -> str:
    """Return where py-spy is: beside this Python, or on the path; "" for nowhere."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy") or ""


def kept_throughput(
    profiler: Profiler, frequency: int, target: TargetProcess, seconds: float, turns: int
) -> list[float]:
    """Return the throughput with the profiler as a part of that before and after it, for each turn."""
    ratios = []
    before = rate(target, seconds)
    for _ in range(turns):
        with profiler(frequency, target, seconds):
            during = rate(target, seconds)
        after = rate(target, seconds)
        ratios.append(2 * during / (before + after))
        before = after
    return ratios


def bench_slowdown(interpreter: Interpreter, seconds: float, turns: int) -> None:
    """Print the throughput of a program while each profiler records it."""
    profilers: dict[str, Profiler] = {"pyflame-ebpf": ours}
    if py_spy_path():
        profilers["py-spy"] = py_spy
    print(f"throughput of a {interpreter.name} process while it is recorded, median of {turns} turns (least to most)")
    for depth in DEPTHS:
        with workloads([interpreter], "deep", str(depth)) as (target,):
            for frequency in FREQUENCIES:
                for name, profiler in profilers.items():
                    kept = kept_throughput(profiler, frequency, target, seconds, turns)
                    spread = f"({min(kept):.4f} to {max(kept):.4f})"
                    line = f"  {depth:>4} frames {frequency:>5} Hz  {name:14}{statistics.median(kept):>8.4f}  {spread}"
                    print(line, flush=True)


def main() -> int:
    """Run the chosen parts, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("bpf", "own", "slowdown"), action="append")
    parser.add_argument("--interpreter", action="append", default=[], help=f"part of a name; default {DEFAULT}")
    parser.add_argument("--quick", action="store_true", help="short measurements")
    options = benchmark_options(parser)
    parts = options.only or ["bpf", "own", "slowdown"]
    interpreters = chosen_interpreters(options.interpreter or DEFAULT)
    middle = interpreters[len(interpreters) // 2]
    if "bpf" in parts:
        bench_bpf(interpreters, 1 if options.quick else 6)
    if "own" in parts:
        bench_own(middle, 3 if options.quick else 20)
        print(f"  ... on an idle host, s    {start_on_idle_host():>10.2f}")
    if "slowdown" in parts:
        bench_slowdown(middle, 1 if options.quick else 4, 1 if options.quick else 5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
