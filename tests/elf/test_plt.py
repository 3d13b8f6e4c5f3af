"""Stubs of the procedure linkage table → the functions that they lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyflame_ebpf.elf.function_table import Hit
from pyflame_ebpf.elf.plt import PltStubs
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
