"""Segments that are named while the recording goes on, so that a view shows each soon after its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.stacks.profile_builder import SegmentNaming
from pyflame_ebpf.stacks.segments import Segment


class NamedSegments:
    """Profiles of finished segments in their order, each named a little at a time.

    ``begin`` starts the naming of a segment.  What is not named ``within`` so many seconds, or when the next segment
    comes, gets a mark in place of its frames.
    """

    def __init__(
        self,
        begin: Callable[[Segment], SegmentNaming],
        within: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._begin = begin
        self._within = within
        self._monotonic = monotonic
        self._naming: SegmentNaming | None = None
        self._due = 0.0
        self._done: deque[Profile] = deque()

    @property
    def under_way(self) -> bool:
        """Whether a segment is yet to be named."""
        return self._naming is not None

    def add(self, segment: Segment) -> None:
        """Begin to name a segment that the recorder has just handed out."""
        self._finish()
        self._naming = self._begin(segment)
        self._due = self._monotonic() + self._within

    def name(self, seconds: float) -> Profile | None:
        """Name for so long.  Returns the profile of the next segment that is done."""
        if self._naming is not None and (self._naming.name(seconds) or self._monotonic() >= self._due):
            self._finish()
        return self._done.popleft() if self._done else None

    def _finish(self) -> None:
        if self._naming is not None:
            self._done.append(self._naming.profile())
            self._naming = None
