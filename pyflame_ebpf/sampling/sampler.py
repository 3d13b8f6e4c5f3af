"""Samples every CPU: programs, clock and maps in one, from loading to unloading."""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
from typing import Any

from pyflame_ebpf.profile.model import NANOSECONDS
from pyflame_ebpf.sampling.clock import CpuClock
from pyflame_ebpf.sampling.counts import SampleCounts, read_counters
from pyflame_ebpf.sampling.events import Count, Event, parse_record
from pyflame_ebpf.sampling.maps import ByteTables, ProgramMaps
from pyflame_ebpf.sampling.programs import Programs, SamplerOptions
from pyflame_ebpf.sampling.settings import ProgramSettings

RECORDS = 2000  # that one poll reads; they are taken in within some 0.1 s
READING = 0.05  # seconds that one poll reads for, once it has waited; long stacks take 0.1 ms each

__all__ = ["Sampler", "SamplerOptions"]


class Sampler(contextlib.AbstractContextManager["Sampler"]):
    """The loaded programs, which sample between ``start`` and ``stop``; leaving the context unloads them.

    ``maps`` is what the programs are told.
    """

    def __init__(self, options: SamplerOptions) -> None:
        self._programs = Programs(options)
        self._bpf = self._programs.bpf
        self.maps = ProgramMaps(self._bpf)
        self._settings = ProgramSettings(ByteTables(self._bpf), options.frequency, options.share)
        self._clock = CpuClock(self._settings.period, self._programs.tick)
        self._counts = SampleCounts(self._bpf, self._settings)
        self._records: list[bytes] = []
        self._taken_by = 0.0  # when the poll under way is to end, in seconds of the monotonic clock
        for ring in (b"records", b"copies"):
            self._bpf[ring].open_ring_buffer(self._keep_record)

    def __exit__(self, *_: object) -> None:
        """Detach and unload everything."""
        self.close()

    def start(self, duration: float | None = None) -> None:
        """Begin to sample every CPU that is online.

        After ``duration`` seconds the programs sample nothing any more, whether or not user space gets to ``stop``.
        """
        if duration is not None:
            self._settings.end_at(time.monotonic_ns() + math.ceil(duration * NANOSECONDS))
        self._clock.follow_cpus()

    def tick_for(self, ticks: int) -> None:
        """Slow the clock down, so that each of its ticks stands for so many of the frequency and counts as many."""
        with self._clock.stopped():
            self._settings.tick_for(ticks)
            self._clock.set_period(self._settings.period)

    def attach_new_cpus(self) -> None:
        """Begin to sample CPUs that have come online since."""
        self._clock.follow_cpus()

    def stop(self) -> None:
        """End the sampling; counts and records can still be taken."""
        self._clock.stop()

    def let_go(self) -> None:
        """Close clock and tracepoints, for a forked copy of this process, which only reads maps.

        The process that it was forked from goes on sampling.
        """
        self._clock.let_go()
        self._programs.detach()

    def close(self) -> None:
        """Detach and unload everything."""
        self.stop()
        self._programs.unload()

    def _keep_record(self, _context: Any, data: Any, size: int) -> int:
        """Keep a copy of a record.  Returns -1 after the last one of a poll: no other is read then."""
        self._records.append(ctypes.string_at(data, size))
        return -1 if self._is_full() else 0

    def _is_full(self) -> bool:
        return len(self._records) >= RECORDS or time.monotonic() >= self._taken_by

    def poll(self, timeout_ms: int) -> list[Event]:
        """Events since the last call, in the order of their records; waits so long for an urgent one.

        Those of ``RECORDS`` records at the most, read in ``READING`` seconds; the others wait for the next call.
        """
        self._taken_by = time.monotonic() + timeout_ms / 1000 + READING
        self._bpf.ring_buffer_poll(timeout_ms)
        if not self._is_full():
            self._bpf.ring_buffer_consume()
        records, self._records = self._records, []
        return [parse_record(record) for record in records]

    def flip_counts(self) -> None:
        """Count samples apart from those before, which can be taken ``SETTLING`` seconds later."""
        self._counts.flip()

    def take_counts(self) -> list[Count]:
        """Take the samples counted between the last two flips."""
        return self._counts.take()

    def counters(self) -> dict[str, int]:
        """The programs' counters by name, summed over CPUs."""
        return read_counters(self._bpf[b"counters"])

    def program_fds(self) -> list[int]:
        """File descriptors of all loaded programs."""
        return self._programs.fds()
