"""Regular files, read within their size, and parts of them that stay as they were."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from pyflame_ebpf.elf.file import TABLE_MAX, BadElf, Extent, RegularFile, identity_of, open_regular

TEXT = b"0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(TEXT)
    return path


def opened(path: Path) -> RegularFile:
    return RegularFile(open_regular(str(path)))


def test_reads_end_with_the_file(path: Path) -> None:
    file = opened(path)
    assert (file.size, file.read(0, 16, "text"), file.read(10, 6, "text"), file.read(16, 0, "text")) == (
        16,
        TEXT,
        b"abcdef",
        b"",
    )
    for offset, size in ((10, 7), (0, 17), (17, 0)):
        with pytest.raises(BadElf, match="its text does not fit into the file"):
            file.read(offset, size, "text")
    file.close()


def test_reads_end_at_their_limit(path: Path) -> None:
    file = opened(path)
    assert file.read(2, 4, "text", 4) == b"2345"
    with pytest.raises(BadElf, match="does not fit"):
        file.read(2, 5, "text", 4)
    file.close()
    os.truncate(path, TABLE_MAX + 1)
    file = opened(path)
    with pytest.raises(BadElf, match="does not fit"):
        file.read(0, TABLE_MAX + 1, "text")
    file.close()


def test_a_file_that_shrank_is_cut_short(path: Path) -> None:
    file = opened(path)
    os.truncate(path, 8)
    assert file.read(0, 8, "text") == b"01234567"
    with pytest.raises(BadElf, match="its text is cut short"):
        file.read(0, 9, "text")
    file.close()


def test_held_bytes_stay_whatever_is_written_to_the_file(path: Path) -> None:
    file = opened(path)
    file.hold([Extent(2, 3), Extent(8, 2)], None)
    path.write_bytes(b"x" * 16)
    ranges = [(2, 3), (3, 1), (0, 4), (4, 5), (0, 16), (5, 3), (1, 1), (9, 2)]
    assert [file.read(offset, size, "text") for offset, size in ranges] == [
        b"234",
        b"3",
        b"xx23",
        b"4xxx8",
        b"xx234xxx89xxxxxx",
        b"xxx",
        b"x",
        b"9x",
    ]
    assert file.held == 5
    file.close()


def test_what_is_held_later_takes_the_place_of_what_was_held(path: Path) -> None:
    file = opened(path)
    file.hold([Extent(0, 8)], None)
    file.hold([Extent(4, 2)], None)
    path.write_bytes(b"x" * 16)
    assert (file.read(0, 16, "text"), file.held) == (b"xxxx45xxxxxxxxxx", 2)
    file.close()


def test_the_digest_is_of_bytes_places_and_facts(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(TEXT)
    file, other = opened(path), opened(copy)
    digest = file.hold([Extent(0, 2), Extent(4, 2)], (1, "a"))
    assert len(digest) == 20
    assert other.hold([Extent(0, 2), Extent(4, 2)], (1, "a")) == digest
    different = [
        other.hold([Extent(0, 2), Extent(4, 2)], (2, "a")),
        other.hold([Extent(0, 2), Extent(4, 3)], (1, "a")),
        other.hold([Extent(0, 2)], (1, "a")),
        other.hold([Extent(0, 3), Extent(4, 1)], (1, "a")),
    ]
    os.pwrite(os.open(copy, os.O_WRONLY), b"y", 5)
    changed = opened(copy)
    different.append(changed.hold([Extent(0, 2), Extent(4, 2)], (1, "a")))
    copy.write_bytes(b"01" * 8)
    same_text_elsewhere = opened(copy)
    different += [same_text_elsewhere.hold([Extent(0, 2)], None), same_text_elsewhere.hold([Extent(2, 2)], None)]
    assert len({digest, *different}) == 1 + len(different)
    for each in (file, other, changed, same_text_elsewhere):
        each.close()


def test_the_identity_changes_when_the_file_is_written_to_and_not_when_it_is_read(path: Path) -> None:
    file = opened(path)
    status = path.stat()
    assert file.identity == (status.st_dev, status.st_ino, status.st_ctime_ns, 16)
    with path.open("ab") as written:
        assert identity_of(written) == file.identity
        written.write(b"more")
        written.flush()
        assert identity_of(written)[3] == 20
    assert file.identity[3] == 16
    file.close()


def test_a_duplicate_outlives_the_file(path: Path) -> None:
    file = opened(path)
    with file.duplicate() as duplicate:
        file.close()
        assert duplicate.read() == TEXT


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(BadElf, match="is not a regular file"):
            open_regular(str(path))
    with open("/dev/null", "rb") as null, pytest.raises(BadElf, match=r"^not a regular file"):  # noqa: PTH123
        RegularFile(null)
    with pytest.raises(FileNotFoundError):
        open_regular(str(tmp_path / "none"))


def test_refusing_a_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(BadElf):
        open_regular(str(tmp_path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_held_bytes_are_there_though_the_file_shrank(path: Path) -> None:
    file = opened(path)
    file.hold([Extent(2, 3)], None)
    os.truncate(path, 0)
    assert [file.read(offset, size, "text") for offset, size in ((2, 3), (2, 1), (3, 2), (4, 1))] == [
        b"234",
        b"2",
        b"34",
        b"4",
    ]
    for offset, size in ((1, 2), (4, 2)):
        with pytest.raises(BadElf, match="cut short"):
            file.read(offset, size, "text")
    file.close()


def test_files_are_unbuffered_and_closed_when_that_is_asked_for(path: Path) -> None:
    source = open_regular(str(path))
    file = RegularFile(source)
    with file.duplicate() as duplicate:
        assert [type(each) for each in (source, duplicate)] == [io.FileIO] * 2
    assert not source.closed
    file.close()
    assert source.closed


def test_a_bad_file_ends_the_program_with_status_12() -> None:
    assert BadElf.exit_code == 12


def test_tables_have_at_most_128_mib() -> None:
    assert TABLE_MAX == 128 * 1024 * 1024
