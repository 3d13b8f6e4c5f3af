"""A comparison in words: whether CPU rose or fell, how sure that is, and what it saves."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyflame_ebpf.compare.comparison import (
    CONFIDENCE,
    MONTH_HOURS,
    STANDARD_ERRORS,
    Change,
    Comparison,
    Measure,
    knows_cores,
)
from pyflame_ebpf.profile.labels import visible
from pyflame_ebpf.profile.model import Profile

_MINUS = "\N{MINUS SIGN}"
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
_ARROW = "\N{RIGHTWARDS ARROW}"
_LOST_SHARE = 0.01  # of samples lost, from which on the totals are doubtful
_DIGITS_MAX = 4


def headline(comparison: Comparison) -> str:
    """As in ``CPU per second fell 66 % ± 2 %: 3.10 → 1.05 cores (-2.05 ± 0.04)``."""
    total = comparison.total
    if total is None:
        return "Shares of all samples are compared: how long, or how often, was sampled is not known of both."
    figures = f"{_cores(total)} ({signed(total.change, total.error)} {_PLUS_MINUS} {plain(total.error, total.error)})"
    if not total.is_beyond_noise:
        return f"No change beyond noise: {figures}."
    went = "rose" if total.change > 0 else "fell"
    return f"CPU per second {went}{_percent(total)}: {figures}."


def saving(comparison: Comparison, core_hour_price: float) -> str:
    """The saving or cost of the change in a month, in the currency of the price; "" without a total."""
    total = comparison.total
    if total is None:
        return ""
    monthly, error = monthly_saving(total, core_hour_price)
    amount = f"{plain(abs(monthly), error)} {_PLUS_MINUS} {plain(error, error)} a month"
    basis = f"({MONTH_HOURS} hours at {core_hour_price:g} a core-hour)"
    if not total.is_beyond_noise:
        return f"No saving beyond noise: {signed(monthly, error)} {_PLUS_MINUS} {plain(error, error)} a month {basis}."
    return f"That saves {amount} {basis}." if monthly > 0 else f"That costs {amount} more {basis}."


def monthly_saving(total: Change, core_hour_price: float) -> tuple[float, float]:
    """The price of the cores saved in a month, and half the width of its 95 % confidence interval."""
    month = core_hour_price * MONTH_HOURS
    return -total.change * month, total.error * month


def basis(comparison: Comparison) -> Iterator[str]:
    """What was compared and what the signs mean, one line each."""
    yield f"before: {_recorded(comparison.before)}"
    yield f"after:  {_recorded(comparison.after)}"
    thresholds = ", ".join(
        f"{changes.threshold:.1f} for {len(changes.rows):,} {name}"
        for name, changes in (
            ("functions", comparison.functions),
            ("lines", comparison.lines),
            ("processes", comparison.processes),
        )
    )
    yield (
        f"{_PLUS_MINUS} is 95 % ({CONFIDENCE:g} standard errors); ~ and grey: no change beyond noise, which ends at "
        f"{STANDARD_ERRORS:g} standard errors, among many rows later ({thresholds})."
    )
    if comparison.moved:
        old, new = min(comparison.moved.items())
        others = len(comparison.moved) - 1
        more = f", and {others:,} more" if others else ""
        yield f"Taken for the same file: {visible(old)} {_ARROW} {visible(new)}{more}."


def doubts(comparison: Comparison) -> Iterator[str]:
    """Reasons to mistrust the comparison, one sentence each."""
    for name, profile in (("before", comparison.before), ("after", comparison.after)):
        if not profile.total:
            yield f"nothing that is compared used the CPU {name}"
        lost, part_of = profile.recording.lost, profile.recording.part_of
        if lost > _LOST_SHARE * ((part_of or profile.total) + lost):
            where, counted = (f"in the whole recording {name}", "may be") if part_of else (name, "is")
            yield f"{lost:,} samples were lost {where}, so that too little CPU {counted} counted there"
    cpus = comparison.before.recording.cpus, comparison.after.recording.cpus
    hosts = comparison.before.recording.host, comparison.after.recording.host
    if all(cpus) and cpus[0] != cpus[1]:
        yield f"the hosts differ: {cpus[0]:,} CPUs before, {cpus[1]:,} after"
    elif all(hosts) and hosts[0] != hosts[1]:
        yield f"the hosts differ: {visible(hosts[0])} before, {visible(hosts[1])} after"


def _recorded(profile: Profile) -> str:
    recording = profile.recording
    facts = [f"{profile.total:,} samples"]
    if knows_cores(profile):
        rate = "" if profile.unit.is_time else f" at {recording.frequency:,} Hz"
        facts.append(f"{recording.duration:,.1f} s{rate}")
    if recording.cpus:
        facts.append(f"{recording.cpus:,} CPUs")
    if recording.host:
        facts.append(visible(recording.host))
    return ", ".join(facts)


def _cores(total: Change) -> str:
    return f"{plain(total.before, total.error)} {_ARROW} {plain(total.after, total.error)} cores"


def _percent(total: Change) -> str:
    if total.relative is None or total.relative_error is None:
        return ""
    percent, error = 100 * abs(total.relative), 100 * total.relative_error
    return f" {plain(percent, max(error, 1))} % {_PLUS_MINUS} {plain(error, error)} %"


def plain(value: float, error: float) -> str:
    """A figure with the digits that its error leaves meaningful: two of the error's, at most four decimals."""
    digits = 2 if error <= 0 else min(_DIGITS_MAX, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:,.{digits}f}"


def signed(value: float, error: float) -> str:
    """The figure as in ``plain``, with its sign."""
    shown = plain(abs(value), error)
    sign = "" if not any(digit in "123456789" for digit in shown) else "+" if value > 0 else _MINUS
    return sign + shown


def shown_change(change: Change, measure: Measure) -> tuple[str, str, str, str]:
    """Before, after, change and its error as a table has them: in cores, or in per cent of all samples."""
    scale, digits = (1.0, 3) if measure is Measure.CORES else (100.0, 2)
    before, after, by, error = (scale * each for each in (change.before, change.after, change.change, change.error))
    text = f"{abs(by):.{digits}f}"
    sign = "" if float(text) == 0 else "+" if by > 0 else _MINUS
    return f"{before:.{digits}f}", f"{after:.{digits}f}", sign + text, f"{_PLUS_MINUS}{error:.{digits}f}"
