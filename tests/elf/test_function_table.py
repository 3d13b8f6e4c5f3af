"""Symbol tables and addresses → the functions that hold them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.elf import function_table
from pyflame_ebpf.elf.function_table import NAME_MAX, SYMBOL, Hit, SymbolTable, function_index, functions_at, string_at

FUNCTION, OBJECT, IFUNC = 2, 1, 10
BLOCK = 1 << 16
ENDS = (0, 0x30000, 0x100000)


Entry = tuple[int, int, int, int]  # start, size, kind, section


def table_of(*symbols: Entry) -> SymbolTable:
    """A table of (start, size, kind, section); the name of the third is ``f2``."""
    entries = (
        SYMBOL.pack(index, kind, 0, section, start, size) for index, (start, size, kind, section) in enumerate(symbols)
    )
    return in_pieces(b"".join(entries), lambda index: f"f{index}")


def in_pieces(symbols: bytes, name_at: Callable[[int], str]) -> SymbolTable:
    """A table that is read three symbols at a time."""
    size = 3 * SYMBOL.size
    return SymbolTable(lambda: [symbols[at : at + size] for at in range(0, len(symbols), size)], name_at)


def held_by_walking_all(symbols: list[Entry], vaddr: int) -> Hit | None:
    """The function whose start is nearest, among the 16 last ones that start at the address or before."""
    functions = sorted(
        (start, index, size, section)
        for index, (start, size, kind, section) in enumerate(symbols)
        if kind in (FUNCTION, IFUNC) and section and start <= vaddr
    )[-16:]
    last = functions[-1][0] if functions else 0
    holding = [
        (start, index)
        for start, index, size, section in functions
        if vaddr - start < (size or (max((ENDS[section]) - start, 0) if start == last else 0))
    ]
    if not holding:
        return None
    start = max(holding)[0]
    return min((len(f"f{index}"), f"f{index}") for at, index in holding if at == start)[1], vaddr - start


def test_a_function_of_many_blocks_holds_its_last_byte() -> None:
    table = table_of((0x1000, 9 * BLOCK, FUNCTION, 1), (20 * BLOCK, 16, FUNCTION, 1))
    last = 0x1000 + 9 * BLOCK - 1
    assert functions_at(table, [last, last + 1], whole=False) == {last: ("f0", 9 * BLOCK - 1)}


def test_functions_above_four_gigabytes_are_told_from_those_below() -> None:
    high = 1 << 32
    table = table_of((0x5000, 16, FUNCTION, 1), (high + 0x5000, 16, FUNCTION, 1))
    assert functions_at(table, [0x5001, high + 0x5002]) == {0x5001: ("f0", 1), high + 0x5002: ("f1", 2)}


def test_neither_data_nor_what_another_file_defines_holds_anything() -> None:
    table = table_of((0x5000, 16, OBJECT, 1), (0x5000, 16, FUNCTION, 0))
    assert functions_at(table, [0x5001]) == {}


def names_at(names: list[str], vaddr: int = 0x5000) -> str | None:
    """The name at an address at which functions with these names begin."""
    symbols = b"".join(SYMBOL.pack(number, FUNCTION, 0, 1, 0x5000, 16) for number in range(len(names)))
    hit = functions_at(in_pieces(symbols, names.__getitem__), [vaddr]).get(vaddr)
    return hit and hit[0]


def test_of_names_at_one_address_the_plainest_counts() -> None:
    assert names_at(["__GI_puts", "_IO_puts", "puts"]) == "puts"
    assert names_at(["_IO_puts", "__GI_puts"]) == "_IO_puts"
    assert names_at(["longer", "short", "other"]) == "other"
    assert names_at(["", "@V1", "named@V1@V2"]) == "named"
    assert names_at([""]) is None
    assert names_at(["!short", "longer"]) == "!short"


def test_sixteen_functions_before_an_address_are_asked_whether_they_hold_it() -> None:
    around: Entry = (0x5000, 0x1000, FUNCTION, 1)
    for inner, expected in ((15, ("f0", 0x800)), (16, None)):
        within = [(0x5100 + 16 * number, 1, FUNCTION, 1) for number in range(inner)]
        table = table_of(around, *within)
        assert functions_at(table, [0x5800]).get(0x5800) == expected
        assert function_index(table)(0x5800) == expected


def test_functions_in_blocks_far_before_are_reached_past_empty_blocks() -> None:
    table = table_of((0x100, 200 * BLOCK, FUNCTION, 1), (50 * BLOCK, 1, OBJECT, 1), (100 * BLOCK, 1, FUNCTION, 1))
    assert functions_at(table, [150 * BLOCK]) == {150 * BLOCK: ("f0", 150 * BLOCK - 0x100)}


def test_a_function_without_size_ends_at_the_next_one_at_its_section_or_nowhere() -> None:
    table = table_of((0x10000, 0, FUNCTION, 1), (0x20000, 0, FUNCTION, 1), (0x80000, 0, FUNCTION, 9))
    vaddrs = [0x10000, 0x1FFFF, 0x20000, 0x2FFFF, 0x30000, 0x80000, 1 << 40]
    assert functions_at(table, vaddrs, ENDS) == {
        0x10000: ("f0", 0),
        0x1FFFF: ("f0", 0xFFFF),
        0x20000: ("f1", 0),
        0x2FFFF: ("f1", 0xFFFF),
        0x80000: ("f2", 0),
        1 << 40: ("f2", (1 << 40) - 0x80000),
    }
    assert functions_at(table, vaddrs, ENDS, whole=False) == {}
    index, without = function_index(table, ENDS), function_index(table, ENDS, whole=False)
    assert [index(0x2FFFF), index(0x30000), without(0x2FFFF)] == [("f1", 0xFFFF), None, None]


def test_aliases_without_size_all_hold_their_addresses() -> None:
    table = table_of((0x10000, 0, FUNCTION, 1), (0x10000, 0, FUNCTION, 1), (0x10000, 8, OBJECT, 1))
    assert functions_at(table, [0x10004], ENDS) == {0x10004: ("f0", 4)}


def test_a_section_that_ends_before_a_function_holds_nothing_of_it() -> None:
    assert functions_at(table_of((0x40000, 0, FUNCTION, 1)), [0x40000], ENDS) == {}


@pytest.mark.parametrize("section", [0x0001, 0x0100, 0xFFF1])
def test_a_function_is_defined_in_any_section_but_zero(section: int) -> None:
    assert functions_at(table_of((0x5000, 16, FUNCTION, section)), [0x5000]) == {0x5000: ("f0", 0)}


@pytest.mark.parametrize("kind", range(16))
@pytest.mark.parametrize("binding", [0, 1, 2])
def test_functions_and_functions_that_choose_functions_count_whatever_their_binding(kind: int, binding: int) -> None:
    found = functions_at(table_of((0x5000, 16, binding << 4 | kind, 1)), [0x5000])
    assert found == ({0x5000: ("f0", 0)} if kind in (FUNCTION, IFUNC) else {})


def test_no_address_no_answer_and_a_cut_table_is_read_as_far_as_it_goes() -> None:
    table = table_of((0x5000, 16, FUNCTION, 1), (0x6000, 16, FUNCTION, 1))
    cut = in_pieces(b"".join(table.pieces())[:-1], table.name_at)
    assert functions_at(table, []) == {}
    assert functions_at(cut, [0x5000, 0x6000]) == {0x5000: ("f0", 0)}


def test_symbols_are_read_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_table, "_SYMBOLS_MAX", 2)
    table = table_of(*[(0x5000 + 0x100 * number, 16, FUNCTION, 1) for number in range(3)])
    assert functions_at(table, [0x5000, 0x5100, 0x5200]) == {0x5000: ("f0", 0), 0x5100: ("f1", 0)}


def test_addresses_beyond_four_gigabytes_find_nothing_in_a_file_below() -> None:
    table = table_of((0x5000, 16, FUNCTION, 1))
    assert functions_at(table, [(1 << 32) + 0x5000, (1 << 64) - 1, 0x5000]) == {0x5000: ("f0", 0)}


def test_strings_end_with_nul_the_table_or_at_a_limit() -> None:
    long = b"x" * (NAME_MAX + 1)
    assert [string_at(b"ab\0cd", place) for place in (0, 1, 2, 3, 9)] == ["ab", "b", "", "cd", ""]
    assert string_at(long + b"\0", 0) == "x" * NAME_MAX
    assert string_at(long[1:] + b"\0", 0) == "x" * NAME_MAX
    assert string_at(b"\xff\0", 0) == "\ufffd"


places = st.integers(0, 64).map(lambda number: number * 0x1801) | st.integers(0, 6 * BLOCK)
symbols = st.tuples(
    places,
    st.sampled_from([0, 1, 16, 0x1800, BLOCK, 3 * BLOCK]),
    st.sampled_from([FUNCTION, FUNCTION, IFUNC, OBJECT]),
    st.sampled_from([0, 1, 2]),
)


@given(st.lists(symbols, max_size=60), st.lists(places, max_size=8))
def test_looking_up_together_finds_what_walking_the_whole_table_finds(symbols: list[Entry], vaddrs: list[int]) -> None:
    expected = {vaddr: held_by_walking_all(symbols, vaddr) for vaddr in vaddrs}
    found = functions_at(table_of(*symbols), vaddrs, ENDS)
    assert found == {vaddr: hit for vaddr, hit in expected.items() if hit}
