"""What the kernel says of this profiler's BPF programs and maps: their time, and their memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import _recordings  # noqa: F401 - finds the package

from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.recording.host_lock import only_one_profiler
from pyflame_ebpf.recording.recorder import Recorder, RecordOptions
from pyflame_ebpf.sampling.sampler import Sampler, SamplerOptions

BPF_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
PERF_EVENT_PROGRAM = "7"  # BPF_PROG_TYPE_PERF_EVENT of linux/bpf.h
FREQUENCY = 499


def fields(text: str) -> dict[str, str]:
    """Return the lines "name: value" of a file of /proc."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


@contextmanager
def bpf_stats() -> Iterator[None]:
    """Let the kernel count the programs' time; the setting is as before at the end."""
    before = BPF_STATS.read_text(encoding="ascii")
    BPF_STATS.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        BPF_STATS.write_text(before, encoding="ascii")


def tick_cost(fds: Sequence[int]) -> tuple[int, int]:
    """Return (ns, ticks) of the sampling program so far; its time includes the stages that it tail-calls."""
    time_ns = ticks = 0
    for fd in fds:
        info = fields(Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii"))
        if info.get("prog_type") == PERF_EVENT_PROGRAM:
            time_ns += int(info["run_time_ns"])
            ticks += int(info["run_cnt"])
    return time_ns, ticks


@dataclass(frozen=True, slots=True)
class BpfCost:
    """The programs' time in one measurement, in ns; idle ticks are no samples."""

    time_ns: int
    ticks: int
    samples: int
    profile: Profile


def bpf_cost(warm_up: float, seconds: float, *, native: bool, pids: Sequence[int] = ()) -> BpfCost:
    """Sample the ``pids``, or the whole host, and read what the programs cost after ``warm_up`` seconds.

    Raises AlreadyRecording.
    """
    with (
        bpf_stats(),
        only_one_profiler(),
        Sampler(SamplerOptions(FREQUENCY, native=native, targets_only=bool(pids))) as sampler,
    ):
        recorder = Recorder(RecordOptions(FREQUENCY, pids=tuple(pids), native=native), sampler)
        recorder.start()
        _run(recorder, warm_up)
        before, samples_before = tick_cost(sampler.program_fds()), sampler.counters()["samples"]
        _run(recorder, seconds)
        after, samples_after = tick_cost(sampler.program_fds()), sampler.counters()["samples"]
        profile = recorder.finish()
    return BpfCost(after[0] - before[0], after[1] - before[1], samples_after - samples_before, profile)


def _run(recorder: Recorder, seconds: float) -> None:
    end = recorder.elapsed + seconds
    while recorder.elapsed < end:
        recorder.step()


def map_bytes(pid: int | str) -> int:
    """Return the bytes that the kernel charges for all BPF maps of a process, each map counted once."""
    maps = {}
    for fdinfo in Path(f"/proc/{pid}/fdinfo").iterdir():
        info = {}
        with contextlib.suppress(FileNotFoundError):  # the directory's own descriptor
            info = fields(fdinfo.read_text(encoding="ascii"))
        if "map_id" in info:
            maps[info["map_id"]] = int(info["memlock"])
    return sum(maps.values())
