"""Symbol tables and addresses → the functions that hold them."""

from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.elf.function_table import SYMBOL, SymbolTable, functions_at

FUNCTION, OBJECT, IFUNC = 2, 1, 10
BLOCK = 1 << 16
ENDS = (0, 0x30000, 0x100000)


def table_of(*symbols):
    """A table of (start, size, kind, section); the name of the third is ``f2``."""
    entries = (
        SYMBOL.pack(index, kind, 0, section, start, size) for index, (start, size, kind, section) in enumerate(symbols)
    )
    return SymbolTable(b"".join(entries), lambda index: f"f{index}")


def held_by_walking_all(symbols, vaddr):
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


places = st.integers(0, 64).map(lambda number: number * 0x1801) | st.integers(0, 6 * BLOCK)
symbols = st.tuples(
    places,
    st.sampled_from([0, 1, 16, 0x1800, BLOCK, 3 * BLOCK]),
    st.sampled_from([FUNCTION, FUNCTION, IFUNC, OBJECT]),
    st.sampled_from([0, 1, 2]),
)


@given(st.lists(symbols, max_size=60), st.lists(places, max_size=8))
def test_looking_up_together_finds_what_walking_the_whole_table_finds(symbols, vaddrs) -> None:
    expected = {vaddr: held_by_walking_all(symbols, vaddr) for vaddr in vaddrs}
    found = functions_at(table_of(*symbols), vaddrs, ENDS)
    assert found == {vaddr: hit for vaddr, hit in expected.items() if hit}
