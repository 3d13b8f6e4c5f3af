"""Stand-ins for bcc's tables: maps that programs of the test's own write."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any


class Bcc018(dict[Any, Any]):
    """A table as bcc 0.18 has it: no batches, and values as ctypes objects."""


class Bcc026(Bcc018):
    """Batches, which give c_ulonglong values as numbers."""

    def items_lookup_and_delete_batch(self) -> Iterator[tuple[Any, int]]:
        while self:
            key, value = self.popitem()
            yield key, value.value


class Bcc029(Bcc018):
    """Batches that give c_ulonglong values as objects."""

    def items_lookup_and_delete_batch(self) -> Iterator[tuple[Any, ctypes.c_ulonglong]]:
        while self:
            yield self.popitem()


class ByteTable:
    """A table from bytes to bytes, opened with ctypes for keys and values."""

    def __init__(self, key: Any, leaf: Any) -> None:
        self.Key, self.Leaf = key, leaf
        self.entries: dict[bytes, bytes] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[bytes(key)] = bytes(value)

    def __delitem__(self, key: Any) -> None:
        del self.entries[bytes(key)]


class FakeTables:
    """Every table of the programs, as ``bcc.BPF`` gives them."""

    def __init__(self) -> None:
        self.opened: dict[bytes, ByteTable] = {}

    def get_table(self, name: bytes, keytype: Any, leaftype: Any) -> ByteTable:
        assert name not in self.opened
        self.opened[name] = ByteTable(keytype, leaftype)
        return self.opened[name]

    def entries(self, name: bytes) -> dict[bytes, bytes]:
        return self.opened[name].entries
