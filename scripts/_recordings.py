"""Target programs in many interpreters, and recordings of them, for the check_ and bench_ scripts."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from _checkout import CHECKOUT

from pyflame_ebpf.profile.model import Frame, FrameKind, Profile, SampleKey, Stack
from pyflame_ebpf.recording.host_lock import AlreadyRecording
from pyflame_ebpf.recording.recorder import RecordOptions, record
from tests.interpreters import Interpreter, discover
from tests.target_process import TARGETS, TargetProcess, cpu_seconds

__all__ = ["CHECKOUT", "TARGETS", "Interpreter", "TargetProcess", "cpu_seconds", "discover"]

PATIENCE = 600.0  # seconds to wait for another profiler on this host
LOOK = 0.3  # seconds between two attempts
CPU_TIME = 0.5  # seconds of CPU that each busy process must have had in a recording's second half
STARVED = 120.0  # seconds after which a recording ends even if a busy process had less

Result = TypeVar("Result")


def once_alone(measure: Callable[[], Result]) -> Result:
    """Call ``measure`` again while another profiler records on this host.

    Raises AlreadyRecording when the other has not ended after ``PATIENCE`` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return measure()
        except AlreadyRecording:  # noqa: PERF203 - waiting is what the loop is for
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK)


def nothing() -> None:
    """Do nothing at an event that nobody waits for."""


def record_for(  # noqa: PLR0913 - each is needed alone
    seconds: float,
    frequency: int,
    started: Callable[[], None] = nothing,
    stopping: Callable[[], None] = nothing,
    *,
    pids: Sequence[int] = (),
    busy: Sequence[int] = (),
) -> Profile:
    """Record for ``seconds``, once no other profiler records on this host.

    ``started`` is called once the first tick may have come, ``stopping`` before the last.  On a busy host the recording
    takes longer: until each of the ``busy`` processes has had ``CPU_TIME`` seconds of CPU in its second half.
    """
    options = RecordOptions(frequency, pids=tuple(pids))
    return once_alone(lambda: _record_once(options, Length(seconds, busy), started, stopping))


class Length:
    """When a recording is long enough, see ``record_for``."""

    def __init__(self, seconds: float, busy: Sequence[int]) -> None:
        self._seconds = seconds
        self._busy = busy
        self._began = 0.0
        self._used_before: list[float] = []

    def begin(self) -> None:
        """Count from now on."""
        self._began = time.monotonic()

    def is_over(self) -> bool:
        """True once the recording was long enough; ask again and again, since the middle is noted as well."""
        elapsed = time.monotonic() - self._began
        if not self._used_before and elapsed >= self._seconds / 2:
            self._used_before = [cpu_seconds(pid) for pid in self._busy]
        return elapsed >= self._seconds and (elapsed >= STARVED or self._all_sampled())

    def _all_sampled(self) -> bool:
        used = zip(self._busy, self._used_before, strict=True)
        return all(cpu_seconds(pid) - before >= CPU_TIME for pid, before in used)


def _record_once(
    options: RecordOptions, length: Length, started: Callable[[], None], stopping: Callable[[], None]
) -> Profile:
    def ready() -> None:
        started()
        length.begin()

    def stop() -> bool:
        if not length.is_over():
            return False
        stopping()
        return True

    return record(options, stop, lambda _progress: None, ready)


def chosen_interpreters(filters: Sequence[str]) -> list[Interpreter]:
    """Return the interpreters whose name contains one of the filters, all without filters.

    Ends the program when there is none.
    """
    found = [here for here in discover() if not filters or any(text in here.name for text in filters)]
    if not found:
        sys.exit(f"no interpreter here is called like {' or '.join(filters) or 'CPython'}")
    return found


def repeated(interpreters: Sequence[Interpreter], number: int) -> list[Interpreter]:
    """Return ``number`` interpreters, each about as often as another."""
    return [interpreters[at % len(interpreters)] for at in range(number)]


@contextmanager
def targets(interpreters: Iterable[Interpreter], program: str, *arguments: str) -> Iterator[list[TargetProcess]]:
    """Start a program of tests/targets in each interpreter; killed at the end."""
    with ExitStack() as running:
        started = []
        for interpreter in interpreters:
            target = TargetProcess(interpreter, program, *arguments)
            running.callback(target.close)
            started.append(target)
        yield started


@contextmanager
def workloads(interpreters: Iterable[Interpreter], *arguments: str) -> Iterator[list[TargetProcess]]:
    """Start tests/targets/workloads.py in each interpreter, and wait until all of them compute."""
    with targets(interpreters, "workloads.py", *arguments) as started:
        for target in started:
            target.wait_until_ready()
        yield started


def samples_of(profile: Profile, pid: int) -> Counter[SampleKey]:
    """Return the samples of one PID, of all programs that it ran."""
    found: Counter[SampleKey] = Counter()
    for key, count in profile.samples.items():
        if profile.processes[key.process].pid == pid:
            found[key] += count
    return found


NATIVE_GAP = "[native frames missing"


def python_frames(stack: Stack) -> list[Frame]:
    """Return the Python frames of a stack, and the marks that stand for missing Python frames."""
    frames = (frame for frame in stack if frame.kind in (FrameKind.PYTHON, FrameKind.MARK) and not frame.plumbing)
    return [frame for frame in frames if not frame.name.startswith(NATIVE_GAP)]


def described(frame: Frame) -> str:
    """Spell a frame in one word for messages."""
    return f"{frame.name} ({frame.file}:{frame.first_line}):{frame.line}"


def batches(items: Sequence[Interpreter], size: int) -> Iterator[Sequence[Interpreter]]:
    """Yield the items in groups of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
