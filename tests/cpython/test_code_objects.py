"""Names out of str objects, tables out of bytes objects, and the line of a frame."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyflame_ebpf.cpython.code_objects import (
    LINE_TABLE_MAX,
    NAME_MAX,
    Code,
    byte_offset,
    decode_str,
    python_frame,
    read_bytes,
    read_str,
    str_size,
)
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.line_table import LineRanges
from pyflame_ebpf.profile.model import Frame, FrameKind

LAYOUT = LAYOUTS[3, 12]
AT = 0x7000
COMPACT, ASCII = 1 << 5, 1 << 6


def str_object(characters: bytes, length: int, kind: int, flags: int = COMPACT) -> bytes:
    """A str object of 3.12."""
    data = LAYOUT.str_ascii_data if flags & ASCII else LAYOUT.str_compact_data
    header = bytearray(data)
    header[LAYOUT.str_length : LAYOUT.str_length + 8] = length.to_bytes(8, "little")
    header[LAYOUT.str_state] = kind << LAYOUT.str_kind_shift | flags
    return bytes(header) + characters


def memory(data: bytes) -> Callable[[int, int], bytes]:
    """Memory of a process that ends where the data do, as its reader gives it: less at the end, nothing elsewhere."""
    return lambda address, size: data[address - AT : address - AT + size] if address >= AT else b""


OBJECTS = {
    "ascii": (str_object(b"parse", 5, 1, COMPACT | ASCII), "parse"),
    "latin 1": (str_object("é".encode("latin-1"), 1, 1), "é"),
    "two bytes": (str_object("Ωx".encode("utf-16-le"), 2, 2), "Ωx"),
    "a lone surrogate": (str_object(b"\x00\xd8", 1, 2), "\ud800"),
    "four bytes": (str_object("😀".encode("utf-32-le"), 1, 4), "😀"),
    "no character": (str_object(b"\xff\xff\xff\xff", 1, 4), "\ufffd"),
    "empty": (str_object(b"", 0, 1, COMPACT | ASCII), ""),
}


@pytest.mark.parametrize(("data", "text"), OBJECTS.values(), ids=OBJECTS)
def test_a_str_of_every_kind_is_decoded(data: bytes, text: str) -> None:
    assert (str_size(LAYOUT, data), decode_str(LAYOUT, data)) == (len(data), text)
    assert decode_str(LAYOUT, data + b"more") == text
    assert read_str(LAYOUT, memory(data), AT) == text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        str_object(b"ab", 2, 1)[: LAYOUT.str_state],
        str_object(b"abc", 3, 3),
        str_object(b"", 0, 0),
        str_object(b"ab", 2, 1, flags=0),
        str_object(b"a" * (NAME_MAX + 1), NAME_MAX + 1, 1, COMPACT | ASCII),
        str_object(b"", 1 << 63, 1),
    ],
)
def test_what_is_no_compact_str_has_no_size(data: bytes) -> None:
    assert (str_size(LAYOUT, data), decode_str(LAYOUT, data), read_str(LAYOUT, memory(data), AT)) == (None,) * 3


def test_a_name_of_the_largest_size_is_read() -> None:
    text = "a" * NAME_MAX
    assert decode_str(LAYOUT, str_object(text.encode(), NAME_MAX, 1, COMPACT | ASCII)) == text


def test_a_str_that_is_cut_short_is_none() -> None:
    data = str_object(b"parse", 5, 1, COMPACT | ASCII)[:-1]
    assert (decode_str(LAYOUT, data), read_str(LAYOUT, memory(data), AT)) == (None, None)


def bytes_object(size: int, contents: bytes) -> bytes:
    """A bytes object of 3.12."""
    header = bytearray(LAYOUT.bytes_value)
    header[LAYOUT.bytes_size : LAYOUT.bytes_size + 8] = size.to_bytes(8, "little")
    return bytes(header) + contents


@pytest.mark.parametrize("size", [0, 3, LINE_TABLE_MAX])
def test_bytes_are_read_whole(size: int) -> None:
    contents = b"\x07" * size
    assert read_bytes(LAYOUT, memory(bytes_object(size, contents)), AT) == contents


@pytest.mark.parametrize(
    "data",
    [
        bytes_object(4, b"\0\1\2"),
        bytes_object(LINE_TABLE_MAX + 1, bytes(LINE_TABLE_MAX + 1)),
        bytes_object(0, b"")[: LAYOUT.bytes_size + 7],
        b"",
    ],
    ids=["cut short", "too large", "half a header", "unreadable"],
)
def test_bytes_that_cannot_be_read_whole_are_none(data: bytes) -> None:
    assert read_bytes(LAYOUT, memory(data), AT) is None


LINES = LineRanges(10, (0, 4, 8), (10, 11, 0))


def code(name: str = "parse", file: str = "a.py", lines: LineRanges | None = LINES) -> Code:
    """A code object of 3.12."""
    return Code(name, file, 10, lines, LAYOUT)


@pytest.mark.parametrize(("lasti", "line"), [(-2, 10), (0, 10), (4, 11), (8, 10)])
def test_a_frame_is_at_its_instruction_s_line(lasti: int, line: int) -> None:
    assert code().line_at(LAYOUT.code_instructions + lasti) == line


def test_a_code_object_without_a_table_has_no_lines() -> None:
    assert code(lines=None).line_at(LAYOUT.code_instructions) == 0


def test_the_first_line_stands_where_the_frame_has_not_started() -> None:
    other = LineRanges(99, (0,), (99,))
    assert code(lines=other).line_at(LAYOUT.code_instructions - 2) == 10


@pytest.mark.parametrize(("release", "position", "offset"), [((3, 9), 6, 6), ((3, 10), 3, 6), ((3, 11), 190, 6)])
def test_a_position_is_in_the_release_s_own_unit(release: tuple[int, int], position: int, offset: int) -> None:
    assert byte_offset(LAYOUTS[release], position) == offset


def test_a_python_frame_has_name_file_and_lines() -> None:
    frame = python_frame(code(), LAYOUT.code_instructions + 4)
    assert frame == Frame(FrameKind.PYTHON, "parse", "a.py", 10, 11)


@pytest.mark.parametrize(
    ("name", "file", "plumbing"),
    [("__init__", "__init__", True), ("__init__", "a.py", False), ("f", "__init__", False), ("f", "f", False)],
)
def test_the_code_below_an_inlined_init_is_plumbing(name: str, file: str, plumbing: bool) -> None:
    assert python_frame(code(name, file), LAYOUT.code_instructions).plumbing is plumbing
