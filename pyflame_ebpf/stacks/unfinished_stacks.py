"""Native walks that the programs broke off for lack of a mapping or of unwind rows, finished from copies of the stacks.

So the first samples of a process and of every code page are whole too.  Each finished walk also brings the rows of all
of its pages to the BPF programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.events import StackCopyEvent
from pyflame_ebpf.tracking.mishaps import Mishaps
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import UnwindRow
from pyflame_ebpf.unwind.walk import NativeFrame, RowAt, StackMemory, WalkStopped, walk

TRIES = 3  # of one walk: mappings, or the rest of the stack's memory, may be yet to come
FAILURES_MAX = 32  # failed walks of a process in a row; from then on its stacks are not copied
WALK_MAX = 0.5  # seconds of one walk; most take milliseconds, but unwind data may be made to take long
BYTES_MAX = 64 << 20  # of copies that are kept at the same time
WHOLE_COPY = 31 << 12  # bytes; a copy at least this long stopped at the copy limit, not at the end of the stack

RowsOf = Callable[[Identity], RowAt]
Finished = Callable[[int, list[NativeFrame], NativeOutcome], None]
GiveUp = Callable[[Identity], None]


def _in_time(row_at: RowAt) -> RowAt:
    """The rows of one walk, which stops as too deep after WALK_MAX seconds, for nothing else is taken in meanwhile."""
    end = time.monotonic() + WALK_MAX

    def row_in_time(address: int) -> UnwindRow | None:
        if time.monotonic() >= end:
            raise WalkStopped(NativeOutcome.TOO_DEEP)
        return row_at(address)

    return row_in_time


@dataclass(slots=True)
class _Copy:
    """The memory of one stack from ``start`` on, and how often its walk was tried."""

    identity: Identity
    registers: Registers
    start: int
    parts: list[bytes] = field(default_factory=list)
    tries: int = 0

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


class UnfinishedStacks:
    """Collects copies of stacks and walks them.

    ``rows_of`` gives a process's rows by address.  ``finished`` takes a stack's id, its frames from the one where the
    programs stopped, and the outcome.  ``give_up`` is told each process whose stacks are no longer to be copied.
    """

    def __init__(self, rows_of: RowsOf, finished: Finished, give_up: GiveUp, mishaps: Mishaps | None = None) -> None:
        self._mishaps = mishaps or Mishaps()
        self._rows_of = rows_of
        self._finished = finished
        self._give_up = give_up
        self._copies: dict[int, _Copy] = {}
        self._bytes = 0
        self._failures: dict[Identity, int] = {}

    def add(self, event: StackCopyEvent) -> None:
        """Keep a stack's memory, or the next part of it."""
        copy = self._copies.get(event.stack_id)
        if copy is None:
            # A part that does not begin at the stack pointer belongs to a stack whose walk is finished already.
            if self._bytes > BYTES_MAX or event.start > event.registers.sp:
                return
            copy = self._copies[event.stack_id] = _Copy(event.identity, event.registers, event.start)
        if event.start == copy.start + copy.size:
            copy.parts.append(event.memory)
            self._bytes += len(event.memory)

    def finish(self, seconds: float) -> bool:
        """Walk each stack once, for so long at the most.  Returns whether the time was too short."""
        end = time.monotonic() + seconds
        for stack_id, copy in list(self._copies.items()):
            if time.monotonic() >= end:
                return True
            try:
                self._walk(stack_id, copy)
            except Exception as error:  # noqa: BLE001 - one process's defect costs that process alone
                self._mishaps.defect(error, copy.identity)
                self._drop(stack_id)
        return False

    def finish_all(self, seconds: float) -> None:
        """Walk all that is left for the last time, for so long at the most.

        A process can make its stacks slow to walk.  Stacks for which there is no time stay as the programs sent them.
        """
        for copy in self._copies.values():
            copy.tries = TRIES
        self.finish(seconds)
        self._copies.clear()
        self._bytes = 0

    def _walk(self, stack_id: int, copy: _Copy) -> None:
        memory = StackMemory(copy.start, b"".join(copy.parts))
        frames, outcome = walk(copy.registers, memory, _in_time(self._rows_of(copy.identity)))
        if outcome is NativeOutcome.UNREADABLE and copy.size >= WHOLE_COPY:
            outcome = NativeOutcome.TOO_DEEP
        copy.tries += 1
        if not outcome.cut_short:
            self._failures.pop(copy.identity, None)
        elif copy.tries < TRIES:
            return
        else:
            self._count_failure(copy.identity)
        self._drop(stack_id)
        self._finished(stack_id, frames, outcome)

    def _drop(self, stack_id: int) -> None:
        if (copy := self._copies.pop(stack_id, None)) is not None:
            self._bytes -= copy.size

    def forget(self, gone: Gone) -> None:
        """Drop the processes that are gone."""
        for identity in gone.processes:
            self._failures.pop(identity, None)

    def _count_failure(self, identity: Identity) -> None:
        failures = self._failures[identity] = self._failures.get(identity, 0) + 1
        if failures == FAILURES_MAX:
            self._give_up(identity)
