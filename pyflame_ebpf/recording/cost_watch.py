"""Watches what the recording itself costs, and says when the clock is to tick more slowly.

The programs bound their own time, by walking fewer stacks (``bpf/sample.h``).  Here the clock follows, since an
interrupt has a cost of its own; and the recorder's CPU and memory are bounded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHARE = 0.05  # of each CPU that samples may take, and of the host's CPU that the recorder may
MEMORY = 1 << 30  # bytes of the recorder's resident memory
WINDOW = 2.0  # seconds over which the recorder's CPU is measured
AT_ONCE = 4  # times SHARE in one window; less must last for two, since the start of a recording has work of its own
LEAST_FREQUENCY = 20  # Hz; a slower clock saves next to nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What the recording has used up to ``elapsed`` seconds: ``cpu`` in seconds, resident ``memory`` in bytes."""

    elapsed: float
    cpu: float
    memory: int


def resident_memory() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class CostWatch:
    """How slowly the clock must tick; ``ticks`` of the frequency stand for each tick of it, a power of two."""

    def __init__(self, frequency: int, cpus: int) -> None:
        self.ticks = 1
        self.lowered = {"lowered_for_samples": 0, "lowered_for_cpu": 0, "lowered_for_memory": 0}
        self._frequency = frequency
        self._cpus = cpus
        self._memory = MEMORY
        self._begin = Costs(elapsed=0.0, cpu=0.0, memory=0)
        self._was_over = False
        self._samples = self._walked = 0
        self._ticks_a_stack = 1.0  # that a stack stood for since the look before

    def look(self, costs: Costs, counters: Mapping[str, int]) -> bool:
        """Compare what was used since the last look with what may be.  Returns whether the clock is to be slowed."""
        before = self.ticks
        self._look_at_samples(counters)
        self._look_at_cpu(costs)
        if costs.memory > self._memory:
            self._memory = costs.memory * 9 // 8
            self._lower("lowered_for_memory")
        return self.ticks != before

    def _look_at_samples(self, counters: Mapping[str, int]) -> None:
        """Where the programs pass over more than half of the clock's ticks on all CPUs, those ticks are not needed."""
        samples, walked = counters["samples"], counters["stacks_walked"]
        gained, stacks = samples - self._samples, walked - self._walked
        self._samples, self._walked = samples, walked
        if stacks > 0:
            self._ticks_a_stack = gained / stacks
        while stacks > 0 and gained >= 4 * self.ticks * stacks and self._lower("lowered_for_samples"):
            pass

    def _look_at_cpu(self, costs: Costs) -> None:
        elapsed = costs.elapsed - self._begin.elapsed
        if elapsed < WINDOW:
            return
        allowed = SHARE * elapsed * self._cpus
        used = costs.cpu - self._begin.cpu
        self._begin = costs
        is_over = used > allowed
        if is_over and (self._was_over or used > AT_ONCE * allowed):
            # Ticks that the programs pass over anyway save nothing: the clock must be slower than those walked.
            excess = used / allowed * max(1.0, self._ticks_a_stack / self.ticks)
            while excess > 1 and self._lower("lowered_for_cpu"):
                excess /= 2
        self._was_over = is_over

    def _lower(self, reason: str) -> bool:
        if self._frequency / (2 * self.ticks) < LEAST_FREQUENCY:
            return False
        self.ticks *= 2
        self.lowered[reason] += 1
        return True
