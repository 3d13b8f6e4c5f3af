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
sys.path.insert(0, str(CHECKOUT))

from pyflame_ebpf.profile.model import Frame, FrameKind, Profile, SampleKey, Stack  # noqa: E402
from pyflame_ebpf.recording.host_lock import AlreadyRecording  # noqa: E402
from pyflame_ebpf.recording.recorder import RecordOptions, record  # noqa: E402
from tests.interpreters import Interpreter, discover  # noqa: E402
from tests.target_process import TARGETS, TargetProcess, cpu_seconds  # noqa: E402

__all__ = ["TARGETS", "Interpreter", "TargetProcess", "cpu_seconds"]

PATIENCE = 600.0  # seconds to wait for another profiler on this host
CPU_TIME = 0.5  # seconds that each busy process must have had in a recording's second half
STARVED = 120.0  # seconds after which a recording ends though one of them had less


def nothing() -> None:
    """What happens at an event that nobody waits for."""


def record_for(  # noqa: PLR0913 - each is needed alone
    seconds: float,
    frequency: int,
    started: Callable[[], None] = nothing,
    stopping: Callable[[], None] = nothing,
    *,
    pids: Sequence[int] = (),
    busy: Sequence[int] = (),
) -> Profile:
    """Record so long; ``started`` is called after the first tick may have come, ``stopping`` before the last.

    On a busy host it takes longer: until each of the ``busy`` processes has had ``CPU_TIME`` in the second half.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _record_once(RecordOptions(frequency, pids=tuple(pids)), Length(seconds, busy), started, stopping)
        except AlreadyRecording:  # noqa: PERF203 - waiting is what the loop is for
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


class Length:
    """How long a recording goes on, see ``record_for``."""

    def __init__(self, seconds: float, busy: Sequence[int]) -> None:
        self._seconds = seconds
        self._busy = busy
        self._began = 0.0
        self._used_before: list[float] = []

    def begin(self) -> None:
        """Count from now on."""
        self._began = time.monotonic()

    def is_over(self) -> bool:
        """Whether it was long enough; to be asked again and again."""
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
