"""The CPUs of this host: their numbers, the sampling rate that is allowed, and the CPU time spent."""

from __future__ import annotations

import os
from pathlib import Path


def parse_cpu_list(text: str) -> list[int]:
    """The numbers in a kernel's list such as ``0-3,5``."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def online_cpus() -> list[int]:
    """Numbers of the CPUs that run now."""
    return parse_cpu_list(Path("/sys/devices/system/cpu/online").read_text(encoding="ascii"))


def possible_cpus() -> int:
    """The highest number that a CPU of this host can have, plus one."""
    return max(parse_cpu_list(Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii"))) + 1


def max_sample_rate() -> int:
    """The highest sampling frequency in Hz that the kernel accepts; it lowers this by itself under load."""
    return int(Path("/proc/sys/kernel/perf_event_max_sample_rate").read_text(encoding="ascii"))


def parse_host_cpu_seconds(stat: str, ticks_per_second: int) -> float:
    """Busy CPU seconds of the whole host, from the text of /proc/stat: user, nice, system, irq and softirq.

    Guest time is part of user and nice time (proc(5)), so it is not added.
    """
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in stat.split()[1:8])
    return (user + nice + system + irq + softirq) / ticks_per_second


def host_cpu_seconds() -> float:
    """Busy CPU seconds of the whole host since it started."""
    return parse_host_cpu_seconds(Path("/proc/stat").read_text(encoding="ascii"), os.sysconf("SC_CLK_TCK"))
