"""Cuts a recording into segments while it goes on, and lets all stores forget what no kept segment refers to.

Once a second the programs' counts are moved to the segment that grows.  ``forgetting`` has the rule for the stores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pyflame_ebpf.forgetting import Forgets, Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.segments import Segment

DRAIN = 1.0  # seconds of samples that are counted together

EndedBut = Callable[[set[Identity]], set[Identity]]  # the processes that have ended, without these


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """How a recording is cut into segments, and how much of it is kept.

    A segment ends at the first drain after a multiple of ``length`` seconds; without a length there is one segment.
    ``kept`` is the size in bytes of each of the two generations of samples that are kept, None: all samples are.
    """

    length: float = math.inf
    kept: int | None = None

    @property
    def named_meanwhile(self) -> bool:
        """Whether segments end, and so are named, while the recording goes on."""
        return math.isfinite(self.length)


WHOLE = SegmentPlan()  # one segment, all of which is kept


class Counting(Protocol):
    """The programs that count samples."""

    def drain_counts(self) -> list[Count]:
        """Take the samples counted since the last call."""

    def counters(self) -> dict[str, int]:
        """The programs' counters since they were loaded."""


class Segments:
    """The segments of a recording under way.  Times are in seconds since the first tick.

    ``ended_but`` tells which processes have ended.  ``stores`` are told what nothing kept refers to any more.
    """

    def __init__(
        self,
        plan: SegmentPlan,
        collected: Collected,
        counting: Counting,
        ended_but: EndedBut,
        stores: Sequence[Forgets],
    ) -> None:
        self._plan = plan
        self._collected = collected
        self._counting = counting
        self._ended_but = ended_but
        self._stores = stores
        self._totals: dict[str, int] = {}  # counters at the last drain
        self._totals_before: dict[str, int] = {}  # ... and when the segment began
        self._drained = 0.0
        self._current = collected.kept.begin_segment(0.0)

    @property
    def kept(self) -> list[Segment]:
        """The segments that are kept, in the order of time; the last one grows."""
        return self._collected.kept.segments

    def until_drain(self, now: float) -> float:
        """Seconds until the next drain is due."""
        return 0.0 if self.is_drain_due(now) else DRAIN - now % DRAIN

    def is_drain_due(self, now: float) -> bool:
        """True when a new whole second has begun since the last drain."""
        return now // DRAIN > self._drained // DRAIN

    def drain(self, now: float) -> None:
        """Move what was counted since the last drain to the segment, as of the second in which that drain was."""
        counts = self._drain_as_of(int(self._drained))
        self._drained = self._current.end = now
        if self._plan.kept is not None and (missing := self._collected.kept.missing(counts)):
            self._forget(Gone(stacks=missing))

    def drain_last(self, end: float) -> Segment:
        """Move all that is left to the last segment, whose end is that of the sampling.  Returns the segment."""
        second = min(int(self._drained), max(0, math.ceil(end) - 1))
        for _ in range(2):  # the programs have two maps of counts
            self._drain_as_of(second)
        self._current.end = end
        return self._current

    def _drain_as_of(self, second: int) -> list[Count]:
        counts = self._counting.drain_counts()
        self._collected.add_counts(second, counts)
        codes = self._collected.codes
        self._totals = self._counting.counters() | {
            "codes_unnamed": codes.unnamed,
            "codes_without_lines": codes.without_lines,
            "codes_given_up": codes.given_up,
            "line_tables_given_up": codes.lines_given_up,
        }
        self._current.counters = {
            name: number - self._totals_before.get(name, 0) for name, number in self._totals.items()
        }
        return counts

    def next(self) -> Segment | None:
        """The segment that has ended by the last drain, None if it goes on.  Bounds what is kept of those before."""
        ended = self._current
        if ended.end // self._plan.length == ended.begin // self._plan.length:
            return None
        if (gone := self._collected.make_room()) is not None:
            self._forget(replace(gone, processes=self._ended_but(self._collected.kept.identities)))
        self._totals_before = self._totals
        self._current = self._collected.kept.begin_segment(ended.end)
        return ended

    def _forget(self, gone: Gone) -> None:
        for store in self._stores:
            store.forget(gone)
