"""Samples every CPU: programs, clock and maps in one, from loading to unloading."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

from pyflame_ebpf.sampling.clock import CpuClock
from pyflame_ebpf.sampling.counts import SampleCounts, read_counters
from pyflame_ebpf.sampling.events import Count, Event, parse_record
from pyflame_ebpf.sampling.maps import ByteTables, ProgramMaps
from pyflame_ebpf.sampling.programs import Programs, SamplerOptions

__all__ = ["Sampler", "SamplerOptions"]


class Sampler(contextlib.AbstractContextManager["Sampler"]):
    """The loaded programs, which sample between ``start`` and ``stop``; leaving the context unloads them.

    ``maps`` is what the programs are told.
    """

    def __init__(self, options: SamplerOptions) -> None:
        self._programs = Programs(options)
        self._bpf = self._programs.bpf
        self._clock = CpuClock(options.frequency, self._programs.tick)
        self.maps = ProgramMaps(self._bpf)
        self._counts = SampleCounts(self._bpf, ByteTables(self._bpf), options.frequency)
        self._records: list[bytes] = []
        for ring in (b"records", b"copies"):
            self._bpf[ring].open_ring_buffer(self._keep_record)

    def __exit__(self, *_: object) -> None:
        """Detach and unload everything."""
        self.close()

    def start(self) -> None:
        """Begin to sample every CPU that is online."""
        self._clock.follow_cpus()

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

    def _keep_record(self, _context: Any, data: Any, size: int) -> None:
        self._records.append(ctypes.string_at(data, size))

    def poll(self, timeout_ms: int) -> list[Event]:
        """Events since the last call, in the order of their records; waits so long for an urgent one."""
        self._bpf.ring_buffer_poll(timeout_ms)
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
