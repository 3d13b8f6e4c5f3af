"""Stacks as the programs sent them, packed until they are to be named, with the samples that were counted by them.

Naming waits until the end, and most samples are new stacks: as they come, 64 busy CPUs would fill 500 MB a minute.
Stacks of one process are much alike, so some that lie side by side pack well: with all that finds them they take a
third.  A live view has no end: what is kept for it is bounded, and the oldest makes room, with the code objects and
threads that only it had.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.events import Count, StackEvent

WAITING_MAX = 2048  # stacks that are packed together, those of each process side by side, by their callers
WAITING_BYTES = 2 << 20
BLOCK_STACKS = 32  # unpacked together, in 70 us; zlib looks back for 32 KiB, fewer stacks would pack worse
BLOCK_BYTES = 64 << 10
UNPACKED_MAX = 16 << 20  # bytes of blocks that are at hand
UNPACKED_MAX_LIVE = 4 << 20  # the same of each generation of a live view: the stacks of some seconds
INDEX_SIZE = 120  # bytes that Python takes to find one stack
STACK_SIZE = 250  # bytes that Python takes for one that is not packed, besides its frames
CODE_SIZE = 1200  # bytes of a code object with its lines, about
KEPT_FOR_SAVING = 64 << 20  # bytes of each of the two generations of a live view
_FASTEST = 1  # of zlib's levels; the others take twice as long for a few per cent

_STACK = struct.Struct("<QIII")  # id, number of the process, whether code objects may be unsent, bytes of frames
_COUNT = struct.Struct("<IIQBBBBI")


ThreadOf = tuple[Identity, int]  # a process, and the number of one of its threads


class _Identities:
    """Processes by number, each kept once."""

    def __init__(self) -> None:
        self.all: list[Identity] = []
        self._numbers: dict[Identity, int] = {}

    def number(self, identity: Identity) -> int:
        number = self._numbers.setdefault(identity, len(self.all))
        if number == len(self.all):
            self.all.append(identity)
        return number


class RawStacks:
    """Stacks by id; a stack that is added again takes the other's place."""

    def __init__(self, unpacked_max: int = UNPACKED_MAX) -> None:
        self._waiting: dict[int, StackEvent] = {}
        self._waiting_bytes = 0
        self._blocks: list[bytes] = []
        self._block_of: dict[int, int] = {}
        self._identities = _Identities()
        self._unpacked: dict[int, dict[int, StackEvent]] = {}  # some blocks
        self._unpacked_bytes = 0
        self._unpacked_max = unpacked_max
        self._packed_bytes = 0

    def __contains__(self, stack_id: int) -> bool:
        """Whether a stack was added."""
        return stack_id in self._waiting or stack_id in self._block_of

    def __iter__(self) -> Iterator[StackEvent]:
        """All stacks, in no order; one block of them is unpacked at a time."""
        for number in range(len(self._blocks)):
            for event in self._unpack(number):
                if self._block_of.get(event.stack_id) == number and event.stack_id not in self._waiting:
                    yield event
        yield from list(self._waiting.values())

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        waiting = self._waiting_bytes + (INDEX_SIZE + STACK_SIZE) * len(self._waiting)
        return self._packed_bytes + waiting + self._unpacked_bytes + INDEX_SIZE * len(self._block_of)

    @property
    def identities(self) -> set[Identity]:
        """The processes that have stacks here."""
        return {*self._identities.all, *(event.identity for event in self._waiting.values())}

    def add(self, event: StackEvent) -> None:
        """Keeps a stack."""
        self._waiting[event.stack_id] = event
        self._waiting_bytes += len(event.raw)
        if len(self._waiting) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES:
            self._pack_waiting()

    def get(self, stack_id: int) -> StackEvent | None:
        """A stack; None for one that was not added."""
        event = self._waiting.get(stack_id)
        if event is not None:
            return event
        number = self._block_of.get(stack_id)
        return None if number is None else self._block(number).get(stack_id)

    def _block(self, number: int) -> dict[int, StackEvent]:
        block = self._unpacked.get(number)
        if block is None:
            block = self._unpacked[number] = {event.stack_id: event for event in self._unpack(number)}
            self._unpacked_bytes += _unpacked_size(block.values())
            while self._unpacked_bytes > self._unpacked_max and len(self._unpacked) > 1:
                oldest = self._unpacked.pop(next(iter(self._unpacked)))
                self._unpacked_bytes -= _unpacked_size(oldest.values())
        return block

    def pack(self) -> None:
        """Lets go of what is at hand unpacked."""
        self._unpacked.clear()
        self._unpacked_bytes = 0

    def _unpack(self, number: int) -> list[StackEvent]:
        data = zlib.decompress(self._blocks[number])
        events = []
        at = 0
        while at < len(data):
            stack_id, process, unsent, size = _STACK.unpack_from(data, at)
            at += _STACK.size + size
            events.append(StackEvent(self._identities.all[process], stack_id, bool(unsent), data[at - size : at]))
        return events

    def _pack_waiting(self) -> None:
        parts: list[bytes] = []
        size = 0
        for event in sorted(self._waiting.values(), key=_process_and_callers):
            process = self._identities.number(event.identity)
            parts += (_STACK.pack(event.stack_id, process, event.unsent, len(event.raw)), event.raw)
            size += len(event.raw)
            self._block_of[event.stack_id] = len(self._blocks)
            if len(parts) >= 2 * BLOCK_STACKS or size >= BLOCK_BYTES:
                self._add_block(parts)
                parts, size = [], 0
        if parts:
            self._add_block(parts)
        self._waiting = {}
        self._waiting_bytes = 0

    def _add_block(self, parts: list[bytes]) -> None:
        self._blocks.append(zlib.compress(b"".join(parts), _FASTEST))
        self._packed_bytes += len(self._blocks[-1])


def _process_and_callers(event: StackEvent) -> tuple[int, int, int, bytes]:
    """What stacks that are much alike have nearly the same: the frames from the middle on are of the callers."""
    return event.identity.start, event.identity.tgid, len(event.raw), event.raw[len(event.raw) // 2 :]


def _unpacked_size(events: Iterable[StackEvent]) -> int:
    return sum(len(event.raw) + STACK_SIZE for event in events)


class CountLog:
    """Samples by second as they were counted, packed by the second."""

    def __init__(self) -> None:
        self._seconds: list[tuple[int, bytes]] = []
        self._identities = _Identities()
        self.size = 0

    def __iter__(self) -> Iterator[tuple[int, Count]]:
        """(second, samples that were counted together), in the order of time."""
        for second, packed in self._seconds:
            for process, tid, stack_id, outcome, native, gil, kernel_mode, samples in _COUNT.iter_unpack(
                zlib.decompress(packed)
            ):
                identity = self._identities.all[process]
                yield second, Count(identity, tid, stack_id, outcome, gil, bool(kernel_mode), native, samples)

    @property
    def identities(self) -> set[Identity]:
        """The processes that have samples here."""
        return set(self._identities.all)

    def add(self, second: int, counts: Iterable[Count]) -> None:
        """Keeps the samples of one second."""
        rows = b"".join(
            [
                _COUNT.pack(
                    self._identities.number(count.identity),
                    count.tid,
                    count.stack_id,
                    count.outcome,
                    count.native,
                    count.gil,
                    count.kernel_mode,
                    count.samples,
                )
                for count in counts
            ]
        )
        if rows:
            self._seconds.append((second, zlib.compress(rows, _FASTEST)))
            self.size += len(self._seconds[-1][1])


class _Generation:
    """What was kept in a stretch of time."""

    def __init__(self, unpacked_max: int) -> None:
        self.stacks = RawStacks(unpacked_max)
        self.counts = CountLog()
        self.ends: dict[int, NativeOutcome] = {}  # of native walks that were finished later, by stack
        self.codes: set[int] = set()  # that came or that its stacks name
        self.new_codes = 0  # of these, those that the generation before did not have
        self.threads: set[ThreadOf] = set()

    @property
    def size(self) -> int:
        names = len(self.ends) + len(self.codes) + len(self.threads)
        return self.stacks.size + self.counts.size + INDEX_SIZE * names + CODE_SIZE * self.new_codes


class SampleStore:
    """Stacks and samples; with a ``limit`` in bytes, those of two generations, each of which ends when it is as large.

    A stack of the older generation that is sampled again moves to the younger: what goes with the older one was not
    sampled since the younger began, and the samples that had it go too.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._unpacked_max = UNPACKED_MAX if limit is None else UNPACKED_MAX_LIVE
        self._older = _Generation(self._unpacked_max)
        self._younger = _Generation(self._unpacked_max)
        self._younger_begins = 0
        self.begin = 0  # seconds into the recording, from where on all samples are here

    def __contains__(self, stack_id: int) -> bool:
        """Whether a stack is here."""
        return stack_id in self._younger.stacks or stack_id in self._older.stacks

    def add_stack(self, event: StackEvent) -> set[int]:
        """Keeps a stack, in place of the one with its id; the code objects that, in a live view, it names first."""
        self._younger.stacks.add(event)
        return set() if self._limit is None else self.add_codes(event.codes())

    def add_codes(self, codes: set[int]) -> set[int]:
        """Notes code objects that came or that are named; which of them neither generation had."""
        if self._limit is None:
            return set()
        new = codes - self._younger.codes
        self._younger.codes |= new
        new -= self._older.codes
        self._younger.new_codes += len(new)
        return new

    def add_thread(self, identity: Identity, tid: int) -> None:
        """Notes a thread whose name came."""
        if self._limit is not None:
            self._younger.threads.add((identity, tid))

    @property
    def codes(self) -> set[int]:
        """Code objects that came or were named since the older generation began."""
        return self._older.codes | self._younger.codes

    @property
    def threads(self) -> set[ThreadOf]:
        """Threads whose names came or that have samples since the older generation began."""
        return self._older.threads | self._younger.threads

    def stack(self, stack_id: int) -> StackEvent | None:
        """A stack by its id; None for one that never came, or went."""
        return self._younger.stacks.get(stack_id) or self._older.stacks.get(stack_id)

    def stacks(self) -> Iterator[StackEvent]:
        """All stacks."""
        yield from self._younger.stacks
        yield from (event for event in self._older.stacks if event.stack_id not in self._younger.stacks)

    def end_walk(self, stack_id: int, outcome: NativeOutcome) -> None:
        """Notes how a native walk ended that was finished later."""
        self._younger.ends[stack_id] = outcome

    def end_of_walk(self, stack_id: int) -> NativeOutcome | None:
        """How the native walk of a stack ended, if it was finished later."""
        return self._younger.ends.get(stack_id) or self._older.ends.get(stack_id)

    def add_counts(self, second: int, counts: list[Count]) -> None:
        """Keeps the samples of one second of the recording."""
        self._younger.counts.add(second, counts)
        if self._limit is not None:
            self._younger.threads.update((count.identity, count.tid) for count in counts)
            for count in counts:
                self._rejuvenate(count.stack_id)

    def _rejuvenate(self, stack_id: int) -> None:
        if stack_id not in self._younger.stacks and (event := self._older.stacks.get(stack_id)) is not None:
            self.add_stack(event)
        if stack_id in self._older.ends:
            self._younger.ends.setdefault(stack_id, self._older.ends[stack_id])

    def counts(self) -> Iterator[tuple[int, Count]]:
        """(second, samples that were counted together), in the order of time."""
        yield from self._older.counts
        yield from self._younger.counts

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return self._older.size + self._younger.size

    @property
    def identities(self) -> set[Identity]:
        """The processes that have stacks or samples here."""
        generations = (self._older, self._younger)
        return {
            identity
            for generation in generations
            for part in (generation.stacks, generation.counts)
            for identity in part.identities
        }

    def make_room(self, second: int) -> bool:
        """Lets the older generation go if the younger has grown to its limit before this second; whether it has."""
        if self._limit is None or self._younger.size < self._limit:
            return False
        self._older, self._younger = self._younger, _Generation(self._unpacked_max)
        self._older.stacks.pack()
        self.begin, self._younger_begins = self._younger_begins, second
        return True
