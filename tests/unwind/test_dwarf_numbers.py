"""Numbers as DWARF encodes them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.elf.image import BadElf
from pyflame_ebpf.unwind.dwarf_numbers import Reader

AT = 0x1000


@pytest.mark.parametrize(
    ("data", "unsigned", "signed"),
    [
        (b"\x00", 0, 0),
        (b"\x3f", 63, 63),
        (b"\x40", 64, -64),
        (b"\x7f", 127, -1),
        (b"\x80\x01", 128, 128),
        (b"\x80\x40", 8192, -8192),
        (b"\xe5\x8e\x26", 624485, 624485),
        (b"\xff" * 9 + b"\x01", (1 << 64) - 1, (1 << 64) - 1),
        (b"\xff" * 9 + b"\x7f", (1 << 70) - 1, -1),
    ],
)
def test_numbers_of_seven_bits_a_byte(data: bytes, unsigned: int, signed: int) -> None:
    readers = Reader(data + b"\x55", AT), Reader(data + b"\x55", AT)
    assert (readers[0].uleb(), readers[1].sleb()) == (unsigned, signed)
    assert [reader.position for reader in readers] == [len(data)] * 2


def test_a_number_of_more_than_ten_bytes_is_refused() -> None:
    with pytest.raises(BadElf, match="too long"):
        Reader(b"\x80" * 10 + b"\x00", AT).uleb()


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_a_number_that_is_cut_short_is_an_index_error(data: bytes) -> None:
    with pytest.raises(IndexError):
        Reader(data, AT).uleb()


def test_a_block_is_as_many_bytes_as_are_said_before_it() -> None:
    reader = Reader(b"\x02ab\x00\x01c", AT)
    assert [reader.block() for _ in range(3)] == [b"ab", b"", b"c"]


def test_a_block_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BadElf, match="does not fit"):
        Reader(b"\x03ab", AT).block()


def test_numbers_of_a_fixed_size_and_bytes_follow_each_other() -> None:
    reader = Reader(b"\x05\x01\x02\x06", AT)
    assert (reader.byte(), reader.fixed(struct.Struct("<H")), reader.byte(), reader.position) == (5, 0x201, 6, 4)


@pytest.mark.parametrize(
    ("encoding", "data", "value"),
    [
        (0x00, struct.pack("<Q", 5), 5),
        (0x01, b"\x80\x01", 128),
        (0x02, struct.pack("<H", 0xFFFF), 0xFFFF),
        (0x03, struct.pack("<I", 0xFFFFFFFF), 0xFFFFFFFF),
        (0x04, struct.pack("<Q", (1 << 64) - 1), (1 << 64) - 1),
        (0x09, b"\x7f", -1),
        (0x0A, struct.pack("<h", -2), -2),
        (0x0B, struct.pack("<i", -3), -3),
        (0x0C, struct.pack("<q", -4), -4),
    ],
)
def test_numbers_in_the_format_of_a_pointer(encoding: int, data: bytes, value: int) -> None:
    reader = Reader(data, AT)
    assert (reader.number(encoding), reader.position) == (value, len(data))


@pytest.mark.parametrize(
    ("encoding", "address"),
    [
        (0x0B, (1 << 64) - 6),
        (0x1B, AT + 2 - 6),
        (0x3B, 0x800 - 6),
        (0x03, (1 << 32) - 6),
        (0x13, AT + 2 + (1 << 32) - 6),
    ],
)
def test_pointers_are_relative_to_what_their_encoding_says(encoding: int, address: int) -> None:
    assert Reader(b"\0\0" + struct.pack("<i", -6), AT, 2).pointer(encoding, 0x800) == address


def test_addresses_are_64_bits_wide() -> None:
    assert Reader(struct.pack("<q", 0x20), (1 << 64) - 0x10).pointer(0x1C) == 0x10


@pytest.mark.parametrize("encoding", [0x2B, 0x4B, 0x50, 0x8B, 0x9B, 0xFF, 0x3B])
def test_pointers_relative_to_what_is_not_known_are_refused(encoding: int) -> None:
    with pytest.raises(BadElf, match="not supported"):
        Reader(bytes(16), AT).pointer(encoding)


@pytest.mark.parametrize("encoding", [0x05, 0x08, 0x0D, 0x0F])
def test_formats_that_do_not_exist_are_refused(encoding: int) -> None:
    with pytest.raises(BadElf, match="do not exist"):
        Reader(bytes(16), AT).number(encoding)


@given(st.integers(0, (1 << 70) - 1))
def test_any_number_is_read_as_it_was_written(number: int) -> None:
    groups = [number >> shift & 0x7F for shift in range(0, 70, 7)]
    data = bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
    assert Reader(data, AT).uleb() == number
    assert Reader(data, AT).sleb() == (number if number < 1 << 69 else number - (1 << 70))
