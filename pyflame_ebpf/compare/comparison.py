"""What changed between two recordings: in all, by function, by line and by process, and how much of it may be chance.

CPU is measured in cores, CPU seconds for each second of recording, so that neither duration nor frequency matters; or
as shares of all CPU used.  Pure.

The error of a count.  A CPU clock ticks regularly, and a program does not keep step with it, so every tick is a throw
of its own.  A count of n out of N ticks of all CPUs therefore has the variance n (1 - n/N), at most that of Poisson, n.
A load that comes in bursts, on several CPUs at once or for longer than a tick, scatters more.  So the recording is cut
into some twenty equal parts.  If their counts scatter more than the ticks explain, the variance of the parts is taken:
it is the variance of the CPU used, not of the sampling alone.  The recordings are independent, so variances add up.

Change or noise.  A single change counts as one from three standard errors on.  In a table one of many rows may pass
that by chance, so the threshold rises until 19 of 20 tables of pure noise have no row beyond it (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

from pyflame_ebpf.compare.alignment import Aligned, aligned
from pyflame_ebpf.compare.tallies import Span, Subject, Tally, tallies
from pyflame_ebpf.profile.model import Frame, Profile

STANDARD_ERRORS = 3.0  # from which on a change is one
CONFIDENCE = 2.0  # standard errors to both sides hold the true value 19 times of 20
MONTH_HOURS = 730
_FALSE_ALARMS = 0.05  # tables of nothing but noise in which some row is called a change
_SAMPLES_MIN = 10  # of a row in both recordings; fewer can be nothing but noise


class Measure(str, Enum):
    """What is compared."""

    CORES = "cores"
    SHARE = "share"  # of all samples of the recording


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both recordings, in cores or as shares of 1.

    ``variance_before`` and ``variance_after`` are the variances of the two figures.  ``variance_if_same`` is the
    variance of their difference under the assumption that both have the same true value.
    """

    before: float
    after: float
    samples_before: int
    samples_after: int
    variance_before: float
    variance_after: float
    variance_if_same: float

    @property
    def change(self) -> float:
        """The figure after minus the figure before."""
        return self.after - self.before

    @property
    def standard_error(self) -> float:
        """The standard error of the change."""
        return math.sqrt(self.variance_before + self.variance_after)

    @property
    def error(self) -> float:
        """Half the width of the 95 % confidence interval of the change."""
        return CONFIDENCE * self.standard_error

    @property
    def relative(self) -> float | None:
        """The change as a share of the figure before, None if that is 0."""
        return self.change / self.before if self.before else None

    @property
    def relative_error(self) -> float | None:
        """Half the width of the 95 % confidence interval of ``relative``, by first-order propagation, or None."""
        if not self.before:
            return None
        ratio = self.after / self.before
        return CONFIDENCE * math.sqrt(self.variance_after + ratio * ratio * self.variance_before) / self.before

    @property
    def score(self) -> float:
        """The change in standard errors, by the larger estimate of the error; 0 if samples are too few to tell."""
        if self.samples_before + self.samples_after < _SAMPLES_MIN or not self.change:
            return 0.0
        noise = math.sqrt(max(self.variance_before + self.variance_after, self.variance_if_same))
        return self.change / noise if noise else math.copysign(math.inf, self.change)

    @property
    def is_beyond_noise(self) -> bool:
        """True if this change, looked at alone, is more than noise."""
        return abs(self.score) >= STANDARD_ERRORS


@dataclass(frozen=True, slots=True)
class Row:
    """One function, line or process: its own CPU, and its CPU with everything that it called."""

    subject: Subject
    own: Change
    total: Change


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows of a table, changes beyond noise first, then by the size of the change.

    A change is beyond noise if its score reaches ``threshold`` standard errors.
    """

    rows: list[Row]
    threshold: float
    by_total: bool = False

    def of(self, row: Row) -> Change:
        """The change by which rows are sorted."""
        return row.total if self.by_total else row.own

    def is_beyond_noise(self, change: Change) -> bool:
        """True if a change is more than noise among so many rows."""
        return abs(change.score) >= self.threshold


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two recordings compared.

    ``total`` is in cores, None if the duration or frequency of a recording is unknown.  ``before`` and ``after`` are
    spelled alike.  ``moved`` has the files that were matched by the ends of their names.
    """

    measure: Measure
    total: Change | None
    functions: Changes
    lines: Changes
    processes: Changes
    before: Profile
    after: Profile
    moved: dict[str, str]

    @property
    def sides(self) -> tuple[Side, Side]:
        """How counts before and counts after become figures."""
        return Side.of(Span.of(self.before), self.measure), Side.of(Span.of(self.after), self.measure)

    def change_of(self) -> Callable[[Tally, Tally], Change]:
        """A function that compares two tallies, one before and one after."""
        sides = self.sides
        return lambda before, after: _change(*sides, before, after)


def knows_cores(profile: Profile) -> bool:
    """True if samples can be told in cores: duration and frequency are known and cover at least one tick."""
    return profile.unit.per_second * profile.recording.duration >= 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What is counted, and how rows are sorted.

    ``is_shown`` tells which frames count.  A C function of the interpreter counts as the Python function that it
    serves, unless ``interpreter_apart``.  Rows are sorted by their own CPU, or with callees if ``by_total``.
    """

    is_shown: Callable[[Frame], bool] = lambda _frame: True
    interpreter_apart: bool = False
    by_total: bool = False


DEFAULT_RULES = Rules()


def compare(
    before: Profile,
    after: Profile,
    measure: Measure = Measure.CORES,
    rules: Rules = DEFAULT_RULES,
) -> Comparison:
    """Compare two recordings.  The measure is SHARE in any case if cores are unknown."""
    alike = aligned(before, after)
    interpreters = set() if rules.interpreter_apart else _interpreters(alike)
    known = knows_cores(before) and knows_cores(after)
    measure = measure if known else Measure.SHARE
    spans = Span.of(alike.before), Span.of(alike.after)
    counted = [tallies(each, rules.is_shown, interpreters) for each in (alike.before, alike.after)]
    sides = Side.of(spans[0], measure), Side.of(spans[1], measure)
    functions, lines, processes = (
        _changes(sides, old, new, rules.by_total) for old, new in zip(counted[0].tables, counted[1].tables, strict=True)
    )
    total = None
    if known:
        old, new = (Side.of(span, Measure.CORES) for span in spans)
        total = _change(old, new, counted[0].all, counted[1].all)
    return Comparison(measure, total, functions, lines, processes, alike.before, alike.after, alike.moved)


def _interpreters(alike: Aligned) -> set[str]:
    """The files that hold the interpreters, as frames name them."""
    every = (process.interpreter_file for side in (alike.before, alike.after) for process in side.processes)
    return {alike.moved.get(file, file) for file in every if file}


@dataclass(frozen=True, slots=True)
class Side:
    """How the counts of one recording become figures.

    ``exposure`` is the count that stands for 1: one core, or all samples.  ``ticks`` is the largest count that is
    possible, 0 if that is unknown.
    """

    span: Span
    measure: Measure
    exposure: float
    ticks: float

    @classmethod
    def of(cls, span: Span, measure: Measure) -> Side:
        """The side of a recording that covers this span."""
        if measure is Measure.SHARE:
            return cls(span, measure, max(1, span.samples), max(1, span.samples))
        return cls(span, measure, span.counts_per_core, span.counts_per_core * span.cpus)

    def variance(self, tally: Tally) -> float:
        """The variance of a tally's figure."""
        return max(self.spread(tally.samples), self._scatter(tally)) / self.exposure**2

    def spread(self, samples: float) -> float:
        """The variance of a count by the ticks alone; 0 for measured time."""
        if self.span.is_time:
            return 0.0
        return samples * max(0.0, 1 - samples / self.ticks) if self.ticks else samples

    def _scatter(self, tally: Tally) -> float:
        """The variance of a count by how the parts of the recording scatter; 0 if there are too few parts."""
        if not tally.parts or not self.span.parts:
            return 0.0
        expected = self._expected(tally.samples)
        squares = sum(each * each for each in expected)
        for part, count in tally.parts.items():
            if part < len(expected):
                squares += count * count - 2 * count * expected[part]
        return squares / (len(expected) - 1) * self.span.parts_in_all

    def _expected(self, samples: int) -> Sequence[float]:
        """The count that each part of the recording would have if so many samples were spread evenly."""
        if self.measure is Measure.SHARE:
            return [samples / max(1, self.span.samples) * part for part in self.span.parts]
        return [samples / self.span.parts_in_all] * len(self.span.parts)


_Tallies = Mapping[Subject, tuple[Tally, Tally]]


def _changes(sides: tuple[Side, Side], before: _Tallies, after: _Tallies, by_total: bool) -> Changes:
    none = Tally(0), Tally(0)
    rows = []
    for subject in before.keys() | after.keys():
        (old, old_total), (new, new_total) = before.get(subject, none), after.get(subject, none)
        own = _change(*sides, old, new)
        rows.append(Row(subject, own, own if subject.has_no_callers else _change(*sides, old_total, new_total)))
    threshold = _threshold(row.total for row in rows)
    found = Changes(rows, threshold, by_total)
    rows.sort(key=lambda row: _place(found, row))
    return found


def _place(changes: Changes, row: Row) -> tuple[bool, float, float, Subject]:
    change = changes.of(row)
    return not changes.is_beyond_noise(change), -abs(change.change), -abs(row.total.change), row.subject


def _threshold(changes: Iterable[Change]) -> float:
    """The score that no row reaches by chance in 19 of 20 tables of so many rows."""
    rows = sum(change.samples_before + change.samples_after >= _SAMPLES_MIN for change in changes)
    return max(STANDARD_ERRORS, NormalDist().inv_cdf(1 - _FALSE_ALARMS / (2 * max(1, rows))))


def _change(old: Side, new: Side, before: Tally, after: Tally) -> Change:
    return Change(
        before.samples / old.exposure,
        after.samples / new.exposure,
        before.samples,
        after.samples,
        old.variance(before),
        new.variance(after),
        _variance_if_same(old, new, before.samples + after.samples),
    )


def _variance_if_same(old: Side, new: Side, samples: int) -> float:
    rate = samples / (old.exposure + new.exposure)
    return sum(side.spread(rate * side.exposure) / side.exposure**2 for side in (old, new))
