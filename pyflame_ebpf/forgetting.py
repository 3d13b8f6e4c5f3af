"""How the stores of a recording without end forget together.

Facts cross from the kernel once: a code object, a thread's name, a stack.  User space keeps them in several stores, and
the BPF programs remember what they have sent.  ``stacks.kept_samples`` decides what is kept.  When it drops its oldest
samples, the recorder makes one ``Gone`` of what nothing kept refers to any more, and hands it to each store.

The rule: whatever holds a fact by process, thread, code object or stack for longer than one segment implements
``Forgets``.  It drops what ``Gone`` names and nothing else, and takes ids that it never had.  The BPF maps implement it
too, so a forgotten fact is sent again when it is sampled again.  A cache whose entries can be made again from a store
bounds its own size.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from pyflame_ebpf.identity import Identity

ThreadOf = tuple[Identity, int]  # a process and the TID of one of its threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """What nothing that is kept refers to any more.

    ``processes`` have ended.  ``codes`` are ids of code objects.  ``stacks`` are ids of stacks that were just sampled
    but are not kept, because they were dropped earlier or never arrived.
    """

    processes: AbstractSet[Identity] = frozenset()
    threads: AbstractSet[ThreadOf] = frozenset()
    codes: AbstractSet[int] = frozenset()
    stacks: AbstractSet[int] = frozenset()


class Forgets(Protocol):
    """A store that several of a recording's samples refer to."""

    def forget(self, gone: Gone, /) -> None:
        """Drop everything that ``gone`` names."""
