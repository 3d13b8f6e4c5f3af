"""The figures of a live view: CPU by process, function and line, of the last interval and since the start.

Pure; each second's Profile is added.  Functions and lines are numbered, so memory grows with the programs that run and
not with the time that passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import frame_label
from pyflame_ebpf.profile.model import Frame, FrameKind, Gil, NumberedStack, Process, Profile

PROCESSES_MAX = 2000  # beyond which those that used least are known by their functions only
NO_FRAME = Frame(FrameKind.MARK, "[no frame is shown]")


@dataclass(frozen=True, slots=True)
class FramesShown:
    """Whether frames of the kernel and native frames are shown, besides Python's."""

    kernel: bool = True
    native: bool = True

    def takes(self, frame: Frame) -> bool:
        """True if a frame is shown."""
        if frame.kind is FrameKind.KERNEL:
            return self.kernel
        return self.native or frame.kind is not FrameKind.NATIVE


WAYS = tuple(FramesShown(kernel, native) for kernel in (True, False) for native in (True, False))
ALL_FRAMES = FramesShown()
PYTHON_ONLY = FramesShown(kernel=False, native=False)


class Places:
    """Numbers lines and functions, each known by its Frame; that of a function has line 0.  Texts are for searching."""

    def __init__(self) -> None:
        self.line_texts: list[str] = []
        self.function_texts: list[str] = []
        self.function_of_line: list[int] = []
        self._line_numbers: Numbering[Frame] = Numbering()
        self._function_numbers: Numbering[Frame] = Numbering()
        self.lines = self._line_numbers.distinct
        self.functions = self._function_numbers.distinct

    def line(self, frame: Frame) -> int:
        """The number of the line in which a frame executes."""
        number = self._line_numbers[frame]
        if number == len(self.line_texts):
            function = replace(frame, line=0)
            self.line_texts.append(frame_label(frame, {}, lines=True).text)
            self.function_of_line.append(self._function_numbers[function])
            if len(self.functions) > len(self.function_texts):
                self.function_texts.append(frame_label(function, {}, lines=False).text)
        return number


@dataclass(slots=True)
class Tally:
    """Samples of one process or of all processes, in a stretch of time.

    ``own`` counts the line that executed in the innermost frame shown, for each way of showing frames.  ``lines`` and
    ``functions`` count each line and function on the stack, once a stack.
    """

    samples: int = 0
    complete: int = 0
    gil_known: int = 0
    gil_held: int = 0
    own: dict[FramesShown, Counter[int]] = field(default_factory=lambda: {way: Counter() for way in WAYS})
    lines: Counter[int] = field(default_factory=Counter)
    functions: Counter[int] = field(default_factory=Counter)

    def copy(self) -> Tally:
        """A copy that stays as it is while this tally counts on."""
        own = {way: counter.copy() for way, counter in self.own.items()}
        return replace(self, own=own, lines=self.lines.copy(), functions=self.functions.copy())

    @property
    def gil_percent(self) -> float | None:
        """Share of samples with the GIL held, among the samples that can tell; None if none can."""
        return 100 * self.gil_held / self.gil_known if self.gil_known else None


@dataclass(frozen=True, slots=True)
class _CountedStack:
    """A stack as the numbers of its lines and functions, with the executing line for each way of showing frames."""

    own: tuple[tuple[FramesShown, int], ...]
    lines: frozenset[int]
    functions: frozenset[int]

    def add_to(self, tally: Tally, samples: int) -> None:
        for way, line in self.own:
            tally.own[way][line] += samples
        for line in self.lines:
            tally.lines[line] += samples
        for function in self.functions:
            tally.functions[function] += samples


class Span:
    """A stretch of time of ``seconds``: what all processes did in it, and what each process did, by PID."""

    def __init__(self, places: Places) -> None:
        self.seconds = 0.0
        self.all = Tally()
        self.by_pid: dict[int, Tally] = {}
        self._places = places

    def add(self, profile: Profile) -> None:
        """Add the samples of another second."""
        self.seconds += profile.recording.duration
        tallies = [self._tally(process) for process in profile.processes]
        stacks: Counter[tuple[int, int]] = Counter()
        for key, count in profile.samples.items():
            stacks[key.process, key.stack] += count
            for tally in (self.all, tallies[key.process]):
                tally.samples += count
                tally.complete += 0 if key.outcome.truncated or key.native.cut_short else count
                tally.gil_known += 0 if key.gil is Gil.UNKNOWN else count
                tally.gil_held += count if key.gil is Gil.HELD else 0
        lines = _FrameLines(profile.frames, self._places)
        known: dict[int, _CountedStack] = {}
        for (process, stack), count in stacks.items():
            if stack not in known:
                known[stack] = lines.counted(profile.stacks[stack])
            known[stack].add_to(self.all, count)
            known[stack].add_to(tallies[process], count)
        self._forget_smallest()

    def _tally(self, process: Process) -> Tally:
        return self.by_pid.setdefault(process.pid, Tally())

    def _forget_smallest(self) -> None:
        if len(self.by_pid) > PROCESSES_MAX:
            kept = sorted(self.by_pid, key=lambda pid: -self.by_pid[pid].samples)[: PROCESSES_MAX // 2]
            self.by_pid = {pid: self.by_pid[pid] for pid in kept}

    def copy(self) -> Span:
        """A copy that stays as it is while this span counts on."""
        span = copy(self)
        span.all = self.all.copy()
        span.by_pid = {pid: tally.copy() for pid, tally in self.by_pid.items()}
        return span


class _FrameLines:
    """The lines of one profile's frames; every frame is looked up once."""

    def __init__(self, frames: Sequence[Frame], places: Places) -> None:
        self._frames = frames
        self._places = places
        self._lines: list[int | None] = [None] * len(frames)

    def counted(self, stack: NumberedStack) -> _CountedStack:
        """What samples of a stack add to."""
        frames = [number for number in stack if not self._frames[number].plumbing]
        own = tuple([(way, self._innermost(frames, way)) for way in WAYS])
        lines = frozenset([self._line(number) for number in frames if self._frames[number].kind is not FrameKind.MARK])
        return _CountedStack(own, lines, frozenset([self._places.function_of_line[line] for line in lines]))

    def _innermost(self, frames: Sequence[int], way: FramesShown) -> int:
        for number in reversed(frames):
            if way.takes(self._frames[number]):
                return self._line(number)
        return self._places.line(NO_FRAME)

    def _line(self, number: int) -> int:
        line = self._lines[number]
        if line is None:
            line = self._lines[number] = self._places.line(self._frames[number])
        return line


class LiveTotals:
    """Everything that the view shows.  ``latest`` is the last interval; ``since`` begins at the start or ``reset``."""

    def __init__(self) -> None:
        self.places = Places()
        self.processes: dict[int, Process] = {}
        self.latest = Span(self.places)
        self.since = Span(self.places)

    def add(self, profiles: Iterable[Profile]) -> None:
        """Add the profiles of the interval that has just ended."""
        self.latest = Span(self.places)
        processes = self.processes.copy()
        for profile in profiles:
            processes |= {process.pid: process for process in profile.processes}
            self.latest.add(profile)
            self.since.add(profile)
        self.processes = {pid: processes[pid] for pid in (*self.since.by_pid, *self.latest.by_pid)}

    def reset(self) -> None:
        """Count from now on."""
        self.since = Span(self.places)

    def frozen(self) -> LiveTotals:
        """The present state, which stays while this object counts on."""
        still = copy(self)
        still.since = self.since.copy()
        return still
