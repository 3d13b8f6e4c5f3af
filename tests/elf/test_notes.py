"""Notes of ELF files, as tools write them and as an attacker would."""

from __future__ import annotations

import struct

import pytest

from pyflame_ebpf.elf.notes import Note, build_id_in, notes_in

PROPERTY = struct.pack("<III", 4, 5, 5) + b"GNU\0" + b"12345\0\0\0"
BUILD_ID = struct.pack("<III", 4, 3, 3) + b"GNU\0" + b"abc\0"
OTHER = struct.pack("<III", 5, 4, 3) + b"Rust\0\0\0\0" + b"wxyz"


def test_names_and_descriptors_are_padded_to_four_bytes() -> None:
    assert list(notes_in(PROPERTY + OTHER + BUILD_ID)) == [
        Note(5, b"GNU\0", 16, 5),
        Note(3, b"Rust\0", 44, 4),
        Note(3, b"GNU\0", 64, 3),
    ]


def test_the_build_id_is_the_note_of_its_type_and_owner() -> None:
    assert build_id_in(PROPERTY + OTHER + BUILD_ID + BUILD_ID) == Note(3, b"GNU\0", 64, 3)
    assert build_id_in(PROPERTY + OTHER) is None


@pytest.mark.parametrize("cut", range(1, len(BUILD_ID)))
def test_notes_that_are_cut_end_the_list(cut: int) -> None:
    whole = [Note(5, b"GNU\0", 16, 5)]
    complete = cut == 1  # the padding of the last descriptor may be missing
    expected = [*whole, Note(3, b"GNU\0", 40, 3)] if complete else whole
    assert list(notes_in(PROPERTY + BUILD_ID[:-cut])) == expected


@pytest.mark.parametrize("sizes", [(4, 0xFFFFFFFF), (0xFFFFFFFF, 4), (0xFFFFFFFD, 0xFFFFFFFD)])
def test_sizes_beyond_the_data_end_the_list(sizes: tuple[int, int]) -> None:
    assert list(notes_in(struct.pack("<III", *sizes, 3) + b"GNU\0abcd")) == []


def test_an_empty_note_at_the_end_counts() -> None:
    assert list(notes_in(struct.pack("<III", 0, 0, 7))) == [Note(7, b"", 12, 0)]
