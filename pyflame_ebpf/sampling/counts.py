"""What the programs have counted: samples by key, and counters of what happened."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.abi import CountKey, packing_of
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.sampling.settings import ProgramSettings

SETTLING = 0.02  # seconds from a flip to the taking; a tick takes less than 1 ms, unless its virtual CPU has to wait
COUNTS = (b"counts_0", b"counts_1")
_KEY = packing_of(CountKey)


class SampleCounts:
    """Samples by key, in two maps: the programs count in one while the other is taken.

    A program that read the setting just before a flip counts in the old map just after it.  So ``take`` must come
    ``SETTLING`` later than ``flip``.
    """

    def __init__(self, tables: Mapping[bytes, Any], settings: ProgramSettings) -> None:
        self._tables = tables
        self._settings = settings

    def flip(self) -> None:
        """Let the programs count in the other map from now on."""
        self._settings.flip_counts()

    def take(self) -> list[Count]:
        """Take the samples of the map that is not in use, which is empty afterwards."""
        table = self._tables[COUNTS[self._settings.counts ^ 1]]
        return [_count(bytes(key), samples) for key, samples in _take_all(table)]


def _take_all(table: Any) -> Iterator[tuple[Any, int]]:
    """Every entry of a map that the programs do not write, as (key, value)."""
    if hasattr(table, "items_lookup_and_delete_batch"):  # bcc 0.19
        for key, value in table.items_lookup_and_delete_batch():
            yield key, getattr(value, "value", value)  # a number up to bcc 0.26, c_ulonglong in 0.29
    else:
        for key, value in list(table.items()):
            del table[key]
            yield key, value.value


def _count(key: bytes, samples: int) -> Count:
    start, tgid, exec_id, stack_id, tid, outcome, gil, kernel_mode, native = _KEY.unpack_from(key)
    return Count(Identity(start, tgid, exec_id), tid, stack_id, outcome, gil, bool(kernel_mode), native, samples)


def read_counters(table: Any) -> dict[str, int]:
    """The counters by their names in abi.COUNTERS, summed over CPUs."""
    blocks = [struct.unpack_from(f"<{len(abi.COUNTERS)}Q", bytes(block)) for block in table[table.Key(0)]]
    return dict(zip(abi.COUNTERS, map(sum, zip(*blocks, strict=True)), strict=True))
