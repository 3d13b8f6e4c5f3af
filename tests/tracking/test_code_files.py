"""Files that stay open while processes map them, and share their rows by contents."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.elf.file_contents import Digest
from pyflame_ebpf.elf.image import ElfImage, open_regular
from pyflame_ebpf.host import open_files
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.tracking import code_files
from pyflame_ebpf.tracking.mapped_code import NO_FILE, MappedCode
from tests.elf.libraries import code_mapping
from tests.elf.sparse import small_frames
from tests.tracking.mapped_libraries import (
    ME,
    OTHER,
    code_of_this_process,
    libc,
    mapped_copy,
    number_of,
    opened_path,
    overwrite_frames,
    pages_of_this_libc,
    sent,
    slot_of,
    table_of,
)
from tests.tracking.written_maps import WrittenMaps


@pytest.fixture
def written() -> WrittenMaps:
    return WrittenMaps()


@pytest.fixture
def code(written: WrittenMaps) -> MappedCode:
    return MappedCode(written, opened_path)


def test_files_that_nobody_maps_any_more_are_closed_when_there_are_too_many(
    written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 1)
    opened = []

    def opening(identity: Identity, mapping: Mapping) -> BinaryIO:
        opened.append(opened_path(identity, mapping))
        return opened[-1]

    code = MappedCode(written, opening)
    code.map_process(ME, [libc()])
    code.send_page(1, table_of(libc())[1])
    code.process_ended(ME)
    linker = next(mapping for mapping in code_of_this_process() if "/ld-linux" in mapping.path)
    slot = slot_of(code, OTHER, [linker])
    assert written.mappings[slot][1][3] == 2
    assert opened[0].closed
    assert not written.pages
    assert code.pages.count == 0
    with pytest.raises(FileNotFoundError):
        code.files.open_again(libc())


def test_a_file_of_a_process_whose_code_had_to_make_room_is_unused(
    written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "MAPPED_PROCESSES", 1)
    monkeypatch.setattr(open_files, "FILES_MAX", 1)
    code = MappedCode(written, opened_path)
    linker = next(mapping for mapping in code_of_this_process() if "/ld-linux" in mapping.path)
    assert [number_of(code, written, ME, libc()), number_of(code, written, OTHER, linker)] == [1, 2]
    with pytest.raises(FileNotFoundError):
        code.files.open_again(libc())


def test_files_that_are_mapped_stay_open(written: WrittenMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 1)
    code = MappedCode(written, opened_path)
    code.map_process(ME, [libc()])
    linker = next(mapping for mapping in code_of_this_process() if "/ld-linux" in mapping.path)
    slot = slot_of(code, OTHER, [linker])
    assert written.mappings[slot][1][3] == NO_FILE
    with code.files.open_again(libc()) as file:
        assert file.read(4) == b"\x7fELF"


def test_unused_files_are_looked_for_once_a_process_and_not_once_a_mapping(
    written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 1)
    code = MappedCode(written, opened_path)
    tried = []
    monkeypatch.setattr(code.files, "_close_unused", lambda: tried.append(1))
    for identity in (ME, OTHER):
        code.map_process(identity, code_of_this_process())
    assert len(tried) == 2


def test_files_leave_room_for_other_descriptors_where_few_are_allowed(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = len(os.listdir("/proc/self/fd")) + 10  # noqa: PTH208 - half are for other files
    mappings = [mapped_copy(tmp_path / str(index)) for index in range(allowed + 10)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * allowed, before[1]))
        numbers = [
            number_of(code, written, Identity(index, os.getpid(), 0), mapping) for index, mapping in enumerate(mappings)
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert numbers == [1] * allowed + [NO_FILE] * 10


def test_the_same_library_at_two_inodes_has_its_rows_once(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    first, second = (mapped_copy(tmp_path / name) for name in ("first", "second"))
    assert first.inode != second.inode
    number = number_of(code, written, ME, first)
    assert number_of(code, written, OTHER, second) == number
    assert sent(code, written, number) == pages_of_this_libc()


def test_a_file_that_is_mapped_by_two_paths_is_known_by_its_inode_and_keeps_its_rows(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    first = mapped_copy(tmp_path / "first")
    (tmp_path / "second").hardlink_to(tmp_path / "first")
    number = number_of(code, written, ME, first)
    rows = sent(code, written, number)
    assert number_of(code, written, OTHER, replace(first, path=str(tmp_path / "second"))) == number
    assert {page: written.rows((number, page)) for page in rows} == rows


def test_rows_that_were_sent_before_the_second_file_was_met_are_dropped(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    number = number_of(code, written, ME, mapped_copy(tmp_path / "first"))
    sent(code, written, number)
    number_of(code, written, OTHER, mapped_copy(tmp_path / "second"))
    assert not written.pages
    assert code.pages.count == 0


@pytest.mark.parametrize("patch", [b"\0", b"\x41"])
def test_a_forged_file_that_is_met_first_does_not_change_the_rows_of_the_true_one(
    code: MappedCode, written: WrittenMaps, tmp_path: Path, patch: bytes
) -> None:
    forged = number_of(code, written, ME, mapped_copy(tmp_path / "forged", patch))
    assert sent(code, written, forged) != pages_of_this_libc()
    true = number_of(code, written, OTHER, mapped_copy(tmp_path / "true"))
    assert true != forged
    assert sent(code, written, true) == pages_of_this_libc()


def test_a_forged_file_is_not_taken_for_the_true_one_either(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    true = number_of(code, written, ME, mapped_copy(tmp_path / "true"))
    assert number_of(code, written, OTHER, mapped_copy(tmp_path / "forged", b"\0")) != true
    assert sent(code, written, true) == pages_of_this_libc()


def test_a_true_copy_that_is_forged_later_has_no_influence(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    number = number_of(code, written, ME, mapped_copy(tmp_path / "copy"))
    number_of(code, written, OTHER, mapped_copy(tmp_path / "true"))
    overwrite_frames(tmp_path / "copy", b"\0")
    assert sent(code, written, number) == pages_of_this_libc()


def test_what_was_forged_before_the_true_file_came_is_forgotten(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    number = number_of(code, written, ME, mapped_copy(tmp_path / "copy", b"\0"))
    sent(code, written, number)
    shutil.copyfile(libc().path, tmp_path / "copy")
    assert number_of(code, written, OTHER, mapped_copy(tmp_path / "true")) == number
    assert sent(code, written, number) == pages_of_this_libc()


def test_what_was_read_of_a_forged_index_of_frames_is_forgotten_too(
    code: MappedCode, written: WrittenMaps, tmp_path: Path
) -> None:
    copy = mapped_copy(tmp_path / "copy")
    with (tmp_path / "copy").open("r+b", buffering=0) as file:
        index = ElfImage(file).section(".eh_frame_hdr")
        assert index is not None
        os.pwrite(file.fileno(), (1).to_bytes(4, "little"), index.offset + 8)  # the number of its entries
    number = number_of(code, written, ME, copy)
    shutil.copyfile(libc().path, tmp_path / "copy")
    assert number_of(code, written, OTHER, mapped_copy(tmp_path / "true")) == number
    assert sent(code, written, number) == pages_of_this_libc()


def test_of_too_much_unwind_data_no_more_is_shared(
    code: MappedCode, written: WrittenMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_files, "HELD_MAX", -1)
    numbers = [
        number_of(code, written, Identity(index, os.getpid(), 0), mapped_copy(tmp_path / str(index)))
        for index in range(3)
    ]
    assert len(set(numbers)) == 3


def test_a_file_with_the_rows_of_another_is_opened_again_itself(code: MappedCode, tmp_path: Path) -> None:
    """Names are not among what rows are made of: they come from the file that was mapped."""
    mappings = [mapped_copy(tmp_path / name) for name in ("first", "second")]
    for identity, mapping in zip((ME, OTHER), mappings, strict=True):
        code.map_process(identity, [mapping])
    for mapping in mappings:
        with code.files.open_again(mapping) as file:
            assert os.fstat(file.fileno()).st_ino == mapping.inode


def test_a_file_with_the_rows_of_another_counts_as_open(
    written: WrittenMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 2)
    code = MappedCode(written, opened_path)
    numbers = [
        number_of(code, written, Identity(index, os.getpid(), 0), mapped_copy(tmp_path / str(index)))
        for index in range(3)
    ]
    assert numbers == [1, 1, NO_FILE]


def test_rows_outlive_the_first_file_that_had_them(
    written: WrittenMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 2)
    code = MappedCode(written, opened_path)
    first, second = (mapped_copy(tmp_path / name) for name in ("first", "second"))
    for identity, mapping in ((ME, first), (OTHER, second)):
        code.map_process(identity, [mapping])
    code.process_ended(ME)
    code.map_process(ME, [])
    assert number_of(code, written, ME, libc()) == NO_FILE  # there is room for no other file
    assert sent(code, written, 1) == pages_of_this_libc()


def test_a_file_is_closed_though_others_have_its_rows(
    written: WrittenMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 2)
    code = MappedCode(written, opened_path)
    first, second, third = (mapped_copy(tmp_path / name) for name in ("first", "second", "third"))
    for identity, mapping in ((ME, first), (OTHER, second)):
        code.map_process(identity, [mapping])
    code.process_ended(OTHER)
    assert number_of(code, written, OTHER, third) == 1
    with pytest.raises(FileNotFoundError):
        code.files.open_again(second)


def test_what_is_compared_is_not_kept_twice(code: MappedCode, written: WrittenMaps, tmp_path: Path) -> None:
    images = []
    hold = code.files._same._hold

    def noting(image: ElfImage) -> Digest:
        images.append(weakref.ref(image))
        return hold(image)

    code.files._same._hold = noting
    for index in range(3):
        number_of(code, written, Identity(index, os.getpid(), 0), mapped_copy(tmp_path / str(index)))
    gc.collect()
    assert [image() is not None for image in images] == [False, True, False]  # the second, then the first, the third


def test_what_a_process_s_files_take_costs_that_process_its_rows_and_no_other(
    written: WrittenMaps, tmp_path: Path
) -> None:
    """Thirty files that take 0.1 s each, then libc, which another process has mapped as well."""
    told: list[str] = []

    def opening(_identity: Identity, mapping: Mapping) -> BinaryIO:
        return open_regular(mapping.path)

    code = MappedCode(written, opening, told.append)
    first = small_frames(tmp_path)
    copies = [Path(shutil.copy(first, tmp_path / f"{number}.so")) for number in range(30)]
    began = time.thread_time()
    code.map_process(ME, [*map(code_mapping, copies), libc()])
    assert time.thread_time() - began < 2.5  # the copies take their time to be opened, too
    assert repr(str(copies[-1])) in told
    assert code.files.get(ME, libc()) is None
    assert code.files.get(OTHER, libc()) is not None
