"""Symbols by name, in hash tables and tables that are made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from pyflame_ebpf.elf import symbol_search
from pyflame_ebpf.elf.function_table import SYMBOL
from pyflame_ebpf.elf.symbol_search import GnuHash, Symbol

TABLE = 0x1000  # where the hash table is
ALL = (1 << 64) - 1


def hashed(name: str) -> int:
    """The hash as "GNU Hash ELF Sections" defines it."""
    value = 5381
    for byte in name.encode():
        value = value * 33 + byte
    return value % (1 << 32)


def scan(symbols: bytes, strings: bytes, name: str) -> Symbol | None:
    """The symbol of a name, however the tables are cut into pieces."""
    whole = symbol_search.scan([symbols], [strings], [name])
    entries = [symbols[at : at + SYMBOL.size] for at in range(0, len(symbols), SYMBOL.size)]
    assert symbol_search.scan(entries, [strings[at : at + 3] for at in range(0, len(strings), 3)], [name]) == whole
    return whole.get(name)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda vaddr, size: data[vaddr - TABLE : vaddr - TABLE + size]


def table(
    *chain: int, buckets: tuple[int, ...], first: int = 1, bloom: tuple[int, ...] = (ALL,), shift: int = 6
) -> GnuHash:
    data = struct.pack(f"<IIII{len(bloom)}Q", len(buckets), first, len(bloom), shift, *bloom)
    data += struct.pack(f"<{len(buckets)}I", *buckets) + struct.pack(f"<{len(chain)}I", *chain)
    return GnuHash(reader(data), reader(data), TABLE)


def bits(name: str, shift: int) -> int:
    return 1 << hashed(name) % 64 | 1 << (hashed(name) >> shift) % 64


def test_a_name_is_looked_for_in_its_bucket_s_chain_up_to_its_end() -> None:
    wanted = hashed("wanted")
    buckets = [0, 0, 0]
    buckets[wanted % 3] = 7
    chain = [0x10, 0x20, wanted & ~1, 0x40, wanted | 1, wanted & ~1]  # numbers from 5 on
    assert list(table(*chain, buckets=tuple(buckets), first=5).candidates("wanted")) == [7, 9]
    assert list(table(*chain, buckets=(3, 3, 3), first=5).candidates("wanted")) == []
    assert list(table(wanted | 1, buckets=(5, 5, 5), first=5).candidates("wanted")) == [5]


@pytest.mark.parametrize("shift", [0, 6, 31])
def test_the_filter_says_what_is_not_there(shift: int) -> None:
    wanted, both = hashed("wanted"), bits("wanted", shift)
    assert list(table(wanted | 1, buckets=(1,), bloom=(both,), shift=shift).candidates("wanted")) == [1]
    for bit in (wanted % 64, (wanted >> shift) % 64):
        assert list(table(wanted | 1, buckets=(1,), bloom=(ALL & ~(1 << bit),), shift=shift).candidates("wanted")) == []


def test_the_filter_has_a_word_for_each_hash() -> None:
    wanted = hashed("wanted")
    words = [0, 0, 0]
    words[wanted // 64 % 3] = ALL
    assert list(table(wanted | 1, buckets=(1,), bloom=tuple(words)).candidates("wanted")) == [1]
    words = [ALL, ALL, ALL]
    words[wanted // 64 % 3] = 0
    assert list(table(wanted | 1, buckets=(1,), bloom=tuple(words)).candidates("wanted")) == []


def test_a_shift_of_more_than_the_hash_has_bits_is_taken_modulo_32() -> None:
    both = bits("wanted", 6)
    chain = hashed("wanted") | 1
    assert list(table(chain, buckets=(1,), bloom=(both,), shift=38).candidates("wanted")) == [1]


@pytest.mark.parametrize(("buckets", "bloom"), [((), (ALL,)), ((1,), ())])
def test_a_table_without_buckets_or_filter_has_nothing(buckets: tuple[int, ...], bloom: tuple[int, ...]) -> None:
    assert list(table(hashed("wanted") | 1, buckets=buckets, bloom=bloom).candidates("wanted")) == []


def test_the_last_chain_tells_how_many_symbols_there_are() -> None:
    assert table(2, 3, 4, 6, 7, buckets=(5, 0, 7), first=5).count() == 10
    assert table(2, 3, buckets=(5,), first=5).count() == 7
    assert table(3, buckets=(5,), first=5).count() == 6
    assert table(buckets=(0, 4), first=5).count() == 5
    assert table(buckets=(), first=5).count() == 5
    assert table(2, 4, buckets=(5,), first=5).count() is None


def test_a_chain_is_followed_so_far_and_no_further() -> None:
    limit = symbol_search._CHAIN_MAX
    assert limit == 4096
    assert table(*[2] * (limit - 1), 3, buckets=(1,)).count() == limit + 1
    assert table(*[2] * limit, 3, buckets=(1,)).count() is None


def test_a_part_of_a_number_at_the_chain_s_end_does_not_count() -> None:
    data = struct.pack("<IIIIQI", 1, 1, 1, 6, ALL, 1) + struct.pack("<I", hashed("wanted") & ~1) + b"\1\1\1"
    cut = GnuHash(reader(data), reader(data), TABLE)
    assert (list(cut.candidates("wanted")), cut.count()) == ([1], None)


def entry(name: int, *, section: int = 1, info: int = 0x12, vaddr: int = 0x100, size: int = 4) -> bytes:
    return SYMBOL.pack(name, info, 0, section, vaddr, size)


def test_a_scan_finds_the_defined_symbol_of_the_whole_name() -> None:
    strings = b"\0unwanted\0wanted2\0wanted\0"
    place = strings.index(b"\0wanted\0") + 1
    symbols = entry(1) + entry(place, section=0) + entry(place, info=0x21, vaddr=0x200, size=8)
    assert scan(symbols, strings, "wanted") == Symbol("wanted", 0x200, 8, 1)
    assert scan(symbols, strings, "anted") is None
    assert scan(symbols[: 2 * SYMBOL.size], strings, "wanted") is None
    assert scan(symbols, strings[:-1], "wanted") is None


def test_a_scan_takes_a_tail_of_a_longer_name_as_linkers_merge_them() -> None:
    assert scan(entry(3), b"\0unwanted\0", "wanted") == Symbol("wanted", 0x100, 4, 2)


def test_a_number_that_happens_to_be_the_name_s_is_no_symbol() -> None:
    symbols = entry(9, vaddr=0x01000000, size=1) + entry(1, vaddr=0x300)  # 1 stands at other places, too
    assert scan(symbols, b"\0wanted\0", "wanted") == Symbol("wanted", 0x300, 4, 2)


def test_a_scan_gives_up_after_so_many_equal_endings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol_search, "_SCAN_MAX", 2)
    names = b"\0a\0" + b"a\0" * 2
    assert scan(entry(3, vaddr=1 << 63), names, "a") == Symbol("a", 1 << 63, 4, 2)
    assert scan(entry(5, vaddr=1 << 63), names, "a") is None
