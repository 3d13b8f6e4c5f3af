"""The symbols of ELF files: by name, by address, by number."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyflame_ebpf.elf.function_table import SYMBOL
from pyflame_ebpf.elf.image import BadElf, Section, Segment
from pyflame_ebpf.elf.symbol_search import Symbol
from pyflame_ebpf.elf.symbols import ElfSymbols
from tests.elf.handmade import HEADER, SEGMENT, Handmade
from tests.elf.libraries import SHARED, Build, address_of, function_at, known, run, symbols_of

SOURCE = """
#include <unistd.h>
int shared_data = 7;
extern int elsewhere(void);
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
__attribute__((noinline)) int visible(int x) { return hidden(x) + shared_data; }
int alias_of_visible(int) __attribute__((alias("visible")));
"""


@pytest.fixture
def library(build: Build) -> Path:
    return build(SOURCE, *SHARED)


def strip_section_headers(path: Path, target: Path) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 40, 0)  # e_shoff
    struct.pack_into("<HHH", data, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    target.write_bytes(data)
    return target


def nm(path: Path) -> dict[str, int]:
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[2]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}


def test_symbols_are_where_nm_says(library: Path) -> None:
    expected = nm(library)
    with symbols_of(library) as symbols:
        found = {name: known(symbols.symbol(name)).vaddr for name in ("visible", "hidden", "shared_data")}
    assert found == {name: expected[name] for name in found}


def test_local_symbols_are_not_dynamic(library: Path) -> None:
    with symbols_of(library) as symbols:
        assert symbols.dynamic_symbol("hidden") is None


def test_a_symbol_that_is_only_referred_to_is_not_found(build: Build) -> None:
    library = build("extern int elsewhere; int *f(void) { return &elsewhere; }", *SHARED)
    with symbols_of(library) as symbols:
        assert symbols.symbol("elsewhere") is None


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_dynamic_symbols_survive_the_loss_of_section_headers(build: Build, tmp_path: Path, style: str) -> None:
    whole = build(SOURCE, *SHARED, f"-Wl,--hash-style={style}")
    with symbols_of(strip_section_headers(whole, tmp_path / "stripped.so")) as symbols:
        address = nm(whole)["visible"]
        assert symbols.image.sections == ()
        assert known(symbols.symbol("visible")).vaddr == address
        assert symbols.function_at(address + 1) == ("visible", 1)


def test_an_address_is_named_by_the_function_that_holds_it_and_no_other(library: Path) -> None:
    with symbols_of(library) as symbols:
        visible = known(symbols.symbol("visible"))
        assert symbols.function_at(visible.vaddr) == ("visible", 0)
        assert symbols.function_at(known(symbols.symbol("hidden")).vaddr + 2) == ("hidden", 2)
        assert symbols.function_at(1) is None


# Tables that no compiler makes


class Tables:
    """A loaded file with dynamic symbols: (name, info, section, address, size) each, from number 1 on."""

    def __init__(self, *symbols: tuple[str, int, int, int, int], loose: bytes = b"") -> None:
        self.strings = b"\0"
        entries = [bytes(SYMBOL.size)]
        for name, info, section, vaddr, size in symbols:
            entries.append(SYMBOL.pack(len(self.strings), info, 0, section, vaddr, size))
            self.strings += name.encode() + b"\0"
        self.symbols = b"".join(entries) + loose

    @contextmanager
    def opened(
        self, *, hash_table: bytes = b"", hash_tag: int = 4, strings_size: int | None = None
    ) -> Iterator[ElfSymbols]:
        """The file with this hash table, its tables one behind the other from address 0x5000 on."""
        places = [0x5000]
        for part in (self.symbols, self.strings, hash_table):
            places.append(places[-1] + len(part))
        size = len(self.strings) if strings_size is None else strings_size
        tags = [(6, places[0]), (5, places[1]), (10, size)]
        if hash_table:
            tags.append((hash_tag, places[2]))
        dynamic = b"".join(struct.pack("<QQ", *tag) for tag in [*tags, (0, 0)])
        body = self.symbols + self.strings + hash_table + dynamic
        at = HEADER + 2 * SEGMENT
        segments = [
            Segment(1, 4, at, 0x5000, len(body), len(body)),
            Segment(2, 4, at + len(body) - len(dynamic), places[3], len(dynamic), len(dynamic)),
        ]
        with Handmade(segments=segments, body=body).opened() as image:
            yield ElfSymbols(image)


FUNCTIONS = (("first", 0x12, 1, 0x100, 0x10), ("second@V1", 0x22, 1, 0x200, 0), ("data", 0x11, 1, 0x300, 8))


def sysv_hash(count: int) -> bytes:
    return struct.pack("<II", 1, count)


def test_the_hash_table_of_system_v_tells_how_many_dynamic_symbols_there_are() -> None:
    for count in (2, 4):
        with Tables(*FUNCTIONS).opened(hash_table=sysv_hash(count)) as symbols:
            assert symbols.count == count
            assert [symbols.dynamic_name(number) for number in range(-1, 5)] == [
                "",
                "",
                *["first", "second@V1", "data"][: count - 1],
                *[""] * (5 - count),
            ]
            assert symbols.dynamic_symbol("first") == Symbol("first", 0x100, 0x10, 2)
            assert (symbols.dynamic_symbol("data") is None) == (count == 2)


def test_without_hash_table_and_section_headers_no_dynamic_symbol_is_known() -> None:
    with Tables(*FUNCTIONS).opened() as symbols:
        assert (symbols.count, symbols.dynamic_symbol("first"), symbols.stripped) == (0, None, True)
        assert symbols.functions([0x100]) == {}


def test_functions_of_dynamic_symbols_have_no_version_and_need_a_size() -> None:
    with Tables(*FUNCTIONS).opened(hash_table=sysv_hash(4)) as symbols:
        assert symbols.functions(range(0xFF, 0x400)) == {0x100 + place: ("first", place) for place in range(0x10)}
        function_at = symbols.dynamic_index()
        assert [function_at(vaddr) for vaddr in (0xFF, 0x100, 0x10F, 0x110, 0x200, 0x300)] == [
            None,
            ("first", 0),
            ("first", 15),
            None,
            None,
            None,
        ]


def test_strings_outside_of_the_file_are_refused() -> None:
    with Tables(*FUNCTIONS).opened(hash_table=sysv_hash(4), strings_size=1 << 20) as symbols, pytest.raises(BadElf):
        _ = symbols.count
    with Tables(*FUNCTIONS).opened(hash_table=sysv_hash(1 << 30)) as symbols, pytest.raises(BadElf):
        _ = symbols.count


@pytest.mark.parametrize("length", [255, 256, 257, 4094, 4095])
def test_long_names_are_whole_up_to_four_kib(length: int) -> None:
    name = "x" * length
    with Tables((name, 0x12, 1, 0x100, 1), ("y" * 5000, 0x12, 1, 0x200, 1)).opened(hash_table=sysv_hash(3)) as symbols:
        assert symbols.functions([0x100, 0x200]) == {0x100: (name, 0), 0x200: ("y" * 4096, 0)}


def test_a_name_ends_with_its_string_table() -> None:
    tables = Tables(("whole", 0x12, 1, 0x100, 1))
    with tables.opened(hash_table=sysv_hash(2), strings_size=3) as symbols:
        assert symbols.dynamic_name(1) == "wh"
    with tables.opened(hash_table=sysv_hash(2), strings_size=1) as symbols:
        assert symbols.dynamic_name(1) == ""


def gnu_hash_table(*chains: int, buckets: tuple[int, ...], first: int, bloom: int = (1 << 64) - 1) -> bytes:
    head = struct.pack("<IIIIQ", len(buckets), first, 1, 6, bloom)
    return head + struct.pack(f"<{len(buckets)}I", *buckets) + struct.pack(f"<{len(chains)}I", *chains)


def gnu_hash(name: str) -> int:
    value = 5381
    for byte in name.encode():
        value = (value * 33 + byte) % (1 << 32)
    return value


def test_the_hash_table_of_gnu_finds_names_and_tells_how_many_there_are() -> None:
    first, second = (gnu_hash(name) for name in ("first", "second@V1"))
    table = gnu_hash_table(first & ~1, second | 1, buckets=(1,), first=1)
    with Tables(*FUNCTIONS[:2]).opened(hash_table=table, hash_tag=0x6FFFFEF5) as symbols:
        assert symbols.count == 3
        assert symbols.dynamic_symbol("first") == Symbol("first", 0x100, 0x10, 2)
        assert symbols.dynamic_symbol("second@V1") == Symbol("second@V1", 0x200, 0, 2)
        assert symbols.dynamic_symbol("firs") is None


def test_a_symbol_with_the_hash_but_another_name_or_without_section_is_not_the_wanted_one() -> None:
    wanted = gnu_hash("wanted")
    table = gnu_hash_table(*[wanted & ~1] * 2, wanted | 1, buckets=(1,), first=1)
    entries = (("other", 0x12, 1, 1, 1), ("wanted", 0x12, 0, 2, 2), ("wanted", 0x12, 1, 3, 3))
    with Tables(*entries).opened(hash_table=table, hash_tag=0x6FFFFEF5) as symbols:
        assert symbols.dynamic_symbol("wanted") == Symbol("wanted", 3, 3, 2)
    table = gnu_hash_table(wanted & ~1, wanted | 1, buckets=(1,), first=1)
    with Tables(*entries[:2]).opened(hash_table=table, hash_tag=0x6FFFFEF5) as symbols:
        assert symbols.dynamic_symbol("wanted") is None


def test_a_hash_table_without_end_is_refused() -> None:
    table = gnu_hash_table(buckets=(17,), first=1)  # its chain is the null entry at the dynamic section's end
    with (
        Tables(*FUNCTIONS[:2]).opened(hash_table=table, hash_tag=0x6FFFFEF5) as symbols,
        pytest.raises(BadElf, match="its hash table has no end"),
    ):
        _ = symbols.count


def symtab(link: int = 2, size: int | None = None, strings_size: int | None = None) -> Handmade:
    tables = Tables(*FUNCTIONS)
    size = len(tables.symbols) if size is None else size
    strings_size = len(tables.strings) if strings_size is None else strings_size
    text = Section(".text", 1, 0x100, 0, 0x180, 0)
    symbols = Section(".symtab", 2, 0, HEADER, size, link)
    strings = Section(".strtab", 3, 0, HEADER + len(tables.symbols), strings_size, 0)
    return Handmade(sections=[symbols, text, strings], body=tables.symbols + tables.strings)


def test_the_section_of_all_symbols_is_read_with_the_strings_that_it_names() -> None:
    with symtab().opened() as image:
        symbols = ElfSymbols(image)
        assert (symbols.stripped, symbols.count) == (False, 4)
        assert symbols.extents == [(HEADER, 96), (HEADER + 96, len(Tables(*FUNCTIONS).strings)), (0, 0), (0, 0)]
        assert symbols.symbol("data") == Symbol("data", 0x300, 8, 1)
        # The second function has no size and reaches to the end of .text, which begins at 0x100.
        assert symbols.functions([0x10F, 0x110, 0x200, 0x27F, 0x280]) == {
            0x10F: ("first", 15),
            0x200: ("second", 0),
            0x27F: ("second", 0x7F),
        }
        function_at = symbols.static_index()
        assert [function_at(vaddr) for vaddr in (0x27F, 0x280)] == [("second", 0x7F), None]


@pytest.mark.parametrize("damaged", [{"link": 4}, {"size": 1 << 20}, {"strings_size": 1 << 20}, {"size": 23}])
def test_symbols_that_are_damaged_count_as_stripped(damaged: dict[str, int]) -> None:
    with symtab(**damaged).opened() as image:
        symbols = ElfSymbols(image)
        assert (symbols.stripped, symbols.count, symbols.symbol("first")) == (True, 0, None)


def test_a_part_of_a_symbol_at_the_end_of_a_table_does_not_count() -> None:
    with symtab(size=95).opened() as image:
        symbols = ElfSymbols(image)
        assert (symbols.count, symbols.symbol("data"), known(symbols.symbol("first")).vaddr) == (3, None, 0x100)


def test_tables_above_128_mib_count_as_stripped(tmp_path: Path, build: Build) -> None:
    library = build(SOURCE, *SHARED)
    hidden = address_of(library, "hidden")
    assert function_at(library, hidden) == ("hidden", 0)
    run("strip", "-s", library)
    assert function_at(library, hidden) is None


def test_imports_of_a_file_that_exports_nothing_are_known(build: Build) -> None:
    library = build(
        "extern int elsewhere(void); __attribute__((constructor)) static void f(void) { elsewhere(); }", *SHARED
    )
    with symbols_of(library) as symbols:
        count = symbols.image.section(".dynsym")
        assert count is not None
        assert symbols._dynamic.whole == count.size // SYMBOL.size > 2
        assert "elsewhere" in {symbols.dynamic_name(number) for number in range(10)}
    with symbols_of(strip_section_headers(library, library.with_name("headless"))) as symbols:
        assert symbols.count == 1


def test_a_dynamic_section_with_symbols_or_strings_alone_has_no_dynamic_symbols() -> None:
    for tag in (5, 6):
        dynamic = struct.pack("<QQQQ", tag, 0x5000, 0, 0)
        segment = Segment(2, 4, HEADER + SEGMENT, 0x5000, len(dynamic), len(dynamic))
        with Handmade(segments=[segment], body=dynamic).opened() as image:
            assert (ElfSymbols(image).count, ElfSymbols(image).dynamic_symbol("f")) == (0, None)


def test_symbols_are_identified_by_their_file(build: Build) -> None:
    library = build(SOURCE, *SHARED, "-Wl,--build-id=0x123456")
    with symbols_of(library) as symbols:
        assert (symbols.build_id, symbols.file_size) == (b"\x12\x34\x56", library.stat().st_size)


def test_strings_may_end_with_the_file_and_no_later() -> None:
    size = len(symtab().bytes())
    room = size - HEADER - len(Tables(*FUNCTIONS).symbols)
    for strings_size, stripped in ((room, False), (room + 1, True)):
        with symtab(strings_size=strings_size).opened() as image:
            assert ElfSymbols(image).stripped == stripped
