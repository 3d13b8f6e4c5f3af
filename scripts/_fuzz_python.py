"""What scripts/fuzz.py tries on the readers of interpreters' memory and of source text."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import _checkout  # noqa: F401 - finds the package
from _fuzz_target import Target

from pyflame_ebpf.cpython.code_objects import decode_str, read_bytes, read_str
from pyflame_ebpf.cpython.debug_offsets import DebugOffsetsError, UnsupportedPythonError, layout_from_debug_offsets
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.line_table import LineTableFormat, decode_lines
from pyflame_ebpf.cpython.published_offsets import HEADER, PUBLISHED
from pyflame_ebpf.profile.model import Frame, FrameKind, Gil, Outcome, Process, Profile, Recording, SampleKey, Thread
from pyflame_ebpf.profile.source_text import LINE_MAX, sampled_sources

_LARGEST_LINE = (1 << 31) - 1
_HEAD = 4  # bytes of an input that choose, before what is read


def _require(promise: bool, what: str) -> None:
    if not promise:
        raise AssertionError(what)


def read_lines(data: bytes) -> None:
    """Decode a table in every format; lines are those of C, and positions rise."""
    first_line = int.from_bytes(data[:_HEAD], "little")
    for table_format in LineTableFormat:
        ranges = decode_lines(table_format, data[_HEAD:], first_line)
        for lasti in (-1, 0, 1, 1000):
            _require(0 <= ranges.line_at(lasti) <= max(first_line, _LARGEST_LINE), "a line of a table")


def read_strings(data: bytes) -> None:
    """Read the bytes as a str and as a bytes object of every release."""

    def read(address: int, size: int) -> bytes:
        return data[address : address + size]

    for layout in LAYOUTS.values():
        for text in (decode_str(layout, data), read_str(layout, read, 0)):
            _require(text is None or len(text) <= len(data), "characters of a str")
        found = read_bytes(layout, read, 0)
        _require(found is None or len(found) <= len(data), "bytes of a bytes object")


def read_offsets(data: bytes) -> None:
    """Read what a process says of its own structures."""
    with contextlib.suppress(DebugOffsetsError, UnsupportedPythonError):
        layout_from_debug_offsets(data)


def read_source(data: bytes) -> None:
    """Take source text for a function whose name and lines the first bytes choose."""
    first, line = (max(1, byte) for byte in data[:2].ljust(2, b"\1"))
    names = ("f", "<module>", "C.f", "<lambda>", "naïve")
    frame = Frame(FrameKind.PYTHON, names[first % len(names)], "/app.py", first, line)
    profile = Profile(Recording(0.0, 1.0, 99, 1), [Process(1, "p")], [Thread(1, "t")], [frame], [(0,)])
    profile.samples = Counter({SampleKey(0, 0, 0, 0, False, Gil.UNKNOWN, Outcome.COMPLETE): 1})
    found = sampled_sources(profile, lambda _process, _file: data[_HEAD:])
    for lines in found.values():
        _require(all(number > 0 and len(text) <= LINE_MAX for number, text in lines.items()), "lines of source text")


def line_seeds(_: Path) -> Iterator[bytes]:
    """Yield tables of this interpreter's own code, and of others' formats."""
    for function in (read_lines, read_strings, read_source):
        code = function.__code__
        yield code.co_firstlineno.to_bytes(_HEAD, "little") + code.co_linetable
    yield b"\1\0\0\0" + bytes((0, 1, 6, 1, 4, 0xFF, 2, 0x80))
    yield b"\1\0\0\0" + b"\xf0\x7f\x7f\x7f\x7f\x7f\x7f\x7f"


def string_seeds(_: Path) -> Iterator[bytes]:
    """Yield str objects of each kind, for each place of the state."""
    for layout in LAYOUTS.values():
        for kind, text in ((1, "plain"), (1, "é"), (2, "関数"), (4, "\U0001f40d")):
            is_ascii = text.isascii()
            state = kind << layout.str_kind_shift | 1 << layout.str_compact_shift | is_ascii << layout.str_ascii_shift
            start = layout.str_ascii_data if is_ascii else layout.str_compact_data
            memory = bytearray(start)
            memory[layout.str_length : layout.str_length + 8] = struct.pack("<Q", len(text))
            memory[layout.str_state] = state
            encoding = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[kind]
            yield bytes(memory) + text.encode(encoding) + b"\0"


def offset_seeds(_: Path) -> Iterator[bytes]:
    """Yield the header of each release that publishes its offsets, with offsets that could be."""
    for (major, minor), facts in PUBLISHED.items():
        head = HEADER.pack(b"xdebugpy", major << 24 | minor << 16, 0)
        offsets = struct.pack(f"<{len(facts.names)}Q", *(8 * at for at in range(len(facts.names))))
        yield (head + offsets).ljust(facts.size, b"\0")


def source_seeds(_: Path) -> Iterator[bytes]:
    """Yield this file, and text in other encodings."""
    yield b"\x17\x19\0\0" + Path(__file__).read_bytes()[:3000]
    yield b"\1\2\0\0\xef\xbb\xbfdef f():\r\n    return 1\r    # \xff\n"
    yield b"\2\3\0\0# coding: latin-1\n@x\ndef f(\n):\n    '''\xe9'''\n"


PYTHON_TARGETS = {
    "lines": Target(read_lines, line_seeds, ("cpython.line_table",)),
    "strings": Target(read_strings, string_seeds, ("cpython.code_objects",)),
    "offsets": Target(read_offsets, offset_seeds, ("cpython.debug_offsets",)),
    "source": Target(read_source, source_seeds, ("profile.source_text",)),
}
