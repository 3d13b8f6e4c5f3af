"""Names of the sampled threads."""

from __future__ import annotations

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity


class ThreadNames:
    """The name of each thread, as the kernel had it when the thread was first sampled."""

    def __init__(self) -> None:
        self._names: dict[Identity, dict[int, str]] = {}

    def add(self, identity: Identity, tid: int, name: str) -> None:
        """Keep a thread's name."""
        self._names.setdefault(identity, {})[tid] = name

    def get(self, identity: Identity, tid: int) -> str:
        """A thread's name, "" where it is not known."""
        return self._names.get(identity, {}).get(tid, "")

    def forget(self, gone: Gone) -> None:
        """Drop the threads that are gone, and all threads of the processes that are."""
        for identity in gone.processes:
            self._names.pop(identity, None)
        for identity, tid in gone.threads:
            if (names := self._names.get(identity)) is not None:
                names.pop(tid, None)
                if not names:
                    del self._names[identity]
