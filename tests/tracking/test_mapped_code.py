"""Mapped code as the programs are told of it: real mappings of this process, a sampler that only writes down."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import shutil
import struct
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.interpreter import load_bias
from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.host import open_files, proc
from pyflame_ebpf.host.open_files import allow_open_files
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.tracking import mapped_code
from pyflame_ebpf.tracking.mapped_code import MappedCode, open_code
from pyflame_ebpf.unwind.row import unpack_rows
from pyflame_ebpf.unwind.rows import UnwindTable

ME = Identity(1, os.getpid(), 0)
OTHER = Identity(2, os.getpid(), 0)


class FakeSampler:
    """The maps as the programs would find them."""

    def __init__(self) -> None:
        self.mappings = {}
        self.chunks = {}
        self.pages = {}

    def set_mappings(self, slot, packed) -> None:
        self.mappings[slot] = [struct.unpack_from("<QQII", packed, at) for at in range(0, len(packed), 24)]

    def set_unwind_chunk(self, index, rows) -> None:
        assert len(rows) == abi.UNWIND_CHUNK_ROWS * abi.UNWIND_ROW_SIZE
        assert index < abi.UNWIND_CHUNKS_IN_ALL
        self.chunks[index] = rows

    def set_unwind_page(self, key, page) -> None:
        used = sum(start != 0xFFFF for start in page.first)
        assert all(page.chunk + index in self.chunks for index in range(used))
        self.pages[key.file, key.page] = page.chunk, used

    def drop_unwind_page(self, key) -> None:
        del self.pages[key.file, key.page]

    def rows(self, key) -> bytes:
        """The rows of a page without those that fill its last chunk."""
        first, used = self.pages[key]
        rows = b"".join(self.chunks[first + index] for index in range(used))
        return b"".join(rows[at : at + 8] for at in range(0, len(rows), 8) if rows[at : at + 2] != b"\xff\xff")


def code_of_this_process():
    return [mapping for mapping in proc.mappings(os.getpid()) if mapping.executable]


def libc():
    return next(mapping for mapping in code_of_this_process() if "/libc.so" in mapping.path)


def opened_path(identity, mapping):
    return Path(mapping.path).open("rb", buffering=0) if mapping.inode else open_code(identity.tgid, mapping)


@pytest.fixture
def sampler():
    return FakeSampler()


@pytest.fixture
def code(sampler):
    return MappedCode(sampler, opened_path)


def table_of(mapping):
    image = mapped_code.ElfImage(opened_path(ME, mapping))
    return UnwindTable(image), mapping.start - load_bias(mapping, image.segments) >> 12


def test_mappings_are_told_in_order_between_a_first_and_an_unused_one(code, sampler) -> None:
    slot = code.map_process(ME, reversed(code_of_this_process())) - 1
    told = sampler.mappings[slot]
    wanted = [mapping.start for mapping in code_of_this_process() if mapping.end < abi.UNUSED_MAPPING]
    assert [start for start, _, _, _ in told[: len(wanted) + 2]] == [0, *wanted, abi.UNUSED_MAPPING]
    assert len(told) == abi.MAPPINGS


def test_two_processes_that_map_one_file_share_its_number(code, sampler) -> None:
    first, second = (code.map_process(identity, [libc()]) - 1 for identity in (ME, OTHER))
    assert first != second
    assert sampler.mappings[first][1] == sampler.mappings[second][1]
    assert sampler.mappings[first][1][3] != mapped_code.NO_FILE


def test_the_slot_of_a_process_that_has_ended_is_given_again(code) -> None:
    slot = code.map_process(ME, [libc()])
    code.forget(ME)
    assert code.map_process(OTHER, [libc()]) == slot


def test_the_least_recently_mapped_process_loses_its_slot_when_there_are_too_many(
    sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "MAPPED_PROCESSES", 2)
    code = MappedCode(sampler, opened_path)
    slots = [code.map_process(Identity(number, os.getpid(), 0), [libc()]) for number in range(3)]
    assert len(set(slots)) == 2
    assert slots[2] == slots[0]


def test_a_missed_page_is_sent_with_the_rows_of_its_file(code, sampler) -> None:
    code.map_process(ME, [libc()])
    table, page = table_of(libc())
    code.send_page(1, page + 3)
    assert sampler.rows((1, page + 3)) == table.rows(page + 3)


def test_a_page_that_was_sent_is_not_sent_again(code, sampler) -> None:
    code.map_process(ME, [libc()])
    _, page = table_of(libc())
    code.send_page(1, page)
    sampler.chunks.clear()
    code.send_page(1, page)
    assert not sampler.chunks


def test_a_missed_page_of_no_file_is_ignored(code, sampler) -> None:
    code.send_page(77, 0)
    assert not sampler.pages


def test_without_room_for_more_chunks_all_pages_go_and_come_back(sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "UNWIND_CHUNKS_IN_ALL", 24)
    code = MappedCode(sampler, opened_path)
    code.map_process(ME, [libc()])
    table, page = table_of(libc())
    for number in range(60):
        code.send_page(1, page + number)
        assert sampler.rows((1, page + number)) == table.rows(page + number)
        assert len(sampler.pages) == code.pages
    assert code.evictions
    code.send_page(1, page)
    assert sampler.rows((1, page)) == table.rows(page)


def test_there_are_never_more_pages_than_the_map_holds(sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "UNWIND_PAGES", 5)
    code = MappedCode(sampler, opened_path)
    code.map_process(ME, [libc()])
    _, page = table_of(libc())
    for number in range(30):
        code.send_page(1, page + number)
        assert len(sampler.pages) <= 5
    assert code.evictions


def test_files_that_nobody_maps_any_more_are_closed_when_there_are_too_many(
    sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 1)
    opened = []

    def opening(identity, mapping):
        opened.append(opened_path(identity, mapping))
        return opened[-1]

    code = MappedCode(sampler, opening)
    code.map_process(ME, [libc()])
    code.send_page(1, table_of(libc())[1])
    code.forget(ME)
    linker = next(mapping for mapping in code_of_this_process() if "/ld-linux" in mapping.path)
    slot = code.map_process(OTHER, [linker]) - 1
    assert sampler.mappings[slot][1][3] == 2
    assert opened[0].closed
    assert not sampler.pages
    assert code.pages == 0
    with pytest.raises(FileNotFoundError):
        code.open_again(libc())


def test_files_that_are_mapped_stay_open(sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 1)
    code = MappedCode(sampler, opened_path)
    code.map_process(ME, [libc()])
    linker = next(mapping for mapping in code_of_this_process() if "/ld-linux" in mapping.path)
    slot = code.map_process(OTHER, [linker]) - 1
    assert sampler.mappings[slot][1][3] == mapped_code.NO_FILE
    with code.open_again(libc()) as file:
        assert file.read(4) == b"\x7fELF"


def test_unused_files_are_looked_for_once_a_process_and_not_once_a_mapping(
    sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 1)
    code = MappedCode(sampler, opened_path)
    tried = []
    monkeypatch.setattr(code, "_close_unused", lambda: tried.append(1))
    for identity in (ME, OTHER):
        code.map_process(identity, code_of_this_process())
    assert len(tried) == 2


def test_a_file_that_cannot_be_opened_has_no_number(sampler) -> None:
    def refuse(identity, mapping) -> None:
        raise PermissionError(mapping.path)

    slot = MappedCode(sampler, refuse).map_process(ME, [libc()]) - 1
    assert sampler.mappings[slot][1][3] == mapped_code.NO_FILE


def test_a_file_that_a_process_took_along_is_opened_for_the_next(sampler) -> None:
    tried = []

    def opening(identity, mapping):
        tried.append(identity)
        if identity == ME:
            raise proc.ProcessGone(identity.tgid)
        return opened_path(identity, mapping)

    code = MappedCode(sampler, opening)
    slots = [code.map_process(identity, [libc()]) - 1 for identity in (ME, ME, OTHER)]
    assert [sampler.mappings[slot][1][3] for slot in slots] == [mapped_code.NO_FILE, mapped_code.NO_FILE, 1]
    assert tried == [ME, OTHER]


def test_the_vdso_is_unwound_from_memory(code, sampler) -> None:
    vdso = next(mapping for mapping in code_of_this_process() if mapping.path == "[vdso]")
    slot = code.map_process(ME, [vdso]) - 1
    assert sampler.mappings[slot][1][3] == 1
    code.send_page(1, 0)
    assert len(sampler.rows((1, 0))) > 8


def vdso_of_this_process():
    return next(mapping for mapping in code_of_this_process() if mapping.path == "[vdso]")


def test_the_vdso_is_read_from_this_process_whose_own_nobody_else_writes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "read_memory", lambda *_: b"\x7fELF as another process would like it")
    mapping = vdso_of_this_process()
    with open_code(1, replace(mapping, start=0x1000, end=0x2000)) as file:
        assert os.pread(file.fileno(), 1 << 20, 0) == ctypes.string_at(mapping.start, mapping.end - mapping.start)


def test_without_a_vdso_of_its_own_this_process_reads_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    vdso, others = vdso_of_this_process(), [libc()]
    monkeypatch.setattr(proc, "parse_maps", lambda _: others)
    monkeypatch.setattr(proc, "read_memory", lambda *place: repr(place).encode())
    with open_code(7, replace(vdso, start=0x1000, end=0x2000)) as file:
        assert os.pread(file.fileno(), 100, 0) == b"(7, 4096, 4096)"


def test_the_limit_of_open_files_is_raised_as_far_as_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_open_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft == min(open_files.FILES_MAX + open_files.OTHER_FILES, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_files_leave_room_for_other_descriptors_where_few_are_allowed(code, sampler, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = len(os.listdir("/proc/self/fd")) + 10  # noqa: PTH208 - half are for other files
    mappings = [mapped_copy(tmp_path / str(index)) for index in range(allowed + 10)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * allowed, before[1]))
        numbers = [
            number_of(code, sampler, Identity(index, os.getpid(), 0), mapping) for index, mapping in enumerate(mappings)
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert numbers == [1] * allowed + [mapped_code.NO_FILE] * 10


def test_process_that_loses_its_slot_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "MAPPED_PROCESSES", 1)
    code = MappedCode(FakeSampler(), lambda _identity, _mapping: pytest.fail("nothing is opened"))
    first, second = Identity(1, 1, 0), Identity(2, 2, 0)
    assert (code.map_process(first, []), code.map_process(second, [])) == (1, 1)
    assert code.evicted == [first]


def test_the_row_at_an_address_is_the_one_that_the_programs_would_find(code, sampler) -> None:
    mapping = libc()
    table, first = table_of(mapping)
    rows = unpack_rows(table.rows(first + 3))
    address = mapping.start + (3 << 12)
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        last = after.start - 1 if after else 4095
        assert code.row_at(ME, mapping, address + row.start) == row
        assert code.row_at(ME, mapping, address + last) == row
    assert sampler.rows((1, first + 3)) == table.rows(first + 3)


def test_code_of_no_file_has_no_row(code) -> None:
    anonymous = proc.Mapping(0x1000, 0x2000, 0, True, 0, 0, "")
    assert code.row_at(ME, anonymous, 0x1800) is None


# ---- files with one build id ----


def mapped_copy(path, patch=None):
    """A file with libc's contents, some of them overwritten, as it would be mapped where libc is."""
    shutil.copyfile(libc().path, path)
    if patch:
        overwrite_frames(path, patch)
    status = path.stat()
    return replace(libc(), path=str(path), inode=status.st_ino, device=status.st_dev)


def overwrite_frames(path, patch) -> None:
    with path.open("r+b") as file:
        section = ElfImage(file).section(".eh_frame")
        os.pwrite(file.fileno(), patch * (section.size // len(patch)), section.offset)


def number_of(code, sampler, identity, mapping):
    return sampler.mappings[code.map_process(identity, [mapping]) - 1][1][3]


def pages_of_this_libc():
    table, first = table_of(libc())
    return {first + index: table.rows(first + index) for index in range(0, 200, 9)}


def sent(code, sampler, number):
    for page in pages_of_this_libc():
        code.send_page(number, page)
    return {page: sampler.rows((number, page)) for page in pages_of_this_libc()}


def test_the_same_library_at_two_inodes_has_its_rows_once(code, sampler, tmp_path: Path) -> None:
    first, second = (mapped_copy(tmp_path / name) for name in ("first", "second"))
    assert first.inode != second.inode
    number = number_of(code, sampler, ME, first)
    assert number_of(code, sampler, OTHER, second) == number
    assert sent(code, sampler, number) == pages_of_this_libc()


def test_a_file_that_is_mapped_by_two_paths_is_known_by_its_inode_and_keeps_its_rows(
    code, sampler, tmp_path: Path
) -> None:
    first = mapped_copy(tmp_path / "first")
    (tmp_path / "second").hardlink_to(tmp_path / "first")
    number = number_of(code, sampler, ME, first)
    rows = sent(code, sampler, number)
    assert number_of(code, sampler, OTHER, replace(first, path=str(tmp_path / "second"))) == number
    assert {page: sampler.rows((number, page)) for page in rows} == rows


def test_rows_that_were_sent_before_the_second_file_was_met_are_dropped(code, sampler, tmp_path: Path) -> None:
    number = number_of(code, sampler, ME, mapped_copy(tmp_path / "first"))
    sent(code, sampler, number)
    number_of(code, sampler, OTHER, mapped_copy(tmp_path / "second"))
    assert not sampler.pages
    assert code.pages == 0


@pytest.mark.parametrize("patch", [b"\0", b"\x41"])
def test_a_forged_file_that_is_met_first_does_not_change_the_rows_of_the_true_one(
    code, sampler, tmp_path: Path, patch: bytes
) -> None:
    forged = number_of(code, sampler, ME, mapped_copy(tmp_path / "forged", patch))
    assert sent(code, sampler, forged) != pages_of_this_libc()
    true = number_of(code, sampler, OTHER, mapped_copy(tmp_path / "true"))
    assert true != forged
    assert sent(code, sampler, true) == pages_of_this_libc()


def test_a_forged_file_is_not_taken_for_the_true_one_either(code, sampler, tmp_path: Path) -> None:
    true = number_of(code, sampler, ME, mapped_copy(tmp_path / "true"))
    assert number_of(code, sampler, OTHER, mapped_copy(tmp_path / "forged", b"\0")) != true
    assert sent(code, sampler, true) == pages_of_this_libc()


def test_a_true_copy_that_is_forged_later_has_no_influence(code, sampler, tmp_path: Path) -> None:
    number = number_of(code, sampler, ME, mapped_copy(tmp_path / "copy"))
    number_of(code, sampler, OTHER, mapped_copy(tmp_path / "true"))
    overwrite_frames(tmp_path / "copy", b"\0")
    assert sent(code, sampler, number) == pages_of_this_libc()


def test_what_was_forged_before_the_true_file_came_is_forgotten(code, sampler, tmp_path: Path) -> None:
    number = number_of(code, sampler, ME, mapped_copy(tmp_path / "copy", b"\0"))
    sent(code, sampler, number)
    shutil.copyfile(libc().path, tmp_path / "copy")
    assert number_of(code, sampler, OTHER, mapped_copy(tmp_path / "true")) == number
    assert sent(code, sampler, number) == pages_of_this_libc()


def test_of_too_much_unwind_data_no_more_is_shared(
    code, sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_code, "HELD_MAX", -1)
    numbers = [
        number_of(code, sampler, Identity(index, os.getpid(), 0), mapped_copy(tmp_path / str(index)))
        for index in range(3)
    ]
    assert len(set(numbers)) == 3


# ---- ... but other names ----


def test_a_file_with_the_rows_of_another_is_opened_again_itself(code, tmp_path: Path) -> None:
    """Names are not among what rows are made of: they come from the file that was mapped."""
    mappings = [mapped_copy(tmp_path / name) for name in ("first", "second")]
    for identity, mapping in zip((ME, OTHER), mappings, strict=True):
        code.map_process(identity, [mapping])
    for mapping in mappings:
        with code.open_again(mapping) as file:
            assert os.fstat(file.fileno()).st_ino == mapping.inode


def test_a_file_with_the_rows_of_another_counts_as_open(
    sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 2)
    code = MappedCode(sampler, opened_path)
    numbers = [
        number_of(code, sampler, Identity(index, os.getpid(), 0), mapped_copy(tmp_path / str(index)))
        for index in range(3)
    ]
    assert numbers == [1, 1, mapped_code.NO_FILE]


def test_rows_outlive_the_first_file_that_had_them(sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 2)
    code = MappedCode(sampler, opened_path)
    first, second = (mapped_copy(tmp_path / name) for name in ("first", "second"))
    for identity, mapping in ((ME, first), (OTHER, second)):
        code.map_process(identity, [mapping])
    code.forget(ME)
    code.map_process(ME, [])
    assert number_of(code, sampler, ME, libc()) == mapped_code.NO_FILE  # there is room for no other file
    assert sent(code, sampler, 1) == pages_of_this_libc()


def test_a_file_is_closed_though_others_have_its_rows(sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "FILES_MAX", 2)
    code = MappedCode(sampler, opened_path)
    first, second, third = (mapped_copy(tmp_path / name) for name in ("first", "second", "third"))
    for identity, mapping in ((ME, first), (OTHER, second)):
        code.map_process(identity, [mapping])
    code.forget(OTHER)
    assert number_of(code, sampler, OTHER, third) == 1
    with pytest.raises(FileNotFoundError):
        code.open_again(second)


def test_what_is_compared_is_not_kept_twice(code, sampler, tmp_path: Path) -> None:
    images = []
    hold = code._same._hold
    code._same._hold = lambda image: images.append(weakref.ref(image)) or hold(image)
    for index in range(3):
        number_of(code, sampler, Identity(index, os.getpid(), 0), mapped_copy(tmp_path / str(index)))
    gc.collect()
    assert [image() is not None for image in images] == [False, True, False]  # the second, then the first, the third
