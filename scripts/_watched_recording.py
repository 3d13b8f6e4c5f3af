"""One recording of the host as a program of its own, so that its CPU time and memory are the profiler's alone.

scripts/bench_native_load.py starts it: _watched_recording.py SECONDS FREQUENCY COMMAND-AT
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from _bpf_cost import map_bytes
from _recordings import record_for

from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.recording import segment_cutter as segments
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.sampling.sampler import Sampler, SamplerOptions
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.unwind.walk import NativeFrame

STEADY_FROM = 5.0  # seconds after which a recording counts as warm
RESOLUTION = 0.1  # seconds between two looks at the counts, until this is well over:
SETTLED = 3.0  # seconds after the first tick


class Sampled(NamedTuple):
    """Samples of one process and stack that were counted together; ``look`` is when, in monotonic seconds."""

    look: float
    second: int
    tgid: int
    stack_id: int
    outcome: NativeOutcome
    samples: int


class Watch:
    """Notes the native outcomes of all samples with their times, and the CPU that the recording has used by then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ready = 0.0
        self.cpu_ready = 0.0
        self.cpu: list[tuple[float, float]] = []
        self.attempt = 0.0
        self.sampled: list[Sampled] = []
        self.finished: dict[int, NativeOutcome] = {}  # by stack

    def start(self) -> None:
        """Note that the first tick may have come."""
        self.ready, self.cpu_ready = time.monotonic(), _cpu_seconds()

    def counted(self, counts: list[Count]) -> None:
        """Take the samples that were counted since the last look."""
        look = time.monotonic()
        elapsed = look - self.ready
        second = int(self.cpu[-1][0]) if self.cpu else 0
        self.cpu.append((elapsed, _cpu_seconds()))
        for count in counts:
            outcome = abi.NATIVE_OUTCOMES[count.native]
            self.sampled.append(Sampled(look, second, count.identity.tgid, count.stack_id, outcome, count.samples))
        if elapsed > SETTLED:
            segments.DRAIN = 1.0  # as usual, for what it costs

    def outcome(self, sampled: Sampled) -> NativeOutcome:
        """Return how the walk ended at last, in the BPF programs or in user space."""
        return self.finished.get(sampled.stack_id, sampled.outcome)

    def first_whole(self, *, in_programs: bool) -> dict[int, float]:
        """Return when each process's first whole sample was counted, or the first whose walk the programs finished."""
        first: dict[int, float] = {}
        for sampled in self.sampled:
            if (sampled.outcome if in_programs else self.outcome(sampled)) is NativeOutcome.COMPLETE:
                first.setdefault(sampled.tgid, sampled.look)
        return first

    def outcomes(self) -> dict[int, dict[int, Counter[str]]]:
        """Return the samples by process, by second, and by how the walk ended at last."""
        found: dict[int, dict[int, Counter[str]]] = {}
        for sampled in self.sampled:
            seconds = found.setdefault(sampled.tgid, {})
            seconds.setdefault(sampled.second, Counter())[self.outcome(sampled).value] += sampled.samples
        return found

    def whole_in_programs(self) -> dict[int, int]:
        """Return the samples whose walk the BPF programs finished, by process."""
        found: Counter[int] = Counter()
        for sampled in self.sampled:
            found[sampled.tgid] += sampled.samples * (sampled.outcome is NativeOutcome.COMPLETE)
        return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _private_memory() -> int:
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return 1024 * sum(int(number) for number in re.findall(r"^Private_\w+: *(\d+) kB$", text, re.MULTILINE))


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Let the recorder tell ``watch`` of each attempt to begin, of each look at the counts, and of finished stacks."""
    load, take, finish = Sampler.__init__, Sampler.take_counts, Collected.finish_stack

    def loading(sampler: Sampler, options: SamplerOptions) -> None:
        watch.attempt = time.monotonic()
        load(sampler, options)

    def taken(sampler: Sampler) -> list[Count]:
        counts = take(sampler)
        watch.counted(counts)
        return counts

    def finished(collected: Collected, stack_id: int, native: list[NativeFrame], outcome: NativeOutcome) -> None:
        watch.finished[stack_id] = outcome
        finish(collected, stack_id, native, outcome)

    with (
        patch.object(Sampler, "__init__", loading),
        patch.object(Sampler, "take_counts", taken),
        patch.object(Collected, "finish_stack", finished),
        patch.object(segments, "DRAIN", RESOLUTION),
    ):
        yield


def record_and_print(seconds: float, frequency: int, command_at: float) -> None:
    """Record the host, and print what it cost as JSON.

    ``command_at`` is when the command was started, in monotonic seconds.  The time of waiting for another profiler on
    this host does not count.
    """
    watch = Watch()
    imports = watch.began - command_at
    memory = [0, 0]
    at_end = [0.0]

    def stopping() -> None:
        memory[:] = _private_memory(), map_bytes("self")
        at_end[0] = _cpu_seconds()

    with watched(watch):
        profile = record_for(seconds, frequency, watch.start, stopping)
    end = _cpu_seconds()
    warm = [(elapsed, cpu) for elapsed, cpu in watch.cpu if STEADY_FROM <= elapsed <= seconds]
    zero = watch.attempt - imports
    firsts = [watch.first_whole(in_programs=in_programs) for in_programs in (False, True)]
    print(
        json.dumps(
            {
                "first_whole": {pid: look - zero for pid, look in firsts[0].items()},
                "first_whole_in_programs": {pid: look - zero for pid, look in firsts[1].items()},
                "ready": watch.ready - zero,
                "cpu": end,
                "cpu_start": watch.cpu_ready,
                "cpu_sampling": at_end[0] - watch.cpu_ready,
                "cpu_profile": end - at_end[0],
                "steady": (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0]) if len(warm) > 1 else 0.0,
                "private": memory[0],
                "private_end": _private_memory(),
                "maps": memory[1],
                "outcomes": watch.outcomes(),
                "whole_in_programs": watch.whole_in_programs(),
                "stacks": len(profile.stacks),
            }
        )
    )


if __name__ == "__main__":
    record_and_print(float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
