"""Takes in what the programs send: stacks, code objects, thread names, samples, each into its store.

Nothing is named here.  What would be gone with its process is read at once, the rest waits.
"""

from __future__ import annotations

from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.events import CodeEvent, Count, StackEvent, native_frames
from pyflame_ebpf.stacks.code_table import CodeTable, ReadMemory
from pyflame_ebpf.stacks.kept_samples import KeptSamples
from pyflame_ebpf.stacks.thread_names import ThreadNames
from pyflame_ebpf.tracking.mishaps import Mishaps
from pyflame_ebpf.unwind.walk import NativeFrame


class Collected:
    """All that was sampled and is kept.  ``read`` reads a process's memory; ``limit`` is that of ``KeptSamples``."""

    def __init__(self, read: ReadMemory, limit: int | None = None, mishaps: Mishaps | None = None) -> None:
        self.codes = CodeTable(read, mishaps=mishaps)
        self.threads = ThreadNames()
        self.kept = KeptSamples(limit)
        self.samples = 0  # since the recording began
        self._early_ends: dict[int, bytes] = {}  # native frames of stacks that are yet to come, by stack id

    def add_code(self, event: CodeEvent, layout: CPythonLayout) -> None:
        """Keep a code object; what the walker could not copy is read from the process now."""
        self.codes.add(event, layout)
        self.kept.add_codes({event.code_id})

    def add_thread(self, identity: Identity, tid: int, name: str) -> None:
        """Keep a thread's name."""
        self.threads.add(identity, tid, name)
        self.kept.add_thread(identity, tid)

    def add_stack(self, event: StackEvent, layout: CPythonLayout | None) -> None:
        """Keep a stack as it came.  ``layout`` is that of the process's interpreter, None if there is none."""
        forgotten = False
        if event.stack_id not in self.kept:
            native = self._early_ends.pop(event.stack_id, b"")
            new = self.kept.add_stack(event.continued(native) if native else event)
            # A code object may have been forgotten here while the programs still took it for known.
            forgotten = any(code_id not in self.codes for code_id in new)
        if self.codes.crowded:
            self.codes.need(event.codes())
        if (event.unsent or forgotten) and layout is not None:
            self.codes.read_later(event, layout)

    def finish_stack(self, stack_id: int, native: list[NativeFrame], outcome: NativeOutcome) -> None:
        """Add the native frames of a stack from where the programs stopped, and how the walk ended at last."""
        self.kept.end_walk(stack_id, outcome)
        raw = native_frames(native)
        if (event := self.kept.stack(stack_id)) is not None:
            self.kept.add_stack(event.continued(raw))
        else:
            self._early_ends[stack_id] = raw

    def settle(self) -> None:
        """Read the code objects that were not sent with their stacks, while their processes live."""
        self.kept.add_codes(self.codes.settle())

    def add_counts(self, second: int, counts: list[Count]) -> None:
        """Add the samples of one second of the recording."""
        self.kept.add_counts(second, counts)
        self.samples += sum(count.samples for count in counts)

    def make_room(self) -> Gone | None:
        """Drop the oldest samples if there are too many; to be called between two segments.

        Returns the threads and code objects that nothing kept refers to any more, None if nothing was dropped.
        """
        gone = self.kept.make_room()
        if gone is not None:
            self._early_ends.clear()
        return gone

    def forget(self, gone: Gone) -> None:
        """Drop the code objects and thread names that are gone."""
        self.codes.forget(gone)
        self.threads.forget(gone)
