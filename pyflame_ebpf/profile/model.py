"""A recording as plain data: frames, stacks, threads, processes and the samples that tie them together.

Standard library only.  Nothing here reads a file, a process or the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class FrameKind(str, Enum):
    """What a frame runs in."""

    PYTHON = "python"
    NATIVE = "native"
    KERNEL = "kernel"
    MARK = "mark"  # not a function: says that the stack has a gap here, and why ("[truncated: too deep]")


@dataclass(frozen=True, slots=True)
class Frame:
    """One function on a stack.

    ``name`` is a Python qualified name, a symbol, or the text of a mark.  ``file`` is ``co_filename`` of the code
    object for Python, and the mapped file or kernel module for native and kernel frames; "" if unknown.  ``first_line``
    is the line of ``def`` and ``line`` the line that was executing; 0 for none.  ``plumbing`` marks a native frame that
    only carries calls of the interpreter; outputs show it on demand.
    """

    kind: FrameKind
    name: str
    file: str = ""
    first_line: int = 0
    line: int = 0
    plumbing: bool = False


Stack = tuple[Frame, ...]  # outermost first
NumberedStack = tuple[int, ...]  # the same as numbers of frames, which index a profile's ``frames``


class Outcome(str, Enum):
    """How the capture of one sample's stack ended."""

    COMPLETE = "complete"  # a Python stack from the thread's entry to its leaf
    NOT_PYTHON = "not Python"  # no interpreter in the process, or the thread runs no Python code
    NOT_IDENTIFIED = "process not identified yet"
    NO_THREAD_STATE = "thread state not found"
    UNREADABLE_THREAD_STATE = "thread state unreadable"
    UNREADABLE_FRAME = "frame unreadable"
    UNREADABLE_CODE = "code object unreadable"
    TOO_DEEP = "too deep"
    STACK_LOST = "stack lost"  # counted, but its frames never reached user space

    @property
    def truncated(self) -> bool:
        """True if Python frames are missing, or may be."""
        return self not in (Outcome.COMPLETE, Outcome.NOT_PYTHON, Outcome.STACK_LOST)


class NativeOutcome(str, Enum):
    """How the walk through one sample's native frames ended."""

    COMPLETE = "complete"  # at the thread's root
    NONE = "no native frames"  # kernel thread, or not asked for
    NO_MAPPING = "mapping not known yet"
    PAGE_MISS = "unwind rows not there yet"
    NO_UNWIND_DATA = "no unwind data"
    UNSUPPORTED = "unwind rule not supported"
    UNREADABLE = "stack unreadable"
    NOT_ADVANCING = "stack does not advance"
    TOO_DEEP = "too deep"

    @property
    def cut_short(self) -> bool:
        """True if the walk began and did not reach the root."""
        return self not in (NativeOutcome.COMPLETE, NativeOutcome.NONE)


# What stands at the root of a stack whose native frames are cut short.
NATIVE_GAPS = {
    outcome: Frame(FrameKind.MARK, f"[native frames missing: {outcome.value}]")
    for outcome in NativeOutcome
    if outcome.cut_short
}


class Gil(str, Enum):
    """Whether the sampled thread held the global interpreter lock."""

    HELD = "held"
    NOT_HELD = "not held"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Process:
    """One run of one program; ``pid`` is its PID in the root namespace.

    ``name`` is the kernel's comm.  ``command`` is the command line as typed, "" if the process ended before it could be
    read.  ``interpreter`` is as in "CPython 3.11.2", "" for a process without one, and ``interpreter_file`` the mapped
    ELF file that holds it.  ``scheduler_cpu`` is the CPU time in seconds that the scheduler charged to the process
    during the recording, None if unknown.
    """

    pid: int
    name: str
    command: str = ""
    interpreter: str = ""
    interpreter_file: str = ""
    scheduler_cpu: float | None = None

    @property
    def is_python(self) -> bool:
        """True if an interpreter was found in the process."""
        return bool(self.interpreter)


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread of a process; ``tid`` is its TID in the root namespace."""

    tid: int
    name: str


class SampleKey(NamedTuple):
    """What samples that are counted together have in common.

    ``second`` counts from the start of the recording.  ``process``, ``thread`` and ``stack`` index the profile's lists.
    ``kernel_mode`` tells whether the tick interrupted the kernel.
    """

    second: int
    process: int
    thread: int
    stack: int
    kernel_mode: bool
    gil: Gil
    outcome: Outcome
    native: NativeOutcome = NativeOutcome.NONE


class Clock(str, Enum):
    """The time that a recording measures."""

    CPU = "cpu"  # that threads ran
    OFF_CPU = "off-cpu"  # that threads waited
    WALL = "wall"  # both


NANOSECONDS = 1_000_000_000  # in a second


@dataclass(frozen=True, slots=True)
class SampleUnit:
    """What a profile counts: ticks of a clock, or the nanoseconds that it measured.

    ``per_second`` counts are one second of the clock; 0 where the rate of the ticks is unknown.
    """

    clock: Clock
    per_second: int

    @property
    def is_time(self) -> bool:
        """True for nanoseconds, which were measured; False for ticks, each of which hits by chance."""
        return self.per_second == NANOSECONDS

    def seconds(self, count: float) -> float:
        """Seconds of the clock that a count stands for, 0 where the rate is unknown."""
        return count / self.per_second if self.per_second else 0.0

    def nanoseconds(self, count: int) -> int:
        """Whole nanoseconds of the clock that a count stands for, 0 where the rate is unknown."""
        return count * NANOSECONDS // self.per_second if self.per_second else 0


@dataclass(frozen=True, slots=True)
class Recording:
    """The circumstances of a recording.  Times are in seconds; ``started`` is since the epoch, UTC.

    ``started``, ``duration``, ``frequency`` and ``cpus`` are 0 if unknown, as in stacks of other tools.  ``clock`` is
    the clock that was measured.  Counts of samples are nanoseconds of it if ``in_nanoseconds``, else ticks.
    """

    started: float
    duration: float
    frequency: int  # samples per second and CPU
    cpus: int
    host: str = ""
    kernel: str = ""
    arguments: tuple[str, ...] = ()
    profiler_version: str = ""
    scheduler_cpu: float | None = None  # CPU time of the whole host during the recording, from /proc/stat
    lost: int = 0  # ticks known to have been taken of which no sample was kept
    counters: dict[str, int] = field(default_factory=dict)  # every early exit of the BPF programs, by name
    part_of: int = 0  # samples of the recording that this is a part of: its are ``lost`` and ``counters``; 0: a whole
    clock: Clock = Clock.CPU
    in_nanoseconds: bool = False

    @property
    def unit(self) -> SampleUnit:
        """What the counts of samples are."""
        return SampleUnit(self.clock, NANOSECONDS if self.in_nanoseconds else self.frequency)


@dataclass(slots=True)
class Profile:
    """A whole recording: what was sampled, how often, and where.

    ``frames`` are distinct.  A stack is a tuple of numbers that index ``frames``, outermost first.  ``build_ids`` has
    the build id in hex by ``Frame.file`` of native frames, for files that have one.  ``sources`` has text by
    ``Frame.file`` of Python frames and by line number, for sampled functions of a recording that was asked for it.
    """

    recording: Recording
    processes: list[Process] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    stacks: list[NumberedStack] = field(default_factory=list)
    samples: Counter[SampleKey] = field(default_factory=Counter)
    build_ids: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All samples."""
        return sum(self.samples.values())

    def frames_of(self, stack: int) -> Stack:
        """The frames of the stack with this index, outermost first."""
        frames = self.frames
        return tuple([frames[number] for number in self.stacks[stack]])

    @property
    def unit(self) -> SampleUnit:
        """What the counts of samples are, and how they become time."""
        return self.recording.unit

    def outcomes(self) -> Counter[Outcome]:
        """Samples by how their capture ended."""
        totals: Counter[Outcome] = Counter()
        for key, count in self.samples.items():
            totals[key.outcome] += count
        return totals

    def native_outcomes(self) -> Counter[NativeOutcome]:
        """Samples by how the walk through their native frames ended."""
        totals: Counter[NativeOutcome] = Counter()
        for key, count in self.samples.items():
            totals[key.native] += count
        return totals

    def by_process(self) -> Iterator[tuple[Process, Counter[SampleKey]]]:
        """Each sampled process with its samples, most samples first."""
        grouped: dict[int, Counter[SampleKey]] = {}
        for key, count in self.samples.items():
            grouped.setdefault(key.process, Counter())[key] = count
        for index in sorted(grouped, key=lambda index: (-sum(grouped[index].values()), self.processes[index].pid)):
            yield self.processes[index], grouped[index]
