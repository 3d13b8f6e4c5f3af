"""Lines of /proc/PID/maps, whose paths hold any bytes but a line end."""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pyflame_ebpf.host.maps import Mapping, mappings, parse_maps

COLUMNS = b"7f0000000000-7f0000001000 r-xp 00002000 fe:1f 42 "
MAPPED = Mapping(0x7F0000000000, 0x7F0000001000, 0x2000, True, os.makedev(0xFE, 0x1F), 42, "")


def line(path: bytes, columns: bytes = COLUMNS) -> bytes:
    """As the kernel writes one: columns, blanks up to the 73rd, one at least, and the path (seq_pad)."""
    return columns.ljust(72) + b" " + path + b"\n"


def test_paths_with_blanks_newlines_and_a_deleted_mark() -> None:
    text = (
        b"7f0000000000-7f0000001000 r-xp 00002000 fe:1f 42                         /a b/c\\012d (deleted)\n"
        b"7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0                          [stack]\n"
        b"7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0 \n"
        b"7ffd"
    )
    assert parse_maps(text) == [
        replace(MAPPED, path="/a b/c\nd", deleted=True),
        Mapping(0x7FFC00000000, 0x7FFC00001000, 0, False, 0, 0, "[stack]"),
        Mapping(0x7FFD00000000, 0x7FFD00001000, 0, False, 0, 0, ""),
    ]


@pytest.mark.parametrize(
    "path", [b"/\x0c\x85\xff", b"/a\x0b7f-80 r-xp 0 0:0 1 ", "/\u2028\x1c".encode(), b" x", b"\x0c"]
)
def test_a_path_is_taken_as_it_stands(path: bytes) -> None:
    assert parse_maps(line(path) * 2) == [replace(MAPPED, path=os.fsdecode(path))] * 2


@pytest.mark.parametrize("digits", [1, 17, 22, 23, 24, 25, 26])
def test_the_path_is_found_behind_columns_of_any_width(digits: int) -> None:
    inode = 10 ** (digits - 1)
    columns = COLUMNS.replace(b" 42 ", b" %d " % inode)
    assert parse_maps(line(b" /path", columns)) == [replace(MAPPED, inode=inode, path=" /path")]


@pytest.mark.parametrize("cut", [0, 4, 20, 30, 44, 48])
def test_a_line_that_is_cut_short_is_left_out(cut: int) -> None:
    assert parse_maps(line(b"/path") + line(b"/other")[:cut]) == [replace(MAPPED, path="/path")]


def test_a_mapping_of_this_process_is_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x0c (deleted)"
    path.write_bytes(bytes(1 << 14))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, offset=8192) as mapped:
        (found,) = (each for each in mappings(os.getpid()) if each.inode == path.stat().st_ino)
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert found.path == str(path).removesuffix(" (deleted)")
        assert (found.start, found.end, found.offset, found.executable) == (start, start + 4096, 8192, False)


@pytest.mark.parametrize("device", ["ffffffff:00", "00:ffffffffff"])
def test_a_line_with_numbers_that_the_kernel_has_not_is_left_out(device: str) -> None:
    assert parse_maps(f"1000-2000 r-xp 0 {device} 5 /bin/x\n".encode()) == []
