"""How often each function, line and process of a recording was sampled, and in which part of the recording.  Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pyflame_ebpf.profile.file import UnusableProfileError
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import Frame, FrameKind, NumberedStack, Profile

_PARTS = 20  # that a recording is cut into, of whole seconds
_PARTS_MIN = 8  # fewer say too little of how much they scatter
PROCESS = "process"
PARTS_MAX = 4_000_000  # of functions or of lines, each in each part of the recording: 1 GB; a busy host has 100,000


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """The subject of a row: a function (``line`` is 0), a line of it, or a process (``name`` is its command).

    ``kind`` is the value of a FrameKind, or PROCESS.
    """

    kind: str
    name: str
    file: str = ""
    line: int = 0

    @property
    def has_no_callers(self) -> bool:
        """True if its own CPU is all of its CPU."""
        return self.kind == PROCESS


NO_FRAME = Subject(FrameKind.MARK.value, "[no frame is shown]")


@dataclass(slots=True)
class Tally:
    """Samples, in all and by part of the recording."""

    samples: int = 0
    parts: Counter[int] = field(default_factory=Counter)

    def add(self, part: int, count: int) -> None:
        """Count samples of one part of the recording."""
        self.samples += count
        self.parts[part] += count

    def merge(self, other: Tally) -> None:
        """Add the samples of another tally."""
        self.samples += other.samples
        self.parts.update(other.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time of a recording, cut into equal parts of ``part_seconds``.

    ``counts_per_core`` is the count of one core that is busy all the time, 0 if duration or frequency is unknown.
    ``parts`` has the samples of each whole part; it is empty if samples have no times, or if there are too few parts to
    tell how much they scatter.  ``parts_in_all`` is the duration in parts.  ``is_time`` is True if counts are measured
    time.
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
    """The length of a part in whole seconds."""
    return max(1, math.floor(profile.recording.duration / _PARTS))


Table = dict[Subject, tuple[Tally, Tally]]  # own samples, and those with all that was called


@dataclass(frozen=True, slots=True)
class Tallies:
    """Everything that is counted of one recording."""

    all: Tally
    functions: Table
    lines: Table
    processes: Table

    @property
    def tables(self) -> tuple[Table, Table, Table]:
        """The tables of functions, lines and processes."""
        return self.functions, self.lines, self.processes


def tallies(profile: Profile, is_shown: Callable[[Frame], bool], interpreters: AbstractSet[str]) -> Tallies:
    """Count the samples of a recording.

    A sample belongs to the innermost function that is shown, and to the innermost line of Python.  A C function in a
    file of ``interpreters`` that serves a Python function counts as that function: it allocates its objects, or adds
    its numbers.  A function or line that calls itself is counted once for a stack.
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
        """The stack without the C functions by which the interpreter serves Python functions."""
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
        """Count samples of a stack, whose functions or lines are numbered, innermost first.

        Raises UnusableProfileError beyond PARTS_MAX.
        """
        total = self._total
        for number in numbers:
            total[number, part] += count
        if len(total) > PARTS_MAX:
            raise UnusableProfileError(
                f"more than {PARTS_MAX:,} parts of functions cannot be compared",
                "Compare shorter ranges of time, or fewer processes: --from, --to, --process.",
            )
        if numbers:
            self._own[numbers[0], part] += count

    def table(self, numbers: Numbering[Subject]) -> Table:
        """The samples by the subjects that the numbers stand for."""
        every = [(Tally(), Tally()) for _ in numbers]
        for column, sums in enumerate((self._own, self._total)):
            for (number, part), count in sums.items():
                every[number][column].add(part, count)
        return {subject: every[number] for subject, number in numbers.items()}
