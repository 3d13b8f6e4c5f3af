"""The slots of the programs' map of executable memory, which has room for 1,024 processes."""

from __future__ import annotations

from collections import OrderedDict

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi


class MappingSlots:
    """Which process has which slot; the one that was mapped longest ago loses its slot when there are too many."""

    def __init__(self) -> None:
        self._slots: OrderedDict[Identity, int] = OrderedDict()  # mapped longest ago first
        self._free = list(range(abi.MAPPED_PROCESSES))

    def take(self, identity: Identity) -> tuple[int, Identity | None]:
        """A slot for a process.  Returns its number and the process that has lost it, None if it was free."""
        if identity in self._slots:
            self._slots.move_to_end(identity)
            return self._slots[identity], None
        oldest = None
        if self._free:
            slot = self._free.pop()
        else:
            oldest, slot = self._slots.popitem(last=False)
        self._slots[identity] = slot
        return slot, oldest

    def entry_of(self, identity: Identity) -> int:
        """What a process's entry says of its slot: one more than its number, 0 for none."""
        slot = self._slots.get(identity)
        return 0 if slot is None else slot + 1

    def give_back(self, identity: Identity) -> None:
        """A process has ended."""
        slot = self._slots.pop(identity, None)
        if slot is not None:
            self._free.append(slot)
