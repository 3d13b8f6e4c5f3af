"""How often each function, line and process of a recording was sampled, and in which part of the recording.  Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pyflame_ebpf.profile import Frame, FrameKind, Profile, Stack

_PARTS = 20  # that a recording is cut into, of whole seconds
_PARTS_MIN = 8  # fewer say too little of how much they scatter
PROCESS = "process"
NO_FRAME = Frame(FrameKind.MARK, "[no frame is shown]")


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What a row is about: a function (``line`` 0), one of its lines, or a process (its command is the name).

    ``kind`` is a FrameKind's value, or PROCESS.
    """

    kind: str
    name: str
    file: str = ""
    line: int = 0

    @property
    def has_no_callers(self) -> bool:
        """Whether what it used itself is all that it used."""
        return self.kind == PROCESS


@dataclass(slots=True)
class Tally:
    """Samples, in all and by part of the recording."""

    samples: int = 0
    parts: Counter[int] = field(default_factory=Counter)

    def add(self, part: int, count: int) -> None:
        """Count some."""
        self.samples += count
        self.parts[part] += count


@dataclass(frozen=True, slots=True)
class Span:
    """The time of a recording, cut into equal parts.

    ``ticks_per_cpu`` is 0 where duration or frequency is unknown.  ``parts`` are the samples in each whole part, none
    where there are too few to tell how much they scatter; ``parts_in_all`` says how many parts the duration is long.
    """

    samples: int
    ticks_per_cpu: float
    cpus: int
    part_seconds: int
    parts: tuple[int, ...]
    parts_in_all: float

    @classmethod
    def of(cls, profile: Profile) -> Span:
        """The span of a recording."""
        recording = profile.recording
        width = part_seconds(profile)
        whole = math.floor(recording.duration / width)
        counts = Counter[int]()
        for key, count in profile.samples.items():
            counts[key.second // width] += count
        parts = tuple(counts[part] for part in range(whole)) if whole >= _PARTS_MIN else ()
        ticks = recording.frequency * recording.duration
        return cls(counts.total(), ticks, recording.cpus, width, parts, recording.duration / width)


def part_seconds(profile: Profile) -> int:
    """How long the parts are."""
    return max(1, math.floor(profile.recording.duration / _PARTS))


_Table = dict[Subject, tuple[Tally, Tally]]  # own samples, and those with all that was called


@dataclass(slots=True)
class Tallies:
    """All that is counted of one recording."""

    all: Tally = field(default_factory=Tally)
    functions: _Table = field(default_factory=dict)
    lines: _Table = field(default_factory=dict)
    processes: _Table = field(default_factory=dict)

    @property
    def tables(self) -> tuple[_Table, _Table, _Table]:
        """Functions, lines, processes."""
        return self.functions, self.lines, self.processes


@dataclass(frozen=True, slots=True)
class _Named:
    """What one stack counts for; a function that calls itself is in it once."""

    function: Subject
    functions: frozenset[Subject]
    line: Subject | None
    lines: frozenset[Subject]


def tallies(profile: Profile, is_shown: Callable[[Frame], bool]) -> Tallies:
    """Count; a function's own samples are those in which it is the innermost frame that is shown.

    A line's own samples are those in which it is the innermost line of Python, with the C functions that it called.
    """
    counted = Tallies()
    width = part_seconds(profile)
    named: dict[int, _Named] = {}
    by_process = [Subject(PROCESS, process.command or process.name) for process in profile.processes]
    for key, count in profile.samples.items():
        part = key.second // width
        counted.all.add(part, count)
        if key.stack not in named:
            named[key.stack] = _named(profile.stacks[key.stack], is_shown)
        stack = named[key.stack]
        _add(counted.processes, by_process[key.process], frozenset((by_process[key.process],)), part, count)
        _add(counted.functions, stack.function, stack.functions, part, count)
        _add(counted.lines, stack.line, stack.lines, part, count)
    return counted


def _add(table: _Table, own: Subject | None, every: frozenset[Subject], part: int, count: int) -> None:
    for subject in every:
        if subject not in table:
            table[subject] = Tally(), Tally()
        table[subject][1].add(part, count)
    if own is not None:
        table[own][0].add(part, count)


def _named(stack: Stack, is_shown: Callable[[Frame], bool]) -> _Named:
    frames = [frame for frame in stack if is_shown(frame)] or [NO_FRAME]
    functions = [Subject(frame.kind.value, frame.name, frame.file) for frame in frames]
    lines = [
        Subject(frame.kind.value, frame.name, frame.file, frame.line or frame.first_line)
        for frame in frames
        if frame.kind is FrameKind.PYTHON and (frame.line or frame.first_line)
    ]
    return _Named(functions[-1], frozenset(functions), lines[-1] if lines else None, frozenset(lines))
