"""Mapped code as the programs are told of it, made of real mappings of this process."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

import pytest

from pyflame_ebpf.cpython.interpreter import load_bias
from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.host.process_directory import ProcessGone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.tracking.mapped_code import NO_FILE, MappedCode
from pyflame_ebpf.unwind.row import unpack_rows
from tests.tracking.mapped_libraries import (
    ME,
    OTHER,
    code_of_this_process,
    libc,
    opened_path,
    slot_of,
    table_of,
)
from tests.tracking.written_maps import ToldMapping, WrittenMaps


@pytest.fixture
def written() -> WrittenMaps:
    return WrittenMaps()


@pytest.fixture
def code(written: WrittenMaps) -> MappedCode:
    return MappedCode(written, opened_path)


def test_mappings_are_told_in_order_between_a_first_and_an_unused_one(code: MappedCode, written: WrittenMaps) -> None:
    slot = slot_of(code, ME, reversed(code_of_this_process()))
    told = written.mappings[slot]
    wanted = [mapping.start for mapping in code_of_this_process() if mapping.end < abi.UNUSED_MAPPING]
    assert [start for start, _, _, _ in told[: len(wanted) + 2]] == [0, *wanted, abi.UNUSED_MAPPING]
    assert len(told) == abi.MAPPINGS


def test_of_more_mappings_than_there_is_room_for_the_lowest_are_told(code: MappedCode, written: WrittenMaps) -> None:
    many = [Mapping(number << 12, (number + 2) << 12, 0, True, 0, 0, "") for number in range(2, 1200, 2)]
    told = written.mappings[slot_of(code, ME, many)]
    assert [(each.start, each.pages) for each in told[1:]] == [(each.start, 2) for each in many[: abi.MAPPINGS - 1]]


def test_what_is_not_executable_or_in_the_kernels_half_is_not_told(code: MappedCode, written: WrittenMaps) -> None:
    data, last, kernel = (
        Mapping(0x1000, 0x2000, 0, False, 0, 0, ""),
        Mapping(0x3000, abi.UNUSED_MAPPING - 1, 0, True, 0, 0, ""),
        Mapping(0x4000, abi.UNUSED_MAPPING, 0, True, 0, 0, "[vsyscall]"),
    )
    told = written.mappings[slot_of(code, ME, [data, last, kernel])]
    assert [each.start for each in told[:3]] == [0, 0x3000, abi.UNUSED_MAPPING]


def test_a_mapping_is_told_with_its_pages_and_what_its_files_addresses_are_moved_by(
    code: MappedCode, written: WrittenMaps
) -> None:
    mapping = libc()
    with opened_path(ME, mapping) as file:
        bias = load_bias(mapping, ElfImage(file).segments)
    assert bias
    below = replace(mapping, start=0, end=mapping.end - mapping.start)  # moved down: the bias is negative
    for each, expected in ((mapping, bias), (below, (bias - mapping.start) % (1 << 64))):
        told = written.mappings[slot_of(code, ME, [each])][1]
        assert told == ToldMapping(each.start, expected, (each.end - each.start) >> 12, 1)


def test_two_processes_that_map_one_file_share_its_number(code: MappedCode, written: WrittenMaps) -> None:
    first, second = (slot_of(code, identity, [libc()]) for identity in (ME, OTHER))
    assert first != second
    assert written.mappings[first][1] == written.mappings[second][1]
    assert written.mappings[first][1].file != NO_FILE


def test_a_file_that_cannot_be_opened_has_no_number(written: WrittenMaps) -> None:
    def refuse(_identity: Identity, mapping: Mapping) -> BinaryIO:
        raise PermissionError(mapping.path)

    slot = slot_of(MappedCode(written, refuse), ME, [libc()])
    assert written.mappings[slot][1].file == NO_FILE


def test_a_file_that_a_process_took_along_is_opened_for_the_next(written: WrittenMaps) -> None:
    tried = []

    def opening(identity: Identity, mapping: Mapping) -> BinaryIO:
        tried.append(identity)
        if identity == ME:
            raise ProcessGone(identity.tgid)
        return opened_path(identity, mapping)

    code = MappedCode(written, opening)
    slots = [slot_of(code, identity, [libc()]) for identity in (ME, ME, OTHER)]
    assert [written.mappings[slot][1].file for slot in slots] == [NO_FILE, NO_FILE, 1]
    assert tried == [ME, OTHER]


def test_the_vdso_is_unwound_from_memory(code: MappedCode, written: WrittenMaps) -> None:
    vdso = next(mapping for mapping in code_of_this_process() if mapping.path == "[vdso]")
    slot = slot_of(code, ME, [vdso])
    assert written.mappings[slot][1].file == 1
    code.send_page(1, 0)
    assert len(written.rows((1, 0))) > 8


def test_a_missed_page_is_sent_with_the_rows_of_its_file(code: MappedCode, written: WrittenMaps) -> None:
    code.map_process(ME, [libc()])
    table, page = table_of(libc())
    code.send_page(1, page + 3)
    assert written.rows((1, page + 3)) == table.rows(page + 3)


def test_a_page_that_was_sent_is_not_sent_again(code: MappedCode, written: WrittenMaps) -> None:
    code.map_process(ME, [libc()])
    _, page = table_of(libc())
    code.send_page(1, page)
    written.chunks.clear()
    code.send_page(1, page)
    assert not written.chunks


def test_a_missed_page_of_no_file_is_ignored(code: MappedCode, written: WrittenMaps) -> None:
    code.send_page(77, 0)
    assert not written.pages


def test_without_room_for_more_chunks_all_pages_go_and_come_back(
    written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "UNWIND_CHUNKS_IN_ALL", 24)
    code = MappedCode(written, opened_path)
    code.map_process(ME, [libc()])
    table, page = table_of(libc())
    for number in range(60):
        code.send_page(1, page + number)
        assert written.rows((1, page + number)) == table.rows(page + number)
        assert len(written.pages) == code.pages.count
    assert code.pages.evictions
    code.send_page(1, page)
    assert written.rows((1, page)) == table.rows(page)


def test_there_are_never_more_pages_than_the_map_holds(written: WrittenMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "UNWIND_PAGES", 5)
    code = MappedCode(written, opened_path)
    code.map_process(ME, [libc()])
    _, page = table_of(libc())
    for number in range(30):
        code.send_page(1, page + number)
        assert len(written.pages) <= 5
    assert code.pages.evictions


def test_the_row_at_an_address_is_the_one_that_the_programs_would_find(code: MappedCode, written: WrittenMaps) -> None:
    mapping = libc()
    table, first = table_of(mapping)
    rows = unpack_rows(table.rows(first + 3))
    address = mapping.start + (3 << 12)
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        last = after.start - 1 if after else 4095
        assert code.row_at(ME, mapping, address + row.start) == row
        assert code.row_at(ME, mapping, address + last) == row
    assert written.rows((1, first + 3)) == table.rows(first + 3)


def test_code_of_no_file_has_no_row(code: MappedCode) -> None:
    anonymous = Mapping(0x1000, 0x2000, 0, True, 0, 0, "")
    assert code.row_at(ME, anonymous, 0x1800) is None


def test_the_process_whose_memory_had_to_make_room_is_named(
    written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "MAPPED_PROCESSES", 1)
    code = MappedCode(written, opened_path)
    assert [code.map_process(identity, [libc()]) for identity in (ME, ME, OTHER)] == [None, None, ME]
    assert [code.entry_of(identity) for identity in (ME, OTHER)] == [0, 1]
