"""The sampler's Python side, without bcc: its tables are stand-ins that answer as a release of bcc does."""

from __future__ import annotations

import ctypes

import pytest

from pyflame_ebpf.sampling.sampler import _take_all


class Bcc018(dict):
    """A table as bcc 0.18 has it: no batches, and values as ctypes objects."""


class Bcc026(Bcc018):
    """Batches, which give c_ulonglong values as numbers."""

    def items_lookup_and_delete_batch(self):
        while self:
            key, value = self.popitem()
            yield key, value.value


class Bcc029(Bcc018):
    """Batches that give c_ulonglong values as objects."""

    def items_lookup_and_delete_batch(self):
        while self:
            yield self.popitem()


@pytest.mark.parametrize("table_of", [Bcc018, Bcc026, Bcc029])
def test_counts_are_taken_as_numbers_whatever_the_release_of_bcc_gives(table_of) -> None:
    table = table_of({b"one": ctypes.c_ulonglong(1), b"many": ctypes.c_ulonglong(1 << 40)})
    assert dict(_take_all(table)) == {b"one": 1, b"many": 1 << 40}
    assert table == {}
