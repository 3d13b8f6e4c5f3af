#!/usr/bin/env python3
"""Print what a recording costs: in the kernel, in this profiler's own process, and in the program that is recorded.

    sudo scripts/bench_cost.py                  everything, some four minutes
    sudo scripts/bench_cost.py --quick          the same with short measurements
    sudo scripts/bench_cost.py --only bpf --interpreter sid-3.14

Parts: "bpf", time of the BPF programs for a sample of 20 and of 200 Python frames, every CPU busy; "own", CPU and
memory of `pyflame-ebpf record --all` at 99 Hz over 20 busy Python processes, and the time from its start to the first
tick; "slowdown", what a program loses at 99 and 999 Hz, beside py-spy where that is installed, with turns without any
profiler in between.  The host must be otherwise idle.
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from _recordings import CHECKOUT, Interpreter, TargetProcess, chosen_interpreters, cpus

from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.recording.recorder import AlreadyRecording, Recorder, RecordOptions, only_one_profiler
from pyflame_ebpf.sampling.sampler import Sampler, SamplerOptions

BPF_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
PERF_EVENT_PROGRAM = "7"  # BPF_PROG_TYPE_PERF_EVENT of linux/bpf.h
OWN_PROCESSES = 20
SETTLED = 5.0  # seconds after which a recording has met what runs all the time
DEFAULT = ("pyenv-3.8", "pyenv-3.11", "system-3.11", "pyenv-3.12", "sid-3.15")


@contextmanager
def workloads(interpreter: Interpreter, number: int, *arguments: str) -> Iterator[list[TargetProcess]]:
    """So many processes of tests/targets/workloads.py."""
    with ExitStack() as running:
        started = []
        for _ in range(number):
            target = TargetProcess(interpreter, "workloads.py", *arguments)
            running.callback(target.close)
            target.wait_until_ready()
            started.append(target)
        yield started


def fields(text: str) -> dict[str, str]:
    """The lines "name: value" of a file of /proc."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


# ---- the BPF programs ----


@contextmanager
def bpf_stats() -> Iterator[None]:
    """The kernel counts the programs' time; as before at the end."""
    before = BPF_STATS.read_text(encoding="ascii")
    BPF_STATS.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        BPF_STATS.write_text(before, encoding="ascii")


def tick_cost(fds: Sequence[int]) -> tuple[int, int]:
    """(ns, ticks) of the sampling program so far; stages that it tail-calls are in its time."""
    time_ns = ticks = 0
    for fd in fds:
        info = fields(Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii"))
        if info.get("prog_type") == PERF_EVENT_PROGRAM:
            time_ns += int(info["run_time_ns"])
            ticks += int(info["run_cnt"])
    return time_ns, ticks


def run_recorder(recorder: Recorder, seconds: float) -> None:
    """Let a recording work for so long."""
    end = recorder.elapsed + seconds
    while recorder.elapsed < end:
        recorder.step()


def nanoseconds_a_sample(interpreter: Interpreter, depth: int, seconds: float, *, native: bool) -> float:
    """Mean BPF time of a sample of so many Python frames, with or without the native frames around them."""
    with (
        workloads(interpreter, cpus(), "deep", str(depth)),
        bpf_stats(),
        only_one_profiler(),
        Sampler(SamplerOptions(499, native=native)) as sampler,
    ):
        recorder = Recorder(RecordOptions(499, native=native), sampler)
        recorder.start()
        run_recorder(recorder, 1.5)
        before = tick_cost(sampler.program_fds())
        run_recorder(recorder, seconds)
        after = tick_cost(sampler.program_fds())
    return (after[0] - before[0]) / (after[1] - before[1])


def bench_bpf(interpreters: Sequence[Interpreter], seconds: float) -> None:
    """Print the kernel's part of the cost."""
    print(f"BPF time a sample, us     {'20 frames':>10} {'200 frames':>10} {'20, native':>10} {'200, native':>10}")
    for interpreter in interpreters:
        cells = [(depth, native) for native in (False, True) for depth in (20, 200)]
        costs = [patiently(interpreter, depth, seconds, native=native) / 1000 for depth, native in cells]
        print(
            f"  {interpreter.name:24}{costs[0]:>10.2f}{costs[1]:>12.2f}{costs[2]:>12.2f}{costs[3]:>13.2f}", flush=True
        )
    print("  aims without native frames: 4 and 20")


def patiently(interpreter: Interpreter, depth: int, seconds: float, *, native: bool) -> float:
    """The same, tried again while another profiler records."""
    while True:
        try:
            return nanoseconds_a_sample(interpreter, depth, seconds, native=native)
        except AlreadyRecording:  # noqa: PERF203 - waiting is what the loop is for
            time.sleep(0.5)


# ---- this profiler's own process ----


def became_sampling(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a process has opened perf events; False when it ended before."""
    while process.poll() is None:
        for fd in Path(f"/proc/{process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if str(fd.readlink()) == "anon_inode:[perf_event]":
                    return True
        time.sleep(0.02)
    return False


@contextmanager
def command(settle: float, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A running `pyflame-ebpf`, and when it was started (since the epoch); interrupted at the end."""
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


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process's living threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def map_bytes(pid: int) -> int:
    """What the kernel charges for the BPF maps that a process holds, each counted once."""
    maps = {}
    for fdinfo in Path(f"/proc/{pid}/fdinfo").iterdir():
        info = fields(fdinfo.read_text(encoding="ascii"))
        if "map_id" in info:
            maps[info["map_id"]] = int(info["memlock"])
    return sum(maps.values())


def bench_own(interpreter: Interpreter, seconds: float) -> None:
    """Print what the profiler itself uses."""
    with workloads(interpreter, OWN_PROCESSES, "busy"), tempfile.TemporaryDirectory() as directory:
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
    """When a recording's first tick came at the latest, since the epoch."""
    with (Path(directory) / "profile.json.gz").open("rb") as stream:
        recording = load_profile(stream).recording
    return recording.started + 1 / recording.frequency


def start_on_idle_host() -> float:
    """Seconds from starting the command to its first tick with nothing else running."""
    with tempfile.TemporaryDirectory() as directory:
        output = str(Path(directory) / "recording")
        with command(1.0, "record", "--all", "--output", output) as (_, started):
            pass
        return first_tick(output) - started


# ---- the program that is recorded ----


def rate(target: TargetProcess, seconds: float) -> float:
    """Rounds a second that the target does for so long."""
    progress = []
    for wait in (seconds, 0):
        os.kill(target.pid, signal.SIGUSR1)
        rounds, moment = target.read_line().split()
        progress.append((int(rounds), float(moment)))
        time.sleep(wait)
    return (progress[1][0] - progress[0][0]) / (progress[1][1] - progress[0][1])


@contextmanager
def ours(frequency: int, _target: TargetProcess, _seconds: float) -> Iterator[None]:
    """pyflame-ebpf over the whole host."""
    with command(1.0, "record", "--all", "--frequency", str(frequency), "--output", "-"):
        yield


@contextmanager
def py_spy(frequency: int, target: TargetProcess, seconds: float) -> Iterator[None]:
    """py-spy on the target."""
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
    """Where py-spy is: beside this Python, or on the path; "" for nowhere."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy") or ""


def bench_slowdown(interpreter: Interpreter, seconds: float, turns: int) -> None:
    """Print the throughput with each profiler as a part of that without, measured in turns."""
    profilers = {"pyflame-ebpf": ours} | ({"py-spy": py_spy} if py_spy_path() else {})
    print(f"throughput of a {interpreter.name} process while it is recorded, median of {turns} turns (least to most)")
    for depth in (20, 200):
        with workloads(interpreter, 1, "deep", str(depth)) as (target,):
            for frequency in (99, 999):
                for name, profiler in profilers.items():
                    ratios = []
                    before = rate(target, seconds)
                    for _ in range(turns):
                        with profiler(frequency, target, seconds):
                            during = rate(target, seconds)
                        after = rate(target, seconds)
                        ratios.append(2 * during / (before + after))
                        before = after
                    spread = f"({min(ratios):.4f} to {max(ratios):.4f})"
                    line = (
                        f"  {depth:>4} frames {frequency:>5} Hz  {name:14}{statistics.median(ratios):>8.4f}  {spread}"
                    )
                    print(line, flush=True)


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("bpf", "own", "slowdown"), action="append")
    parser.add_argument("--interpreter", action="append", default=[], help=f"part of a name; default {DEFAULT}")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    parts = options.only or ["bpf", "own", "slowdown"]
    interpreters = chosen_interpreters(options.interpreter or DEFAULT)
    middle = interpreters[len(interpreters) // 2]
    if "bpf" in parts:
        bench_bpf(interpreters, 2 if options.quick else 6)
    if "own" in parts:
        bench_own(middle, 5 if options.quick else 20)
        print(f"  ... on an idle host, s    {start_on_idle_host():>10.2f}")
    if "slowdown" in parts:
        bench_slowdown(middle, 1.5 if options.quick else 4, 2 if options.quick else 5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
