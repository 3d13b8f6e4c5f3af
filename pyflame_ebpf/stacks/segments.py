"""Segments: a recording is a sequence of them, each with the samples of a stretch of time.

``record`` has one segment, ``top`` has one for each second, a recorder without end has longer ones.  Inside a segment
samples are counted by the second and packed by the second.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.sampling.events import Count

FASTEST = 1  # of zlib's levels; slower ones take twice the time for a few per cent of the size
_COUNT = struct.Struct("<IIQBBBBI")


class CountLog:
    """Samples by second, in the order in which they were counted.  ``processes`` may be shared with other logs."""

    def __init__(self, processes: Numbering[Identity]) -> None:
        self._processes = processes
        self._seconds: list[tuple[int, bytes]] = []
        self.size = 0  # bytes, without ``processes``

    def __iter__(self) -> Iterator[tuple[int, Count]]:
        """(second of the recording, samples that were counted together), in the order of time."""
        for second, packed in self._seconds:
            for process, tid, stack_id, outcome, native, gil, kernel_mode, samples in _COUNT.iter_unpack(
                zlib.decompress(packed)
            ):
                identity = self._processes.distinct[process]
                yield second, Count(identity, tid, stack_id, outcome, gil, bool(kernel_mode), native, samples)

    def add(self, second: int, counts: Iterable[Count]) -> None:
        """Keep the samples of one second of the recording."""
        rows = b"".join(
            [
                _COUNT.pack(
                    self._processes[count.identity],
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
            self._seconds.append((second, zlib.compress(rows, FASTEST)))
            self.size += len(self._seconds[-1][1])


@dataclass(slots=True)
class Segment:
    """What was counted between ``begin`` and ``end``, both in seconds of the recording.

    ``counts`` has the samples.  ``counters`` has what each of the programs' counters gained meanwhile.  Both are
    complete, and ``end`` is final, once the recorder hands the segment out.
    """

    begin: float
    end: float
    counts: CountLog
    counters: dict[str, int] = field(default_factory=dict)
