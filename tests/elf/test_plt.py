"""Stubs of the procedure linkage table → the functions that they lead to."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyflame_ebpf.elf.function_table import SYMBOL, Hit
from pyflame_ebpf.elf.image import Section, Segment
from pyflame_ebpf.elf.plt import PltStubs
from pyflame_ebpf.elf.symbols import ElfSymbols
from tests.elf.handmade import HEADER, SEGMENT, Handmade
from tests.elf.libraries import LIBRARY, SHARED, Build, libc, objdump_stubs, run, symbols_of

PLT_FLAGS = (("-fcf-protection=full",), ("-fcf-protection=none",), ("-fno-plt",), ("-Wl,-z,now",), ("-Wl,-z,lazy",))


def hits(path: Path, vaddrs: list[int]) -> dict[int, Hit]:
    """The stubs at these addresses."""
    with symbols_of(path) as symbols:
        stubs = PltStubs(symbols, vaddrs)
        choosers = symbols.functions(stubs.choosers)
        return {vaddr: hit for vaddr in vaddrs if (hit := stubs.at(vaddr, choosers))}


@pytest.mark.parametrize("flags", PLT_FLAGS, ids=" ".join)
@pytest.mark.parametrize("inside", [0, 4, 7])
def test_stubs_are_named_as_binutils_does(build: Build, flags: tuple[str, ...], inside: int) -> None:
    library = build(LIBRARY, *SHARED, *flags)
    expected = objdump_stubs(library)
    assert hits(library, [address + inside for address in expected]) == {
        address + inside: (name, inside) for address, name in expected.items()
    }


def test_stubs_of_installed_libraries_are_named_as_binutils_does() -> None:
    expected = objdump_stubs(libc())
    assert len(expected) > 5
    assert {address: name for address, (name, _) in hits(libc(), list(expected)).items()} == expected


def test_the_first_stub_of_a_section_and_code_around_it_are_told_apart(build: Build) -> None:
    library = build(LIBRARY, *SHARED, "-fcf-protection=none", "-Wl,-z,lazy")
    with symbols_of(library) as symbols:
        plt = symbols.image.section(".plt")
    assert plt is not None
    first = plt.vaddr + 16  # after the piece that calls the dynamic linker
    found = hits(library, [plt.vaddr - 1, first - 1, first, first + 15])
    assert found == {first: ("elsewhere@plt", 0), first + 15: ("elsewhere@plt", 15)}


def test_files_for_other_machines_have_no_stubs_that_are_known(build: Build) -> None:
    library = build(LIBRARY, *SHARED)
    addresses = list(objdump_stubs(library))
    data = bytearray(library.read_bytes())
    data[18:20] = (183).to_bytes(2, "little")  # EM_AARCH64
    library.write_bytes(data)
    assert hits(library, addresses) == {}


def test_stubs_without_relocations_that_can_be_read_have_no_names(build: Build) -> None:
    library = build(LIBRARY, *SHARED)
    addresses = list(objdump_stubs(library))
    run("objcopy", "--remove-section=.dynamic", library)
    with symbols_of(library) as symbols:
        symbols.image.dynamic_entries = [(23, 1 << 40), (2, 24), (7, 1 << 40), (8, 24)]
        stubs = PltStubs(symbols, addresses)
        assert [stubs.at(address, {}) for address in addresses] == [None] * len(addresses)


# Stubs that are made by hand

CODE = 0x5000
JUMP_SLOT, GLOB_DAT, IRELATIVE, RELATIVE = 7, 6, 37, 8
ENDBR = b"\xf3\x0f\x1e\xfa"


def jump(at: int, slot: int, *, before: bytes = b"", bound: bytes = b"") -> bytes:
    """A stub at an address, which jumps through a slot."""
    code = before + bound + b"\xff\x25"
    return code + struct.pack("<i", slot - (at + len(code) + 4))


def lazy(number: int, *, before: bytes = b"", bound: bytes = b"") -> bytes:
    """A stub that pushes the number of its relocation and jumps to the first stub."""
    return before + b"\x68" + struct.pack("<I", number) + bound + b"\xe9" + bytes(4)


def relocation(slot: int, kind: int, *, symbol: int = 0, addend: int = 0) -> bytes:
    return struct.pack("<QQq", slot, symbol << 32 | kind, addend)


@contextmanager
def stubs_of(
    code: bytes, lazily: Sequence[bytes] = (), others: Sequence[bytes] = (), *, section: str = ".plt"
) -> Iterator[ElfSymbols]:
    """A file with this code in a section of stubs, these relocations, and the symbols ``one`` and ``two@V1``."""
    strings = b"\0one\0two@V1\0"
    symbols = bytes(24) + SYMBOL.pack(1, 0x12, 0, 0, 0, 0) + SYMBOL.pack(5, 0x12, 0, 0, 0, 0)
    parts = [code, b"".join(lazily), b"".join(others), symbols, strings, struct.pack("<II", 1, 3)]
    places = [CODE]
    for part in parts:
        places.append(places[-1] + len(part))
    tags = [
        *((23, places[1]), (2, len(parts[1]))),
        *((7, places[2]), (8, len(parts[2]))),
        *((6, places[3]), (5, places[4]), (10, len(strings)), (4, places[5])),
    ]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    body = b"".join(parts) + dynamic
    at = HEADER + 2 * SEGMENT
    segments = [
        Segment(1, 5, at, CODE, len(body), len(body)),
        Segment(2, 4, at + len(body) - len(dynamic), places[6], len(dynamic), len(dynamic)),
    ]
    plt = Section(section, 1, CODE, at, len(code), 0)
    with Handmade(segments=segments, sections=[plt], body=body).opened() as image:
        yield ElfSymbols(image)


def named(symbols: ElfSymbols, vaddr: int) -> Hit | None:
    return PltStubs(symbols, [vaddr]).at(vaddr, {0x6000: ("chooser", 0)})


ONE, TWO = relocation(0x8000, JUMP_SLOT, symbol=1), relocation(0x8008, JUMP_SLOT, symbol=2)


@pytest.mark.parametrize("before", [b"", ENDBR])
@pytest.mark.parametrize("bound", [b"", b"\xf2"])
def test_a_stub_jumps_through_a_slot_or_pushes_a_number(before: bytes, bound: bytes) -> None:
    code = b"".join(
        stub.ljust(16, b"\x90")
        for stub in (
            jump(CODE, 0x8008, before=before, bound=bound),
            lazy(0, before=before, bound=bound),
            lazy(1, before=before, bound=bound),
            lazy(2, before=before, bound=bound),
            bytes(16),
        )
    )
    with stubs_of(code, [ONE, TWO]) as symbols:
        assert [named(symbols, CODE + 16 * number + 9) for number in range(5)] == [
            ("two@plt", 9),
            ("one@plt", 9),
            ("two@plt", 9),
            None,
            None,
        ]


@pytest.mark.parametrize("section", [".plt", ".plt.sec", ".plt.got"])
def test_stubs_of_eight_bytes_are_told_apart(section: str) -> None:
    code = jump(CODE, 0x8000).ljust(8, b"\x90") + jump(CODE + 8, 0x8008).ljust(8, b"\x90")
    with stubs_of(code, [ONE, TWO], section=section) as symbols:
        assert [named(symbols, CODE + place) for place in (0, 7, 8, 15, 16)] == [
            ("one@plt", 0),
            ("one@plt", 7),
            ("two@plt", 0),
            ("two@plt", 7),
            None,
        ]


def test_code_of_other_sections_is_no_stub() -> None:
    with stubs_of(jump(CODE, 0x8000).ljust(16), [ONE], section=".text") as symbols:
        assert named(symbols, CODE) is None


def test_the_relocation_of_a_slot_counts_by_its_kind_and_table() -> None:
    code = jump(CODE, 0x8000).ljust(16, b"\x90")
    for kind, lazily, other in (
        (JUMP_SLOT, "one@plt", None),
        (GLOB_DAT, "one@plt", "one@plt"),
        (IRELATIVE, "chooser@plt", None),
        (RELATIVE, None, None),
    ):
        filling = relocation(0x8000, kind, symbol=1, addend=0x6000)
        with stubs_of(code, [TWO, filling]) as symbols:
            assert named(symbols, CODE) == (lazily and (lazily, 0))
        with stubs_of(code, [TWO], [filling]) as symbols:
            assert named(symbols, CODE) == (other and (other, 0))
        with stubs_of(lazy(1).ljust(16), [TWO, filling]) as symbols:
            assert named(symbols, CODE) == (lazily and (lazily, 0))


def test_the_choosers_are_those_of_the_wanted_stubs() -> None:
    code = jump(CODE, 0x8000).ljust(16, b"\x90") + lazy(1).ljust(16) + jump(CODE + 32, 0x8008).ljust(16)
    fillings = [relocation(0x8000 + 8 * place, IRELATIVE, addend=0x6000 + place) for place in range(2)]
    with stubs_of(code, fillings) as symbols:
        assert PltStubs(symbols, [CODE, CODE + 4]).choosers == {0x6000}
        assert PltStubs(symbols, [CODE + 16, CODE + 32]).choosers == {0x6001}
        assert PltStubs(symbols, [CODE + 48]).choosers == set()
        assert PltStubs(symbols, [CODE]).at(CODE, {}) is None


def test_a_part_of_a_relocation_at_the_table_s_end_does_not_count() -> None:
    code = jump(CODE, 0x8008).ljust(16, b"\x90") + lazy(1).ljust(16)
    with stubs_of(code, [ONE, TWO[:-1]]) as symbols:
        assert [named(symbols, vaddr) for vaddr in (CODE, CODE + 16)] == [None, None]


def test_a_slot_at_address_zero_is_a_slot() -> None:
    with stubs_of(jump(CODE, 0).ljust(16), [relocation(0, JUMP_SLOT, symbol=1)]) as symbols:
        assert named(symbols, CODE) == ("one@plt", 0)


def test_a_symbol_that_is_not_in_the_table_names_nothing() -> None:
    for symbol in (0, 3, 1 << 31):
        with stubs_of(jump(CODE, 0x8000).ljust(16), [relocation(0x8000, JUMP_SLOT, symbol=symbol)]) as symbols:
            assert named(symbols, CODE) is None
