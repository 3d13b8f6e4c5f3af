"""The heads of CIEs and FDEs, whole, damaged and cut short."""

from __future__ import annotations

import struct

import pytest

from pyflame_ebpf.elf.image import BadElf
from pyflame_ebpf.unwind.call_frame_information import CommonEntry
from pyflame_ebpf.unwind.frame_entries import FrameEntry, common_entry_vaddr, parse_common, parse_frame
from pyflame_ebpf.unwind.rules import NOTHING_SAID, SAME, at_cfa
from tests.unwind.made_files import COMMON, entry

AT = 0x4000
COMPILED = CommonEntry(
    code_alignment=1,
    data_alignment=-8,
    return_register=16,
    pointer_encoding=0x1B,
    augmented=True,
    is_signal_frame=False,
    initial=((7, 8, None), SAME, at_cfa(-8)),
)


def common(body: bytes) -> CommonEntry:
    """Parse a CIE with this body."""
    return parse_common(entry(0, body), AT)


def test_a_compilers_common_entry_is_understood() -> None:
    assert common(COMMON) == COMPILED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\1\0\1\x78\x10", COMPILED._replace(pointer_encoding=0, augmented=False, initial=NOTHING_SAID)),
        (
            b"\3zR\0\4\x7c\xa0\1\1\x0b",
            COMPILED._replace(
                code_alignment=4, data_alignment=-4, return_register=160, pointer_encoding=0x0B, initial=NOTHING_SAID
            ),
        ),
        (
            b"\1zR\0\1\x78\xa0\1\x0b",
            COMPILED._replace(return_register=160, pointer_encoding=0x0B, initial=NOTHING_SAID),
        ),
        (b"\1zRS\0\1\x78\x10\1\x1b", COMPILED._replace(is_signal_frame=True, initial=NOTHING_SAID)),
        (b"\1zPLR\0\1\x78\x10\7\x03\1\2\3\4\x1b\x1b", COMPILED._replace(initial=NOTHING_SAID)),
        (b"\1zL\0\1\x78\x10\1\x1b", COMPILED._replace(pointer_encoding=0, initial=NOTHING_SAID)),
        (b"\1zR\0\1\x78\x10\3\x1b\x0a\x0a\x0c\7\x08", COMPILED._replace(initial=((7, 8, None), SAME, SAME))),
        (b"\1zR\0\1\x78\x10\1\x1b\x0c\7\x08\x41\x0e\x10", COMPILED._replace(initial=((7, 8, None), SAME, SAME))),
    ],
    ids=["none", "version 3", "version 1", "signal", "personality", "language data", "longer", "advance"],
)
def test_common_entries_say_what_their_augmentation_tells(body: bytes, expected: CommonEntry) -> None:
    assert common(body) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (entry(1, COMMON), "not a common entry"),
        (entry(0, b"\2" + COMMON[1:]), "not a common entry"),
        (entry(0, b"\4" + COMMON[1:]), "not a common entry"),
        (entry(0, b"\1eh\0" + bytes(8) + b"\1\x78\x10"), "not supported"),
        (entry(0, b"\1zQ\0\1\x78\x10\1\x1b"), "not supported"),
        (entry(0, b"\1zR"), "not supported"),
        (entry(0, b"\1zR\0\1\x78"), "cut short"),
        (entry(0, b"\1zP\0\1\x78\x10\1\x03\1"), "cut short"),
        (entry(0, b"\1"), "not supported"),
        (entry(0, b""), "cut short"),
        (b"\0\0\0\0\0\0", "cut short"),
        (entry(0, COMMON + b"\x0e"), "cut short"),
    ],
)
def test_a_common_entry_that_is_damaged_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadElf, match=message):
        parse_common(data, AT)


def test_a_function_s_entry_refers_to_a_common_entry_before_it() -> None:
    assert common_entry_vaddr(entry(0x24, b""), AT) == AT + 4 - 0x24


@pytest.mark.parametrize("data", [entry(0, b""), entry(0x24, b"")[:7], b""])
def test_bytes_that_are_no_function_s_entry_are_refused(data: bytes) -> None:
    with pytest.raises(BadElf, match="not a frame entry"):
        common_entry_vaddr(data, AT)


def near(distance: int, size: int, rest: bytes) -> bytes:
    """An FDE with addresses as compilers write them, and what follows them."""
    return entry(0x24, struct.pack("<iI", distance, size) + rest)


@pytest.mark.parametrize(
    ("common_entry", "data", "start", "end", "instructions"),
    [
        (COMPILED, near(100, 50, b"\0\x41\x0e\x10"), AT + 108, AT + 158, 17),
        (COMPILED, near(-100, 50, b"\0\x41\x0e\x10"), AT - 92, AT - 42, 17),
        (COMPILED, near(100, 50, b"\4\1\2\3\4\x41"), AT + 108, AT + 158, 21),
        (COMPILED, near(100, 50, b"\0"), AT + 108, AT + 158, 17),
        (COMPILED, near(-AT - 9, 50, b"\0\x41"), (1 << 64) - 1, (1 << 64) + 49, 17),
        (COMPILED, near(100, 0xFFFFFFFF, b"\0\x41"), AT + 108, AT + 107, 17),
        (COMPILED._replace(augmented=False), near(100, 50, b"\0\x41"), AT + 108, AT + 158, 16),
        (COMPILED._replace(pointer_encoding=0x0B), near(100, 50, b"\0\x41"), 100, 150, 17),
        (COMPILED._replace(pointer_encoding=0x04), entry(9, struct.pack("<QQ", 7, 9) + b"\2ab"), 7, 16, 27),
    ],
)
def test_a_function_s_entry_says_which_code_it_covers(
    common_entry: CommonEntry, data: bytes, start: int, end: int, instructions: int
) -> None:
    assert parse_frame(data, AT, common_entry) == FrameEntry(common_entry, AT, start, end, data, instructions)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (near(100, 50, b""), "cut short"),
        (near(100, 50, b"")[:15], "cut short"),
        (near(100, 50, b"\3ab"), "does not fit"),
        (entry(0x24, b""), "cut short"),
    ],
)
def test_a_function_s_entry_that_is_cut_short_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadElf, match=message):
        parse_frame(data, AT, COMPILED)
