"""The rows of the live view: processes, and functions or lines, sorted, filtered and restricted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from pyflame_ebpf.live.totals import ALL_FRAMES, PYTHON_ONLY, FramesShown, LiveTotals, Places, Span, Tally
from pyflame_ebpf.profile.labels import frame_label, short_command, short_files, visible
from pyflame_ebpf.profile.model import Frame, FrameKind, Process


class Sort(Enum):
    """The column by which rows are sorted.  Processes are sorted by the interval, or by all time."""

    OWN_NOW = "Self%"
    TOTAL_NOW = "Total%"
    OWN_SINCE = "Self s"
    TOTAL_SINCE = "Total s"

    @property
    def since(self) -> bool:
        """True if rows are sorted by all time since the start."""
        return self in (Sort.OWN_SINCE, Sort.TOTAL_SINCE)

    @property
    def next(self) -> Sort:
        """The next column; the last one is followed by the first."""
        every = list(Sort)
        return every[(every.index(self) + 1) % len(every)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows are shown.  ``pattern`` None shows all rows, ``pid`` None the functions of all processes."""

    lines: bool = False
    sort: Sort = Sort.OWN_NOW
    frames: FramesShown = ALL_FRAMES
    pattern: re.Pattern[str] | None = None
    pid: int | None = None


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function or line: per cent of one core in the last interval, and seconds of CPU since the start."""

    label: str
    kind: FrameKind
    own_percent: float
    total_percent: float
    own_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process: per cent of one core in the last interval, and seconds of CPU since the start."""

    pid: int
    command: str
    interpreter: str
    cpu_percent: float
    gil_percent: float | None
    seconds: float
    hottest: str


@dataclass(frozen=True, slots=True)
class _Counts:
    """Samples by the number of a function or line."""

    own_now: Counter[int]
    total_now: Counter[int]
    own_since: Counter[int]
    total_since: Counter[int]

    def sort_key(self, sort: Sort) -> Callable[[int], tuple[int, ...]]:
        first = {
            Sort.OWN_NOW: self.own_now,
            Sort.TOTAL_NOW: self.total_now,
            Sort.OWN_SINCE: self.own_since,
            Sort.TOTAL_SINCE: self.total_since,
        }[sort]
        others = (self.own_since, self.own_now) if sort.since else (self.own_now, self.total_now, self.own_since)
        return lambda number: (-first[number], *(-other[number] for other in others), -self.total_since[number], number)


@dataclass(frozen=True, slots=True)
class FunctionList:
    """Functions or lines as sorted numbers.  Rows are made only of the numbers in view."""

    totals: LiveTotals
    wanted: Wanted
    counts: _Counts
    numbers: list[int]

    def rows(self, first: int, count: int, frequency: int) -> list[FunctionRow]:
        """``count`` rows, beginning with row ``first``."""
        frames = _frames(self.totals.places, self.wanted)
        chosen = self.numbers[first : first + count]
        labels = _labels([frames[number] for number in chosen], lines=self.wanted.lines)
        now = _percent_of(self.totals.latest, frequency)
        return [
            FunctionRow(
                labels[frames[number]],
                frames[number].kind,
                self.counts.own_now[number] * now,
                self.counts.total_now[number] * now,
                self.counts.own_since[number] / frequency,
                self.counts.total_since[number] / frequency,
            )
            for number in chosen
        ]


def functions(totals: LiveTotals, wanted: Wanted) -> FunctionList:
    """Functions or lines, sorted.

    A pattern keeps the functions that it matches.  If it matches none, it keeps the functions of the processes that it
    matches.
    """
    pattern = wanted.pattern
    found = _functions_of(totals, wanted, None if wanted.pid is None else [wanted.pid], pattern)
    if found.numbers or pattern is None or wanted.pid is not None:
        return found
    pids = [pid for pid, process in totals.processes.items() if _matches(pattern, process)]
    return _functions_of(totals, wanted, pids, None)


def _functions_of(
    totals: LiveTotals, wanted: Wanted, pids: list[int] | None, pattern: re.Pattern[str] | None
) -> FunctionList:
    frames, texts = _frames(totals.places, wanted), _texts(totals.places, wanted)
    counts = _counts(_tallies(totals.latest, pids), _tallies(totals.since, pids), wanted, totals.places)
    numbers = {*counts.own_now, *counts.total_now, *counts.own_since, *counts.total_since}
    shown = [
        number
        for number in numbers
        if wanted.frames.takes(frames[number]) and (pattern is None or pattern.search(texts[number]))
    ]
    return FunctionList(totals, wanted, counts, sorted(shown, key=counts.sort_key(wanted.sort)))


def _frames(places: Places, wanted: Wanted) -> list[Frame]:
    return places.lines if wanted.lines else places.functions


def _texts(places: Places, wanted: Wanted) -> list[str]:
    return places.line_texts if wanted.lines else places.function_texts


def _percent_of(span: Span, frequency: int) -> float:
    """The per cent of one core that one sample stands for."""
    return 100 / frequency / span.seconds if span.seconds > 0 else 0.0


def _tallies(span: Span, pids: list[int] | None) -> list[Tally]:
    if pids is None:
        return [span.all]
    return [span.by_pid[pid] for pid in pids if pid in span.by_pid]


def _counts(latest: list[Tally], since: list[Tally], wanted: Wanted, places: Places) -> _Counts:
    own_now, own_since = _own(latest, wanted, places), _own(since, wanted, places)
    frames = _frames(places, wanted)
    return _Counts(
        own_now, _on_stack(latest, wanted, own_now, frames), own_since, _on_stack(since, wanted, own_since, frames)
    )


def _own(tallies: Iterable[Tally], wanted: Wanted, places: Places) -> Counter[int]:
    counts: Counter[int] = Counter()
    for tally in tallies:
        for line, count in tally.own[wanted.frames].items():
            counts[line if wanted.lines else places.function_of_line[line]] += count
    return counts


def _on_stack(tallies: Iterable[Tally], wanted: Wanted, own: Counter[int], frames: list[Frame]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for tally in tallies:
        counts.update(tally.lines if wanted.lines else tally.functions)
    for number, count in own.items():
        if frames[number].kind is FrameKind.MARK:  # stands for frames, and calls nothing
            counts[number] = count
    return counts


def _labels(frames: list[Frame], *, lines: bool) -> dict[Frame, str]:
    files = short_files({frame.file for frame in frames if frame.kind is FrameKind.PYTHON})
    return {frame: frame_label(frame, files, lines=lines).text for frame in frames}


def process_rows(totals: LiveTotals, wanted: Wanted, frequency: int) -> list[ProcessRow]:
    """Processes, sorted.  A pattern keeps those with a PID, name, command or function that it matches."""
    span = totals.since if wanted.sort.since else totals.latest
    running = _running_matches(totals, wanted)
    pids = [
        pid
        for pid, process in totals.processes.items()
        if wanted.pattern is None or pid in running or _matches(wanted.pattern, process)
    ]
    hottest = {pid: _hottest(totals, pid) for pid in pids}
    labels = _labels([frame for frame in hottest.values() if frame is not None], lines=True)

    def samples(of: Span, pid: int) -> int:
        return of.by_pid[pid].samples if pid in of.by_pid else 0

    pids.sort(key=lambda pid: (-samples(span, pid), -samples(totals.since, pid), pid))
    now = _percent_of(totals.latest, frequency)
    return [
        ProcessRow(
            pid,
            visible(short_command(totals.processes[pid].command or totals.processes[pid].name)),
            visible(totals.processes[pid].interpreter.removeprefix("CPython ")),
            samples(totals.latest, pid) * now,
            _gil(totals, pid),
            samples(totals.since, pid) / frequency,
            labels[frame] if (frame := hottest[pid]) is not None else "",
        )
        for pid in pids
    ]


def _gil(totals: LiveTotals, pid: int) -> float | None:
    tally = totals.latest.by_pid.get(pid)
    return tally.gil_percent if tally else None


def _hottest(totals: LiveTotals, pid: int) -> Frame | None:
    """The line where a process executed most in the interval, else since the start: a Python line if there is one."""
    tally = totals.latest.by_pid.get(pid) or totals.since.by_pid.get(pid)
    for way in (PYTHON_ONLY, ALL_FRAMES):
        for number, _ in tally.own[way].most_common(3) if tally else ():
            frame = totals.places.lines[number]
            if frame.kind is not FrameKind.MARK:
                return frame
    return None


def _running_matches(totals: LiveTotals, wanted: Wanted) -> set[int]:
    """PIDs of the processes that ran a function or line whose label the pattern matches."""
    if wanted.pattern is None:
        return set()
    texts = _texts(totals.places, wanted)
    numbers = {number for number, text in enumerate(texts) if wanted.pattern.search(text)}
    return {
        pid
        for pid, tally in totals.since.by_pid.items()
        if not numbers.isdisjoint(tally.lines if wanted.lines else tally.functions)
    }


def _matches(pattern: re.Pattern[str], process: Process) -> bool:
    return any(map(pattern.search, (str(process.pid), visible(process.name), visible(process.command))))
