"""The samples that are kept: segments, their stacks, and which facts those refer to.

A recording that ends keeps all of its one segment.  A recording without end keeps two generations of segments, each
closed once it takes ``limit`` bytes, and drops the older one then.  A stack that is sampled again moves to the younger
generation, so the dropped stacks are those that nothing sampled since the younger generation began.

Generations change only between segments: a segment is in one generation, with all of its samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyflame_ebpf.forgetting import Gone, ThreadOf
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.events import Count, StackEvent
from pyflame_ebpf.stacks.raw_stacks import INDEX_SIZE, UNPACKED_MAX, RawStacks
from pyflame_ebpf.stacks.segments import CountLog, Segment

UNPACKED_MAX_OF_TWO = 4 << 20  # bytes that each of two generations keeps unpacked: the stacks of some seconds
CODE_SIZE = 1200  # bytes of a code object with its lines, about
PROCESS_SIZE = 300  # bytes that Python takes to number a process


class _Generation:
    """What was kept in a stretch of time."""

    def __init__(self, unpacked_max: int) -> None:
        self.processes: Numbering[Identity] = Numbering()
        self.stacks = RawStacks(self.processes, unpacked_max)
        self.segments: list[Segment] = []
        self.ends: dict[int, NativeOutcome] = {}  # outcome of a native walk that user space finished, by stack id
        self.codes: set[int] = set()  # code objects that came, or that the stacks name
        self.new_codes = 0  # codes that the generation before did not have
        self.threads: set[ThreadOf] = set()  # threads that have samples, or whose names came

    @property
    def size(self) -> int:
        """Memory in bytes, about."""
        names = len(self.ends) + len(self.codes) + len(self.threads)
        counts = sum(segment.counts.size for segment in self.segments)
        processes = PROCESS_SIZE * len(self.processes.distinct)
        return self.stacks.size + counts + processes + INDEX_SIZE * names + CODE_SIZE * self.new_codes


class KeptSamples:
    """Segments and stacks; all of them, or with a ``limit`` in bytes those of two generations."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._unpacked_max = UNPACKED_MAX if limit is None else UNPACKED_MAX_OF_TWO
        self._older = _Generation(self._unpacked_max)
        self._younger = _Generation(self._unpacked_max)

    # ---- segments ----

    def begin_segment(self, begin: float) -> Segment:
        """A new segment, which begins at this second of the recording; samples are added to it from now on."""
        self._younger.segments.append(Segment(begin, begin, CountLog(self._younger.processes)))
        return self._younger.segments[-1]

    @property
    def segments(self) -> list[Segment]:
        """The kept segments in the order of time; the last one may still grow."""
        return self._older.segments + self._younger.segments

    def add_counts(self, second: int, counts: list[Count]) -> None:
        """Add the samples of one second of the recording to the last segment."""
        self._younger.segments[-1].counts.add(second, counts)
        if self._limit is not None:
            self._younger.threads.update((count.identity, count.tid) for count in counts)
            for count in counts:
                self._rejuvenate(count.stack_id)

    def _rejuvenate(self, stack_id: int) -> None:
        if stack_id not in self._younger.stacks and (event := self._older.stacks.get(stack_id)) is not None:
            self.add_stack(event)
        if stack_id in self._older.ends:
            self._younger.ends.setdefault(stack_id, self._older.ends[stack_id])

    # ---- stacks ----

    def __contains__(self, stack_id: int) -> bool:
        """Whether a stack is kept."""
        return stack_id in self._younger.stacks or stack_id in self._older.stacks

    def add_stack(self, event: StackEvent) -> set[int]:
        """Keep a stack.  Returns the ids of its code objects that neither generation held; empty without a limit."""
        self._younger.stacks.add(event)
        return set() if self._limit is None else self.add_codes(event.codes())

    def stack(self, stack_id: int) -> StackEvent | None:
        """A stack by its id, None if it never came or was dropped."""
        return self._younger.stacks.get(stack_id) or self._older.stacks.get(stack_id)

    def stacks(self) -> Iterator[StackEvent]:
        """All kept stacks, in no order."""
        yield from self._younger.stacks
        yield from (event for event in self._older.stacks if event.stack_id not in self._younger.stacks)

    def missing(self, counts: Iterable[Count]) -> set[int]:
        """The ids of stacks that these samples have and that are not kept."""
        return {count.stack_id for count in counts if count.stack_id not in self}

    def end_walk(self, stack_id: int, outcome: NativeOutcome) -> None:
        """Record how a native walk ended that user space finished."""
        self._younger.ends[stack_id] = outcome

    def end_of_walk(self, stack_id: int) -> NativeOutcome | None:
        """How the native walk of a stack ended, if user space finished it."""
        return self._younger.ends.get(stack_id) or self._older.ends.get(stack_id)

    # ---- what the samples refer to ----

    def add_codes(self, codes: set[int]) -> set[int]:
        """Record that these code ids are in use.

        Returns the ids that neither generation held before; empty without a limit.
        """
        if self._limit is None:
            return set()
        new = codes - self._younger.codes
        self._younger.codes |= new
        new -= self._older.codes
        self._younger.new_codes += len(new)
        return new

    def add_thread(self, identity: Identity, tid: int) -> None:
        """Record that a thread's name came."""
        if self._limit is not None:
            self._younger.threads.add((identity, tid))

    @property
    def identities(self) -> set[Identity]:
        """The processes that have kept stacks or samples."""
        return {*self._older.processes.distinct, *self._younger.processes.distinct}

    @property
    def size(self) -> int:
        """Memory in bytes, about."""
        return self._older.size + self._younger.size

    def make_room(self) -> Gone | None:
        """Drop the older generation once the younger has reached the limit.  To be called between two segments.

        Returns the threads and code objects that nothing kept refers to any more, None if nothing was dropped.
        """
        if self._limit is None or self._younger.size < self._limit:
            return None
        dropped, self._older, self._younger = self._older, self._younger, _Generation(self._unpacked_max)
        self._older.stacks.pack()
        return Gone(threads=dropped.threads - self._older.threads, codes=dropped.codes - self._older.codes)
