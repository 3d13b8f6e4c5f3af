"""What the check_ and bench_ programs share: target programs in many interpreters, and recordings of them."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from interpreters import Interpreter, discover  # noqa: E402
from target_process import TARGETS, TargetProcess  # noqa: E402

from pyflame_ebpf.profile import Frame, FrameKind, Profile, SampleKey, Stack  # noqa: E402
from pyflame_ebpf.recording import AlreadyRecording, RecordOptions, record  # noqa: E402

__all__ = ["TARGETS", "Interpreter", "TargetProcess"]

PATIENCE = 600.0  # seconds to wait for another profiler on this host


def nothing() -> None:
    """What happens at an event that nobody waits for."""


def record_for(
    seconds: float,
    frequency: int,
    started: Callable[[], None] = nothing,
    stopping: Callable[[], None] = nothing,
    pids: Sequence[int] = (),
) -> Profile:
    """Record so long; ``started`` is called after the first tick may have come, ``stopping`` before the last."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _record_once(seconds, RecordOptions(frequency, pids=tuple(pids)), started, stopping)
        except AlreadyRecording:  # noqa: PERF203 - waiting is what the loop is for
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def _record_once(
    seconds: float, options: RecordOptions, started: Callable[[], None], stopping: Callable[[], None]
) -> Profile:
    end = [0.0]

    def ready() -> None:
        started()
        end[0] = time.monotonic() + seconds

    def stop() -> bool:
        if time.monotonic() < end[0]:
            return False
        stopping()
        return True

    return record(options, stop, lambda _progress: None, ready)


def chosen_interpreters(filters: Sequence[str]) -> list[Interpreter]:
    """Every interpreter here, or those whose name contains one of the filters; the program ends when there is none."""
    found = [here for here in discover() if not filters or any(text in here.name for text in filters)]
    if not found:
        sys.exit(f"no interpreter here is called like {' or '.join(filters) or 'CPython'}")
    return found


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


def samples_of(profile: Profile, pid: int) -> Counter[SampleKey]:
    """The samples of one process, of all programs that it ran."""
    found: Counter[SampleKey] = Counter()
    for key, count in profile.samples.items():
        if profile.processes[key.process].pid == pid:
            found[key] += count
    return found


NATIVE_GAP = "[native frames missing"


def python_frames(stack: Stack) -> list[Frame]:
    """The Python frames of a stack, and the marks that say that some of them are missing."""
    frames = (frame for frame in stack if frame.kind in (FrameKind.PYTHON, FrameKind.MARK) and not frame.plumbing)
    return [frame for frame in frames if not frame.name.startswith(NATIVE_GAP)]


def described(frame: Frame) -> str:
    """A frame in one word for messages."""
    return f"{frame.name} ({frame.file}:{frame.first_line}):{frame.line}"


def batches(items: Sequence[Interpreter], size: int) -> Iterator[Sequence[Interpreter]]:
    """The items in groups of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
