"""Which entries of .eh_frame belong to an address range, by the linker's table and without it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.unwind.frame_index import NO_FRAMES, Found, FrameIndex, open_index, read_entry
from tests.unwind.made_files import CODE_AT, COMMON, FRAMES_AT, HEADER_AT, elf, entry, frames, in_memory, with_table


@contextmanager
def index_of(data: bytes) -> Iterator[FrameIndex]:
    """The index of a file."""
    with in_memory(data) as file:
        yield open_index(ElfImage(file))


def without_table(data: bytes) -> bytes:
    """The same file, whose .eh_frame_hdr leads to the section alone."""
    changed = bytearray(data)
    changed[HEADER_AT + 2 : HEADER_AT + 4] = b"\xff\xff"
    return bytes(changed)


FUNCTIONS, SIZE = 300, 16
SECTION, PLACES = frames(*[b""] * FUNCTIONS, size=SIZE)
ALL = [Found(CODE_AT + SIZE * number, place) for number, place in enumerate(PLACES)]
FILE = elf(*with_table((SECTION, PLACES), SIZE))
END = CODE_AT + SIZE * FUNCTIONS


@pytest.mark.parametrize("data", [FILE, without_table(FILE)], ids=["search table", "no search table"])
@pytest.mark.parametrize(
    ("begin", "end", "first", "last"),
    [
        (CODE_AT, END, 0, FUNCTIONS),
        (CODE_AT - 4096, CODE_AT + 1, 0, 1),
        (CODE_AT - 4096, CODE_AT, 0, 0),
        (CODE_AT + 1, CODE_AT + 2, 0, 1),
        (CODE_AT + SIZE, CODE_AT + SIZE + 1, 1, 2),
        (CODE_AT + SIZE - 1, CODE_AT + SIZE + 1, 0, 2),
        (CODE_AT + 63 * SIZE, CODE_AT + 65 * SIZE, 63, 65),
        (CODE_AT + 64 * SIZE, CODE_AT + 66 * SIZE, 64, 66),
        (CODE_AT + 128 * SIZE + 8, CODE_AT + 130 * SIZE, 128, 130),
        (CODE_AT + 100 * SIZE, CODE_AT + 280 * SIZE, 100, 280),
        (END - SIZE, END + 4096, FUNCTIONS - 1, FUNCTIONS),
        (END + 4096, END + 8192, FUNCTIONS - 1, FUNCTIONS),
    ],
)
def test_entries_that_start_in_a_range_are_found_with_the_last_before(
    data: bytes, begin: int, end: int, first: int, last: int
) -> None:
    with index_of(data) as index:
        assert index.find(begin, end) == ALL[first:last]


def test_every_place_of_a_table_is_found() -> None:
    with index_of(FILE) as index:
        assert [index.find(found.start + 3, found.start + 4) for found in ALL] == [[found] for found in ALL]


def test_no_more_entries_than_a_page_can_have_are_found() -> None:
    section, places = frames(*[b""] * 100, size=1)
    table = [(CODE_AT + number, places[number]) for number in range(100)]
    with index_of(elf(section, table)) as index:
        assert len(index.find(CODE_AT, CODE_AT + 4096)) == 100


def test_a_walk_of_the_section_sorts_what_it_finds() -> None:
    data = entry(0, COMMON)
    places = []
    for start in (CODE_AT + 500, CODE_AT, CODE_AT + 100):
        places.append(FRAMES_AT + len(data))
        data += entry(len(data) + 4, struct.pack("<iI", start - (FRAMES_AT + len(data) + 8), 50) + b"\0")
    with index_of(without_table(elf(data, [(CODE_AT, places[0])]))) as index:
        found = index.find(CODE_AT, CODE_AT + 4096)
    assert found == [Found(CODE_AT, places[1]), Found(CODE_AT + 100, places[2]), Found(CODE_AT + 500, places[0])]


def walked(section: bytes) -> list[int]:
    """Where the FDEs are that a walk of a section finds."""
    with index_of(without_table(elf(section, [(CODE_AT, FRAMES_AT)]))) as index:
        return [found.vaddr for found in index.find(CODE_AT, CODE_AT + (1 << 20))]


def test_a_walk_ends_at_the_terminator_and_at_a_length_that_cannot_be() -> None:
    section, places = frames(b"", b"", b"")
    second = places[1] - FRAMES_AT
    for length in (0, 0xFFFFFFFF, 0x7FFFFFFF, len(section)):
        cut = section[:second] + struct.pack("<I", length) + section[second + 4 :]
        assert walked(cut) == places[:1]
    assert walked(section) == places


def test_a_walk_goes_on_behind_an_entry_that_is_not_understood() -> None:
    section, places = frames(b"", b"", b"")
    second = places[1] - FRAMES_AT
    damaged = section[: second + 4] + struct.pack("<I", 2) + section[second + 8 :]
    assert walked(damaged) == [places[0], places[2]]


def test_an_entry_of_no_code_is_left_out_of_a_walk() -> None:
    section, places = frames(b"", b"")
    second = places[1] - FRAMES_AT
    empty = section[: second + 12] + bytes(4) + section[second + 16 :]
    assert walked(empty) == places[:1]


TABLE_AT = HEADER_AT + 12


@pytest.mark.parametrize(
    ("place", "changed"),
    [
        (HEADER_AT + 8, struct.pack("<I", 0)),
        (HEADER_AT + 8, struct.pack("<I", FUNCTIONS + 1)),
        (HEADER_AT + 8, struct.pack("<I", 0xFFFFFFFF)),
        (HEADER_AT + 3, b"\x1b"),
        (HEADER_AT + 2, b"\xff"),
    ],
    ids=["no entries", "one more than there are", "many more than there are", "another encoding", "no count"],
)
def test_a_table_that_cannot_be_searched_is_not_used(place: int, changed: bytes) -> None:
    data = bytearray(FILE)
    data[TABLE_AT : TABLE_AT + 8 * FUNCTIONS] = bytes(8 * FUNCTIONS)  # by which nothing would be found
    data[place : place + len(changed)] = changed
    with index_of(bytes(data)) as index:
        assert index.find(CODE_AT, END) == ALL


def test_a_header_that_leads_nowhere_is_of_a_file_without_entries() -> None:
    data = bytearray(without_table(FILE))
    data[HEADER_AT + 1] = 0xFF
    with index_of(bytes(data)) as index:
        assert index is NO_FRAMES
        assert index.find(0, 1 << 64) == []


def test_a_header_that_is_cut_short_is_refused() -> None:
    data = bytearray(FILE)
    data[64 + 56 + 32 : 64 + 56 + 48] = struct.pack("<QQ", 6, 6)  # the segment's sizes
    with in_memory(data) as file, pytest.raises(BadElf, match="cut short"):
        open_index(ElfImage(file))


def test_an_entry_is_read_whole_whatever_its_size() -> None:
    section, (first, second) = frames(b"\x42" * 3000, b"")
    with in_memory(elf(section, [(CODE_AT, first)])) as file:
        image = ElfImage(file)
        assert read_entry(image, first) == section[first - FRAMES_AT : second - FRAMES_AT]
        assert read_entry(image, second) == section[second - FRAMES_AT :]


@pytest.mark.parametrize(("size", "accepted"), [(3, False), (4, True), (508, True), (509, False)])
def test_an_entry_larger_or_smaller_than_any_is_refused(size: int, accepted: bool) -> None:
    section = struct.pack("<I", size) + bytes(1000)
    with in_memory(elf(section, [(CODE_AT, FRAMES_AT)])) as file:
        image = ElfImage(file)
        if accepted:
            assert len(read_entry(image, FRAMES_AT, 512)) == size + 4
        else:
            with pytest.raises(BadElf, match=f"cannot take {size + 4} bytes"):
                read_entry(image, FRAMES_AT, 512)
