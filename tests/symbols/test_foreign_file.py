"""Files for machines that the profiler does not run on, as ``doctor`` explains them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NoReturn

import pytest

from pyflame_ebpf.host import maps
from pyflame_ebpf.symbols.foreign_file import machine_in, machine_of
from pyflame_ebpf.symbols.mapped_file import MappedFile
from pyflame_ebpf.symbols.native_symbols import NativeSymbols
from tests.symbols.mapped import opened_by_path


def header(bits: int, order: str, machine: int) -> bytes:
    """The header of a shared library, all of whose tables would be far beyond the file's end."""
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1])
    address = "I" if bits == 32 else "Q"
    rest = struct.pack(f"{order}HHI{address * 3}IHHHHHH", 3, machine, 1, *[(1 << bits) - 1] * 3, 0, *[0xFFFF] * 6)
    return (ident.ljust(16, b"\0") + rest).ljust(64, b"\0")


@pytest.mark.parametrize(
    ("bits", "order", "machine", "said"),
    [
        (32, "<", 3, "Intel 80386, 32-bit little-endian"),
        (32, ">", 20, "PowerPC, 32-bit big-endian"),
        (64, ">", 22, "IBM S/390, 64-bit big-endian"),
        (64, "<", 62, "Advanced Micro Devices X86-64, 64-bit little-endian"),
        (64, ">", 0xFFFF, "<unknown>, 64-bit big-endian"),
    ],
)
def test_a_header_says_for_which_machine_its_file_is(bits: int, order: str, machine: int, said: str) -> None:
    assert machine_in(header(bits, order, machine)) == said


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", [0, 3, 255])
def test_other_bytes_name_no_machine(place: int, value: int) -> None:
    data = bytearray(header(32, "<", 3))
    data[place] = value
    assert machine_in(bytes(data)) == ""


def test_a_header_that_is_cut_names_no_machine() -> None:
    assert [machine_in(header(32, "<", 3)[:size]) for size in range(64)] == [""] * 64


def mapped_at_no_process(path: Path) -> MappedFile:
    return MappedFile(0, maps.Mapping(4096, 8192, 0, True, 1, 1, str(path)), opened_by_path)


def test_why_there_are_no_names_says_for_which_machine_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(header(32, "<", 3))
    reason = NativeSymbols().why_unnamed(mapped_at_no_process(tmp_path / "lib.so"))
    assert reason == ("not an ELF file for a 64-bit little-endian machine: it is for Intel 80386, 32-bit little-endian")


def test_a_file_that_is_gone_names_no_machine(tmp_path: Path) -> None:
    def refuse(_mapping: maps.Mapping) -> NoReturn:
        raise PermissionError

    assert machine_of(mapped_at_no_process(tmp_path / "none")) == ""
    assert machine_of(MappedFile(0, mapped_at_no_process(tmp_path).mapping, refuse)) == ""
