#!/usr/bin/env python3
"""Compare samples with the CPU time that the kernel charged, for every process and in total.

    sudo scripts/check_cpu_time.py                    30 s at 99 Hz of busy, bursty, kernel-bound and other processes
    sudo scripts/check_cpu_time.py --duration 10 --frequency 199

This script reads the CPU time itself, from /proc/PID/task/*/schedstat, as sampling begins and as it ends.  Status 1
unless samples/frequency agree with it within 2 % or three standard errors of sampling, whichever is more, for every
process that used more than 2 s, and within 1 % in total.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from _recordings import TargetProcess, chosen_interpreters, record_for

from pyflame_ebpf.profile.model import Profile

WORKLOADS = ("busy", "bursty", "system_calls", "threads", "gil_free")
NOT_PYTHON = (["sh", "-c", "while :; do :; done"], ["dd", "if=/dev/zero", "of=/dev/null", "bs=64k"])
LEAST = 2.0  # seconds of CPU from which a process is judged on its own

Charged = dict[int, float]  # CPU seconds by PID


def charged() -> Charged:
    """Return the CPU seconds of every process's living threads."""
    totals: Charged = {}
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*/schedstat"):
        try:
            nanoseconds = int(task.read_text(encoding="ascii").split()[0])
        except OSError:  # it has ended meanwhile
            continue
        pid = int(task.parts[2])
        totals[pid] = totals.get(pid, 0.0) + nanoseconds / 1e9
    return totals


def measure(duration: float, frequency: int) -> tuple[Profile, Charged]:
    """Record the host.  Returns the profile, and the CPU seconds that each process was charged meanwhile."""
    readings: list[Charged] = []

    def read() -> None:
        readings.append(charged())

    profile = record_for(duration, frequency, read, read)
    before, after = readings
    return profile, {
        pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items() if seconds > before.get(pid, 0.0)
    }


def samples_by_pid(profile: Profile) -> Counter[int]:
    """Count the samples of each PID."""
    found: Counter[int] = Counter()
    for key, count in profile.samples.items():
        found[profile.processes[key.process].pid] += count
    return found


def bound(seconds: float, frequency: int) -> float:
    """Return the relative difference that is allowed: 2 %, or three standard errors of counting."""
    return max(0.02, 3 / math.sqrt(seconds * frequency))


def show(name: str, sampled: float, seconds: float, allowed: float) -> bool:
    """Print one comparison of seconds; ``allowed`` is relative.  Returns whether it holds."""
    difference = (sampled - seconds) / seconds
    passed = abs(difference) <= allowed
    verdict = "ok" if passed else "FAILED"
    print(f"{name:28}{sampled:>10.3f}{seconds:>10.3f}{difference:>+9.2%}{allowed:>9.2%}  {verdict}")
    return passed


def start_all(running: ExitStack, interpreters: list[str]) -> dict[int, str]:
    """Start every workload, each in another interpreter, and other programs.  Returns their names by PID."""
    names = {}
    found = chosen_interpreters(interpreters)
    for number, workload in enumerate(WORKLOADS):
        interpreter = found[number * max(1, len(found) // len(WORKLOADS)) % len(found)]
        target = TargetProcess(interpreter, "workloads.py", workload)
        running.callback(target.close)
        target.wait_until_ready()
        names[target.pid] = f"{workload} {interpreter.name}"
    for command in NOT_PYTHON:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        running.callback(process.wait)
        running.callback(process.kill)
        names[process.pid] = command[0]
    return names


def main() -> int:
    """Record them all at once and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=30)
    parser.add_argument("--frequency", type=int, default=99)
    parser.add_argument("--interpreter", action="append", default=[], help="part of a name; default all")
    options = parser.parse_args()
    with ExitStack() as running:
        names = start_all(running, options.interpreter)
        profile, cpu = measure(options.duration, options.frequency)
    samples = samples_by_pid(profile)
    process_names = {process.pid: process.name for process in profile.processes}
    print(f"{'process':28}{'sampled s':>10}{'charged s':>10}{'differ':>9}{'allowed':>9}")
    passed = [
        show(
            names.get(pid, process_names.get(pid, "?")),
            samples[pid] / options.frequency,
            seconds,
            bound(seconds, options.frequency),
        )
        for pid, seconds in sorted(cpu.items(), key=lambda item: -item[1])
        if seconds > LEAST
    ]
    passed.append(
        show(
            "all that live at both ends", sum(samples[pid] for pid in cpu) / options.frequency, sum(cpu.values()), 0.01
        )
    )
    counters = {name: profile.recording.counters[name] for name in ("ticks", "ticks_idle", "ticks_missed", "samples")}
    ended = samples.total() - sum(samples[pid] for pid in cpu)
    print(f"processes that ended meanwhile: {ended} samples; lost {profile.recording.lost}, {counters}")
    missing = set(names) - set(cpu)
    return 0 if all(passed) and len(passed) > 1 and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
