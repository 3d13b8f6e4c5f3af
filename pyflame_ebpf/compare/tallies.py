"""How often each function, line and process of a recording was sampled, and in which part of the recording.  Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import Frame, FrameKind, NumberedStack, Profile

_PARTS = 20  # that a recording is cut into, of whole seconds
_PARTS_MIN = 8  # fewer say too little of how much they scatter
PROCESS = "process"


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


NO_FRAME = Subject(FrameKind.MARK.value, "[no frame is shown]")


@dataclass(slots=True)
class Tally:
    """Samples, in all and by part of the recording."""

    samples: int = 0
    parts: Counter[int] = field(default_factory=Counter)

    def add(self, part: int, count: int) -> None:
        """Count some."""
        self.samples += count
        self.parts[part] += count

    def merge(self, other: Tally) -> None:
        """Count what another has, too."""
        self.samples += other.samples
        self.parts.update(other.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time of a recording, cut into equal parts.

    ``counts_per_core`` is the count of one core that is used all the time, 0 where duration or frequency is unknown.
    ``is_time`` says that counts are measured time, not ticks.  ``parts`` are the samples in each whole part, none
    where there are too few, or no times of samples, to tell how much they scatter; ``parts_in_all`` says how many parts
    the duration is long.
    """

    samples: int
    counts_per_core: float
    cpus: int
    part_seconds: int
    parts: tuple[int, ...]
    parts_in_all: float
    is_time: bool

    @classmethod
    def of(cls, profile: Profile) -> Span:
        """The span of a recording."""
        recording = profile.recording
        width = part_seconds(profile)
        whole = math.floor(recording.duration / width)
        counts = Counter[int]()
        for key, count in profile.samples.items():
            counts[key.second // width] += count
        has_times = recording.started > 0  # what other tools wrote has all of its samples in the first second
        parts = tuple(counts[part] for part in range(whole)) if has_times and whole >= _PARTS_MIN else ()
        return cls(
            samples=counts.total(),
            counts_per_core=profile.unit.per_second * recording.duration,
            cpus=recording.cpus,
            part_seconds=width,
            parts=parts,
            parts_in_all=recording.duration / width,
            is_time=profile.unit.is_time,
        )


def part_seconds(profile: Profile) -> int:
    """How long the parts are."""
    return max(1, math.floor(profile.recording.duration / _PARTS))


Table = dict[Subject, tuple[Tally, Tally]]  # own samples, and those with all that was called


@dataclass(frozen=True, slots=True)
class Tallies:
    """All that is counted of one recording."""

    all: Tally
    functions: Table
    lines: Table
    processes: Table

    @property
    def tables(self) -> tuple[Table, Table, Table]:
        """Functions, lines, processes."""
        return self.functions, self.lines, self.processes


def tallies(profile: Profile, is_shown: Callable[[Frame], bool], interpreters: AbstractSet[str]) -> Tallies:
    """Count; a function's own samples are those in which it is the innermost frame that is shown.

    C functions in files of ``interpreters``, where they serve a Python function, are how that runs (they allocate its
    objects, add its numbers), and count as its own.
    A line's own samples are those in which it is the innermost line of Python, with the C functions that it called.
    What calls itself is counted once for a stack.
    """
    width = part_seconds(profile)
    everything = Tally()
    by_stack: Counter[tuple[int, int]] = Counter()
    by_process: dict[int, Tally] = {}
    for key, count in profile.samples.items():
        part = key.second // width
        everything.add(part, count)
        by_stack[key.stack, part] += count
        by_process.setdefault(key.process, Tally()).add(part, count)
    numbers = _FrameNumbers(profile, is_shown, interpreters)
    functions, lines = _Sums(), _Sums()
    known: dict[int, tuple[list[int], list[int]]] = {}
    for (stack, part), count in by_stack.items():
        if stack not in known:
            known[stack] = numbers.of(profile.stacks[stack])
        functions.add(known[stack][0], part, count)
        lines.add(known[stack][1], part, count)
    return Tallies(
        everything, functions.table(numbers.functions), lines.table(numbers.lines), _processes(profile, by_process)
    )


def _processes(profile: Profile, by_process: dict[int, Tally]) -> Table:
    found: Table = {}
    for index, tally in by_process.items():
        process = profile.processes[index]
        own, total = found.setdefault(Subject(PROCESS, process.command or process.name), (Tally(), Tally()))
        for part, count in tally.parts.items():
            own.add(part, count)
            total.add(part, count)
    return found


class _FrameNumbers:
    """Numbers the functions and lines of a profile, each frame looked at once."""

    def __init__(self, profile: Profile, is_shown: Callable[[Frame], bool], interpreters: AbstractSet[str]) -> None:
        self.functions: Numbering[Subject] = Numbering()
        self.lines: Numbering[Subject] = Numbering()
        self._frames = profile.frames
        self._is_shown = is_shown
        self._interpreters = interpreters
        self._known: list[tuple[int | None, int | None] | None] = [None] * len(profile.frames)

    def of(self, stack: NumberedStack) -> tuple[list[int], list[int]]:
        """The functions and the lines on a stack, innermost first, each once."""
        known = self._known
        frames = self._without_servants(stack) if self._interpreters else stack
        numbers = [known[frame] or self._number(frame) for frame in reversed(frames)]
        functions = list(dict.fromkeys([function for function, _ in numbers if function is not None]))
        lines = list(dict.fromkeys([line for _, line in numbers if line is not None]))
        return functions or [self.functions[NO_FRAME]], lines

    def _without_servants(self, stack: NumberedStack) -> NumberedStack:
        """The stack without what the interpreter does for its Python functions."""
        for at, number in enumerate(stack):
            if self._frames[number].kind is FrameKind.PYTHON:
                return stack[:at] + tuple([each for each in stack[at:] if not self._serves(self._frames[each])])
        return stack

    def _serves(self, frame: Frame) -> bool:
        return frame.kind is FrameKind.NATIVE and frame.file in self._interpreters

    def _number(self, number: int) -> tuple[int | None, int | None]:
        frame = self._frames[number]
        function = line = None
        if self._is_shown(frame):
            function = self.functions[Subject(frame.kind.value, frame.name, frame.file)]
            at = frame.line or frame.first_line
            if frame.kind is FrameKind.PYTHON and at:
                line = self.lines[Subject(frame.kind.value, frame.name, frame.file, at)]
        self._known[number] = found = function, line
        return found


class _Sums:
    """Samples by number and part of the recording."""

    def __init__(self) -> None:
        self._own: Counter[tuple[int, int]] = Counter()
        self._total: Counter[tuple[int, int]] = Counter()

    def add(self, numbers: list[int], part: int, count: int) -> None:
        """Count samples of a stack, innermost first."""
        total = self._total
        for number in numbers:
            total[number, part] += count
        if numbers:
            self._own[numbers[0], part] += count

    def table(self, numbers: Numbering[Subject]) -> Table:
        """By what the numbers stand for."""
        every = [(Tally(), Tally()) for _ in numbers]
        for column, sums in enumerate((self._own, self._total)):
            for (number, part), count in sums.items():
                every[number][column].add(part, count)
        return {subject: every[number] for subject, number in numbers.items()}
