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
import contextlib
import json
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from _recordings import CHECKOUT, Interpreter, TargetProcess, chosen_interpreters, record_for

from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.recording import recorder
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.sampling.sampler import Sampler
from pyflame_ebpf.stacks.symbolize import Symbolizer
from pyflame_ebpf.unwind.walk import NativeFrame

STEADY_FROM = 5.0  # seconds after which a recording counts as warm
RESOLUTION = 0.1  # seconds between two looks at the counts, until this is well over:
SETTLED = 3.0  # seconds after the first tick

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


# ---- the child: one recording, described ----


class Sampled(NamedTuple):
    """Samples of one process and stack that were counted together; ``look`` in monotonic seconds."""

    look: float
    second: int
    tgid: int
    stack_id: int
    outcome: NativeOutcome
    samples: int


class Watch:
    """Notes when which native outcomes were counted, and what the recording has cost until then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ready = 0.0
        self.cpu_ready = 0.0
        self.cpu: list[tuple[float, float]] = []
        self.attempt = 0.0
        self.sampled: list[Sampled] = []
        self.finished: dict[int, NativeOutcome] = {}  # by stack

    def start(self) -> None:
        """The first tick may have come."""
        self.ready, self.cpu_ready = time.monotonic(), _cpu_seconds()

    def counted(self, counts: list[Count]) -> None:
        """Takes what was counted since the last look."""
        look = time.monotonic()
        elapsed = look - self.ready
        second = int(self.cpu[-1][0]) if self.cpu else 0
        self.cpu.append((elapsed, _cpu_seconds()))
        for count in counts:
            outcome = abi.NATIVE_OUTCOMES[count.native]
            self.sampled.append(Sampled(look, second, count.identity.tgid, count.stack_id, outcome, count.samples))
        if elapsed > SETTLED:
            recorder.DRAIN = 1.0  # as usual, for what it costs

    def outcome(self, sampled: Sampled) -> NativeOutcome:
        """How the walk ended at last, in the programs or in user space."""
        return self.finished.get(sampled.stack_id, sampled.outcome)

    def first_whole(self, *, in_programs: bool) -> dict[int, float]:
        """When each process's first sample was counted that is whole, or whose walk the programs finished."""
        first: dict[int, float] = {}
        for sampled in self.sampled:
            if (sampled.outcome if in_programs else self.outcome(sampled)) is NativeOutcome.COMPLETE:
                first.setdefault(sampled.tgid, sampled.look)
        return first

    def outcomes(self) -> dict[int, dict[int, Counter[str]]]:
        """Samples by process, second and how the walk ended at last."""
        found: dict[int, dict[int, Counter[str]]] = {}
        for sampled in self.sampled:
            seconds = found.setdefault(sampled.tgid, {})
            seconds.setdefault(sampled.second, Counter())[self.outcome(sampled).value] += sampled.samples
        return found

    def whole_in_programs(self) -> dict[int, int]:
        """Samples by process whose walk the programs finished."""
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


def _map_memory() -> int:
    """Bytes of all BPF maps that this process holds, each once."""
    sizes: dict[str, int] = {}
    for info in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the directory's own descriptor
            text = info.read_text(encoding="ascii")
        if (found := re.search(r"^map_id:\s*(\d+)", text, re.MULTILINE)) and (
            size := re.search(r"^memlock:\s*(\d+)", text, re.MULTILINE)
        ):
            sizes[found[1]] = int(size[1])
    return sum(sizes.values())


def child(seconds: float, frequency: int, command_at: float) -> None:
    """Records and prints what it cost as JSON; ``command_at`` in monotonic seconds.

    Waiting until another profiler on this host has ended counts as no time.
    """
    watch = Watch()
    imports = watch.began - command_at
    load = Sampler._load  # noqa: SLF001

    def loading(sampler: Sampler) -> Any:
        watch.attempt = time.monotonic()
        return load(sampler)

    Sampler._load = loading  # type: ignore[method-assign]  # noqa: SLF001
    memory = [0, 0]
    at_end = [0.0]
    drain, finish = Sampler.drain_counts, Symbolizer.finish_stack

    def noted(sampler: Sampler) -> list[Count]:
        counts = drain(sampler)
        watch.counted(counts)
        return counts

    def finished(symbolizer: Symbolizer, stack_id: int, native: list[NativeFrame], outcome: NativeOutcome) -> None:
        watch.finished[stack_id] = outcome
        finish(symbolizer, stack_id, native, outcome)

    def stopping() -> None:
        memory[:] = _private_memory(), _map_memory()
        at_end[0] = _cpu_seconds()

    Sampler.drain_counts = noted  # type: ignore[method-assign]
    Symbolizer.finish_stack = finished  # type: ignore[method-assign]
    recorder.DRAIN = RESOLUTION
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


# ---- the parent ----


def run_child(seconds: float, frequency: int) -> dict[str, Any]:
    """One recording in a process of its own."""
    command = [sys.executable, __file__, "--child", str(seconds), str(frequency), str(time.monotonic())]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def whole_share(result: dict[str, Any], pids: set[int]) -> tuple[float, Counter[str], list[float]]:
    """Share of the processes' samples with a user stack that are whole; all reasons; the share of each second."""
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
    """Seconds from the command to the first such sample of the processes; infinity when there was none."""
    return min((seconds for pid, seconds in result[name].items() if int(pid) in pids), default=float("inf"))


def report(part: str, results: list[tuple[dict[str, Any], set[int]]]) -> None:
    """Prints the medians, and the reasons for what is not whole."""

    def median(name: str) -> float:
        return statistics.median(result[name] for result, _ in results)

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
    """A process with very large libraries."""
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
    """A process in each interpreter."""
    with ExitStack() as running:
        started = [TargetProcess(interpreter, "workloads.py", workload) for interpreter in interpreters]
        for target in started:
            running.callback(target.close)
        for target in started:
            target.wait_until_ready()
        yield {target.pid for target in started}


@contextmanager
def short(options: argparse.Namespace) -> Iterator[set[int]]:
    """A script that lives 50 ms, again and again."""
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


def repeated(interpreters: list[Interpreter], number: int) -> list[Interpreter]:
    """So many interpreters, each as often as another."""
    return (interpreters * (number // len(interpreters) + 1))[:number]


def main() -> None:
    """Runs the parts that were asked for."""
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("libraries", "interpreters", "many", "steady", "short")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument(
        "--python", default=sys.executable, help="of the process with large libraries, and of the script"
    )
    parser.add_argument("--modules", default="json,decimal,sqlite3")
    parser.add_argument("--duration", type=float, default=10.0)
    parser.add_argument("--frequency", type=int, default=99)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    compileall.compile_dir(CHECKOUT / "pyflame_ebpf", quiet=1)  # as in an installed package
    interpreters = chosen_interpreters([])
    targets: dict[str, Callable[[], Any]] = {
        "libraries": lambda: libraries(options),
        "interpreters": lambda: busy(interpreters),
        "many": lambda: busy(repeated(interpreters, 50), "bursty"),
        "steady": lambda: busy(repeated(interpreters, 20)),
        "short": lambda: short(options),
    }
    for part in options.parts or parts:
        results = []
        for _ in range(options.repeat):
            with targets[part]() as pids:
                results.append((run_child(options.duration, options.frequency), pids))
        report(part, results)


if __name__ == "__main__":
    main()
