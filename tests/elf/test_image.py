"""ELF files as gcc makes them, as strip leaves them, and as an attacker would write them."""

from __future__ import annotations

import io
import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from pyflame_ebpf.elf.image import BadElf, ElfImage, ElfType, Section, Segment, open_regular
from pyflame_ebpf.elf.symbols import ElfSymbols
from tests.elf.handmade import HEADER, SEGMENT, Handmade
from tests.elf.libraries import SHARED, Build, image_of

PT_LOAD = 1
SOURCE = """
#include <unistd.h>
int shared_data = 7;
extern int elsewhere(void);
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
__attribute__((noinline)) int visible(int x) { return hidden(x) + shared_data; }
int alias_of_visible(int) __attribute__((alias("visible")));
"""
PROGRAM = SOURCE + 'int main(void) { write(1, "ready\\n", 6); return visible(1) + (int)read(0, &shared_data, 1); }'


@pytest.fixture
def library(build: Build) -> Path:
    return build(SOURCE, *SHARED, "-Wl,--build-id=0x0123456789abcdef0123")


def test_the_build_id_is_in_memory_where_the_image_says(library: Path) -> None:
    with image_of(library) as image:
        assert image.build_id.hex() == "0123456789abcdef0123"
        assert image.read_virtual(image.build_id_vaddr, 10) == image.build_id


@pytest.mark.parametrize(("flag", "kind"), [("-pie", ElfType.DYN), ("-no-pie", ElfType.EXEC)])
def test_executables_say_how_they_are_loaded_and_where_the_linker_reports(
    build: Build, flag: str, kind: ElfType
) -> None:
    with image_of(build(PROGRAM, flag)) as image:
        assert (image.type, image.interpreted) == (kind, True)
        tag = image.read_virtual(image.debug_entry_vaddr - 8, 8)
    assert int.from_bytes(tag, "little") == 21  # DT_DEBUG


def ask_everything(data: bytes | bytearray, path: Path) -> tuple[object, ...]:
    path.write_bytes(data)
    with open_regular(str(path)) as file:
        image = ElfImage(file)
        symbols = ElfSymbols(image)
        symbols.symbol("visible")
        symbols.symbol("no such symbol")
        symbols.function_at(0x1100)
        return image.build_id, image.sections, image.debug_entry_vaddr, image.dynamic_vaddr


def test_a_file_cut_anywhere_is_at_worst_bad(library: Path, tmp_path: Path) -> None:
    data = library.read_bytes()
    for size in range(0, len(data), 97):
        with suppress(BadElf):
            ask_everything(data[:size], tmp_path / "cut")


def test_a_damaged_file_is_at_worst_bad(library: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    whole = library.read_bytes()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(6):
            place = chance.randrange(64 + 56 * 12) if chance.random() < 0.6 else chance.randrange(len(data))
            data[place] = chance.randrange(256)
        with suppress(BadElf):
            ask_everything(data, tmp_path / "damaged")


def test_an_elf_file_in_memory_only_is_not_accepted() -> None:
    with pytest.raises((BadElf, io.UnsupportedOperation)):
        ElfImage(io.BytesIO(b"\x7fELF"))


# Files that no compiler makes


def refusal(file: Handmade) -> str:
    with pytest.raises(BadElf) as refused, file.opened():
        pass
    return refused.value.message


def test_files_of_other_kinds_are_refused_with_the_reason() -> None:
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    other_machine = "not an ELF file for a 64-bit little-endian machine"
    other_kind = "not an ELF executable or shared library"
    for place, value in ((0, 0x7E), (3, 0x47), (4, 1), (5, 2)):
        assert refusal(Handmade(ident=ident[:place] + bytes([value]) + ident[place + 1 :])) == other_machine
    assert [refusal(Handmade(kind=kind)) for kind in (0, 1, 4)] == [other_kind] * 3
    assert refusal(Handmade(segment_size=32)) == other_kind
    segment = Segment(PT_LOAD, 4, 0, 0, 0, 0)
    assert refusal(Handmade(segments=[segment] * 257)) == other_kind
    with Handmade(segments=[segment] * 256, kind=2).opened() as image:
        assert (len(image.segments), image.type) == (256, ElfType.EXEC)


def test_segments_and_header_are_read_field_by_field() -> None:
    segments = (Segment(PT_LOAD, 5, 0x40, 0x1000, 0x10, 0x20), Segment(3, 4, 1, 2, 3, 4))
    with Handmade(segments=segments, entry=0x1234, machine=183).opened() as image:
        assert (image.all_segments, image.segments, image.entry, image.machine, image.interpreted) == (
            segments,
            segments[:1],
            0x1234,
            183,
            True,
        )


def loaded(body: bytes = b"0123456789", flags: int = 4, vaddr: int = 0x5000) -> Handmade:
    """A file with one loaded segment, which holds the body."""
    at = HEADER + SEGMENT
    return Handmade(segments=[Segment(PT_LOAD, flags, at, vaddr, len(body), len(body) + 100)], body=body)


def test_addresses_are_read_within_a_segment_s_bytes_in_the_file() -> None:
    file = loaded()
    with file.opened() as image:
        assert image.read_virtual(0x5000, 10) == b"0123456789"
        assert (image.read_virtual(0x5009, 1), image.extent(0x5002, 3)) == (b"9", (file.body_at + 2, 3))
        assert [image.read_virtual_up_to(vaddr, 4) for vaddr in (0x5000, 0x5008)] == [b"0123", b"89"]
        for vaddr, size in ((0x4FFF, 1), (0x5009, 2), (0x500A, 1)):
            with pytest.raises(BadElf, match=f"nothing in the file is loaded at {vaddr:#x}"):
                image.read_virtual(vaddr, size)
        for vaddr in (0x4FFF, 0x500A):
            with pytest.raises(BadElf, match="nothing in the file is loaded"):
                image.read_virtual_up_to(vaddr, 4)


def test_offsets_have_addresses_in_code_first_and_as_far_as_the_first_page_begins() -> None:
    data, code = Segment(PT_LOAD, 6, 0x1010, 0x9010, 0x100, 0x100), Segment(PT_LOAD, 5, 0x1080, 0x5080, 0x100, 0x100)
    with Handmade(segments=[data, code]).opened() as image:
        places = (0xFFF, 0x1000, 0x1010, 0x1080, 0x117F, 0x1180)
        assert [image.vaddr_of(offset) for offset in places] == [None, 0x5000, 0x5010, 0x5080, 0x517F, None]
        assert image.first_text_vaddr == 0x5080
    with Handmade(segments=[data]).opened() as image:
        assert [image.vaddr_of(offset) for offset in (0xFFF, 0x1000, 0x110F, 0x1110)] == [None, 0x9000, 0x910F, None]
        assert image.first_text_vaddr == -1


def test_the_first_code_is_the_lowest() -> None:
    segments = [Segment(PT_LOAD, flags, 0, vaddr, 0, 0) for flags, vaddr in ((4, 0x1000), (5, 0x3000), (1, 0x2000))]
    with Handmade(segments=segments).opened() as image:
        assert image.first_text_vaddr == 0x2000


def dynamic(*entries: tuple[int, int], more: bytes = b"") -> Handmade:
    body = b"".join(struct.pack("<QQ", *entry) for entry in entries) + more
    at = HEADER + 2 * SEGMENT
    segments = [Segment(PT_LOAD, 4, at, 0x5000, len(body), 0), Segment(2, 4, at, 0x5000, len(body), 0)]
    return Handmade(segments=segments, body=body)


def test_the_dynamic_section_ends_at_its_null_entry_and_the_last_of_a_tag_counts() -> None:
    with dynamic((5, 1), (21, 0), (5, 2), (0, 0), (6, 3)).opened() as image:
        assert image.dynamic_entries == [(5, 1), (21, 0), (5, 2)]
        assert image.dynamic == {5: 2, 21: 0}
        assert (image.dynamic_vaddr, image.debug_entry_vaddr) == (0x5000, 0x5000 + 16 + 8)
    with dynamic((5, 1), more=b"1234567").opened() as image:
        assert (image.dynamic_entries, image.debug_entry_vaddr) == ([(5, 1)], 0)
    with Handmade().opened() as image:
        assert (image.dynamic_entries, image.dynamic_vaddr, image.debug_entry_vaddr) == ([], 0, 0)


def test_a_dynamic_section_above_64_kib_is_refused() -> None:
    with dynamic(*[(5, 1)] * 4096).opened() as image:
        assert len(image.dynamic_entries) == 4096
    with dynamic(*[(5, 1)] * 4097).opened() as image, pytest.raises(BadElf, match="dynamic section does not fit"):
        _ = image.dynamic_entries


def test_tables_of_the_dynamic_section_have_an_address_and_a_size() -> None:
    with dynamic((7, 0x5004), (8, 3), (23, 0x5000)).opened() as image:
        assert image.relocations(7, 8) == image.read_virtual(0x5004, 3)
        assert image.table_extent(7, 8) == (HEADER + 2 * SEGMENT + 4, 3)
        assert (image.relocations(23, 2), image.table_extent(23, 2)) == (b"", (0, 0))
    with dynamic((7, 0x5004), (8, 0x1000)).opened() as image, pytest.raises(BadElf):
        image.relocations(7, 8)


def with_notes(*notes: bytes) -> Handmade:
    segments, body = [], b""
    for note in notes:
        at = HEADER + SEGMENT * len(notes) + len(body)
        segments.append(Segment(4, 4, at, 0x7000 + at, len(note), len(note)))
        body += note
    return Handmade(segments=segments, body=body)


def test_the_build_id_is_in_the_first_notes_that_have_one() -> None:
    note = struct.pack("<III", 4, 4, 3) + b"GNU\0" + b"\1\2\3\4"
    with with_notes(b"no notes", note, note[:-4] + b"late").opened() as image:
        assert (image.build_id, image.build_id_vaddr) == (b"\1\2\3\4", 0x7000 + HEADER + 3 * SEGMENT + 8 + 16)
    with with_notes(bytes(12)).opened() as image:
        assert (image.build_id, image.build_id_vaddr) == (b"", 0)
    for padding, expected in ((65536 - len(note), b"\1\2\3\4"), (65540 - len(note), b"")):
        with with_notes(note + bytes(padding)).opened() as image:
            assert image.build_id == expected


def sections_of(**fields: int) -> tuple[Section, ...]:
    section = Section(".text", 1, 0x1000, HEADER, 4, 2)
    nothing = Section("", 0, 0, 0, 0, 0)
    file = Handmade(sections=[nothing, section], body=b"code")
    for name, value in fields.items():
        setattr(file, name, value)
    with file.opened() as image:
        return image.sections


def test_sections_are_read_field_by_field_with_their_names() -> None:
    nothing, text, names = sections_of()
    assert (nothing, text) == (Section("", 0, 0, 0, 0, 0), Section(".text", 1, 0x1000, HEADER, 4, 2))
    assert names.name == ".shstrtab"
    assert len(sections_of(names=2)) == 3


def test_section_headers_that_make_no_sense_count_as_none() -> None:
    assert sections_of(section_size=63) == ()
    assert sections_of(names=3) == ()
    with Handmade().opened() as image:
        assert image.sections == ()
    nothing = Section("", 0, 0, 0, 0, 0)
    with Handmade(sections=[nothing] * 4095).opened() as image:
        assert len(image.sections) == 4096
    with Handmade(sections=[nothing] * 4096).opened() as image:
        assert image.sections == ()


def test_of_sections_with_one_name_the_first_counts_and_its_bytes_are_read_within_it() -> None:
    first, second = Section(".a", 1, 0, HEADER, 4, 0), Section(".a", 1, 0, HEADER + 4, 4, 0)
    no_bits = Section(".bss", 8, 0, HEADER, 4, 0)
    with Handmade(sections=[first, second, no_bits], body=b"abcdefgh").opened() as image:
        assert (image.section(".a"), image.section(".b")) == (first, None)
        assert (image.section_data(first), image.section_data(second, 4)) == (b"abcd", b"efgh")
        assert [image.section_part(first, start, 3) for start in (0, 2, 4)] == [b"abc", b"cd", b""]
        with pytest.raises(BadElf, match=r"its section \.a does not fit"):
            image.section_data(first, 3)
        with pytest.raises(BadElf, match=r"its section \.bss is not in the file"):
            image.section_data(no_bits)


def test_the_unwind_index_is_the_segment_of_its_type() -> None:
    index = Segment(0x6474E550, 4, 1, 2, 3, 4)
    with Handmade(segments=[Segment(PT_LOAD, 5, 0, 0, 0, 0), index]).opened() as image:
        assert (image.unwind_index, image.interpreted) == (index, False)
    with Handmade().opened() as image:
        assert image.unwind_index is None
