"""What user space writes into the programs' maps; bcc's tables are stand-ins."""

from __future__ import annotations

import struct

import pytest

from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.maps import ProgramMaps
from pyflame_ebpf.unwind.row import FRAME_POINTER_BODY
from tests.sampling.tables import ByteTable, FakeTables

NEW, OLD = LAYOUTS[3, 12], LAYOUTS[3, 6]


def number(value: int) -> bytes:
    return struct.pack("<I", value)


@pytest.fixture
def tables() -> FakeTables:
    return FakeTables()


@pytest.fixture
def maps(tables: FakeTables) -> ProgramMaps:
    return ProgramMaps(tables)


def test_code_without_unwind_data_has_a_row_from_the_start(tables: FakeTables, maps: ProgramMaps) -> None:
    assert isinstance(maps, ProgramMaps)
    pages = tables.entries(b"unwind_pages")
    assert list(pages) == [bytes(8)]
    page = abi.UnwindPage.from_buffer_copy(pages[bytes(8)])
    assert (page.chunk, list(page.first)) == (abi.UNWIND_CHUNKS_IN_ALL, [0, *[0xFFFF] * 7])
    rows = tables.entries(b"unwind_chunks")[number(page.chunk)]
    assert rows == bytes(2) + FRAME_POINTER_BODY + b"\xff" * 8 * 63


def test_equal_layouts_have_one_index(tables: FakeTables, maps: ProgramMaps) -> None:
    assert [maps.add_layout(layout) for layout in (NEW, OLD, NEW)] == [0, 1, 0]
    expected = {number(index): bytes(abi.pack_layout(layout)) for index, layout in enumerate((NEW, OLD))}
    assert tables.entries(b"layouts") == expected


def test_more_layouts_than_there_is_room_for_are_refused(maps: ProgramMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "MAX_LAYOUTS", 1)
    assert maps.add_layout(NEW) == 0
    with pytest.raises(PyflameError, match="more kinds of interpreter"):
        maps.add_layout(OLD)
    assert maps.add_layout(NEW) == 0


def test_entries_are_found_by_the_programs_keys(tables: FakeTables, maps: ProgramMaps) -> None:
    process = abi.ProcessEntry(abi.raw_identity(Identity(1, 4242, 3)), 5, 6, 7, abi.PROCESS_PYTHON)
    executable = abi.ExecutableEntry(1, 2, 3)
    maps.add_target(7, 123)
    maps.set_process(process)
    maps.add_executable((1, 2, 3), executable)
    maps.set_mappings(9, b"mappings")
    assert tables.entries(b"targets") == {number(7): struct.pack("<Q", 1_230_000_000)}
    assert tables.entries(b"processes") == {number(4242): bytes(process)}
    assert tables.entries(b"executables") == {struct.pack("<QII", 1, 2, 3): bytes(executable)}
    assert tables.entries(b"mappings") == {number(9): b"mappings"}


def test_an_executable_that_there_is_no_room_for_is_left_out(
    maps: ProgramMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Exception("Could not update table")  # noqa: TRY002 - as bcc does

    monkeypatch.setattr(ByteTable, "__setitem__", refuse)
    maps.add_executable((1, 2, 3), abi.ExecutableEntry())
    with pytest.raises(Exception, match="Could not update table"):
        maps.add_target(7, 0)


def test_a_page_that_is_dropped_is_gone_and_an_unknown_one_does_no_harm(tables: FakeTables, maps: ProgramMaps) -> None:
    keys = [abi.UnwindPageKey(1, page) for page in range(3)]
    for key in keys[:2]:
        maps.set_unwind_page(key, abi.UnwindPage(5))
    maps.drop_unwind_page(keys[0])
    maps.drop_unwind_page(keys[2])
    assert set(tables.entries(b"unwind_pages")) == {bytes(8), bytes(keys[1])}


def test_what_is_forgotten_will_be_sent_again(tables: FakeTables, maps: ProgramMaps) -> None:
    maps.forget(Gone(stacks={1}, codes={1}, threads={(Identity(1, 2, 3), 4)}))  # unknown: nothing happens
    stacks, codes, threads = (tables.entries(name) for name in (b"known_stacks", b"known_codes", b"threads"))
    stacks.update({struct.pack("<Q", stack_id): number(1) for stack_id in (1, 2**63 + 1)})
    codes.update({struct.pack("<Q", code_id): number(1) for code_id in (1, 2, 3)})
    threads.update({struct.pack("<II", 2, tid): b"entry" for tid in (4, 5)})
    maps.forget(Gone(stacks={2**63 + 1}, codes={1, 3}, threads={(Identity(9, 2, 9), 4)}))
    assert stacks == {struct.pack("<Q", 1): number(1)}
    assert codes == {struct.pack("<Q", 2): number(1)}
    assert threads == {struct.pack("<II", 2, 5): b"entry"}
