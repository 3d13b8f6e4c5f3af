"""Stacks as the programs sent them, packed until they are to be named.

Naming waits, and most samples are new stacks: unpacked, those of 64 busy CPUs would fill 500 MB a minute.  Stacks of
one process are much alike, so they are sorted and compressed in small blocks.  With the index they take a third.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.sampling.events import StackEvent
from pyflame_ebpf.stacks.segments import FASTEST

WAITING_MAX = 2048  # stacks that are sorted and packed together: those of each process side by side, by their callers
WAITING_BYTES = 2 << 20
BLOCK_STACKS = 32  # a block is unpacked in 70 us; zlib looks back for 32 KiB, so fewer stacks would pack worse
BLOCK_BYTES = 64 << 10
UNPACKED_MAX = 16 << 20  # bytes of blocks that are kept unpacked
INDEX_SIZE = 120  # bytes that Python takes to find one stack
STACK_SIZE = 250  # bytes that Python takes for an unpacked stack, besides its frames

_STACK = struct.Struct("<QIII")  # id, number of the process, whether code objects may be unsent, bytes of frames


class RawStacks:
    """Stacks by id.  A stack that is added again replaces the earlier one with its id.

    ``processes`` numbers the processes of all added stacks and may be shared.
    """

    def __init__(self, processes: Numbering[Identity], unpacked_max: int = UNPACKED_MAX) -> None:
        self._processes = processes
        self._waiting: dict[int, StackEvent] = {}
        self._waiting_bytes = 0
        self._blocks: list[bytes] = []
        self._block_of: dict[int, int] = {}
        self._unpacked: dict[int, dict[int, StackEvent]] = {}  # blocks by number, the longest unpacked first
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
        """Memory in bytes, about; without ``processes``."""
        waiting = self._waiting_bytes + (INDEX_SIZE + STACK_SIZE) * len(self._waiting)
        return self._packed_bytes + waiting + self._unpacked_bytes + INDEX_SIZE * len(self._block_of)

    def add(self, event: StackEvent) -> None:
        """Keep a stack."""
        self._processes[event.identity]
        self._waiting[event.stack_id] = event
        self._waiting_bytes += len(event.raw)
        if len(self._waiting) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES:
            self._pack_waiting()

    def get(self, stack_id: int) -> StackEvent | None:
        """A stack by its id, None if it was not added."""
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
        """Drop the blocks that are kept unpacked."""
        self._unpacked.clear()
        self._unpacked_bytes = 0

    def _unpack(self, number: int) -> list[StackEvent]:
        data = zlib.decompress(self._blocks[number])
        events = []
        at = 0
        while at < len(data):
            stack_id, process, unsent, size = _STACK.unpack_from(data, at)
            at += _STACK.size + size
            events.append(StackEvent(self._processes.distinct[process], stack_id, bool(unsent), data[at - size : at]))
        return events

    def _pack_waiting(self) -> None:
        parts: list[bytes] = []
        size = 0
        for event in sorted(self._waiting.values(), key=_process_and_callers):
            process = self._processes[event.identity]
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
        self._blocks.append(zlib.compress(b"".join(parts), FASTEST))
        self._packed_bytes += len(self._blocks[-1])


def _process_and_callers(event: StackEvent) -> tuple[int, int, int, bytes]:
    """Sort key that puts similar stacks side by side: the process, the length, and the outer half of the frames."""
    return event.identity.start, event.identity.tgid, len(event.raw), event.raw[len(event.raw) // 2 :]


def _unpacked_size(events: Iterable[StackEvent]) -> int:
    return sum(len(event.raw) + STACK_SIZE for event in events)
