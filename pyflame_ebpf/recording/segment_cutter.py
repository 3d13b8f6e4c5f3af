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
from pyflame_ebpf.sampling.counts import COUNTS, SETTLING
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.segments import Segment

DRAIN = 1.0  # seconds of samples that are counted together

EndedBut = Callable[[set[Identity]], set[Identity]]  # the processes that have ended, without these


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """How a recording is cut into segments, and how much of it is kept.

    A segment ends at the first flip of counts after a multiple of ``length`` seconds; without one there is one segment.
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

    def flip_counts(self) -> None:
        """Count samples apart from those before, which can be taken ``SETTLING`` seconds later."""

    def take_counts(self) -> list[Count]:
        """Take the samples counted between the last two flips."""

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
        self._totals: dict[str, int] = {}  # counters at the last flip whose samples were taken
        self._totals_before: dict[str, int] = {}  # ... and when the segment began
        self._at_flip: dict[str, int] = {}
        self._flipped: float | None = None  # when those counts were set apart that are yet to be taken
        self._drained = 0.0  # when those counts were set apart that were taken last
        self._current = collected.kept.begin_segment(0.0)

    @property
    def kept(self) -> list[Segment]:
        """The segments that are kept, in the order of time; the last one grows."""
        return self._collected.kept.segments

    def until_due(self, now: float) -> float:
        """Seconds until ``advance`` has something to do."""
        return max(0.0, self._due - now)

    @property
    def _due(self) -> float:
        """When counts are to be set apart next, or taken.

        A second that has begun meanwhile is waited for no longer than the counts of the last need to settle.
        """
        return DRAIN * (self._drained // DRAIN + 1) if self._flipped is None else self._flipped + SETTLING

    def advance(self, now: float) -> bool:
        """Set the counts of a second apart once it is over, and take them once no tick can add to them any more.

        Returns whether counts were taken.  They are of the second in which the flip before theirs was.
        """
        if now < self._due:
            return False
        if self._flipped is None:
            self._counting.flip_counts()
            self._at_flip = self._counting.counters()
            self._flipped = now
            return False
        counts = self._take_as_of(int(self._drained), self._at_flip)
        self._drained = self._current.end = self._flipped
        self._flipped = None
        if self._plan.kept is not None and (missing := self._collected.kept.missing(counts)):
            self._forget(Gone(stacks=missing))
        return True

    def drain_last(self, end: float) -> Segment:
        """Move all that is left to the last segment, whose end is that of the sampling.  Returns the segment.

        To be called ``SETTLING`` seconds after the last tick.
        """
        if self._flipped is not None:
            self._take_as_of(self._second_before(self._drained, end), self._at_flip)
            self._drained = self._flipped
        for _ in COUNTS:  # the second is empty, unless a tick took longer than counts need to settle
            self._counting.flip_counts()
            self._take_as_of(self._second_before(self._drained, end), self._counting.counters())
        self._current.end = end
        return self._current

    @staticmethod
    def _second_before(moment: float, end: float) -> int:
        """The second in which a moment is, or the recording's last one if that is earlier."""
        return min(int(moment), max(0, math.ceil(end) - 1))

    def _take_as_of(self, second: int, counters: dict[str, int]) -> list[Count]:
        counts = self._counting.take_counts()
        self._collected.add_counts(second, counts)
        codes = self._collected.codes
        self._totals = counters | {
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
        """The segment that has ended by now, None if it goes on.  Bounds what is kept of those before.

        To be called when counts were taken.
        """
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
