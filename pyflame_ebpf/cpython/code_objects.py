"""Code objects: their names out of str objects, and the line of a position in them.

Pure: memory of another process is read by a function that the caller passes in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pyflame_ebpf.cpython.layout import CPythonLayout, InstructionKind
from pyflame_ebpf.profile.model import Frame, FrameKind

NAME_MAX = 4096  # characters; a longer str is no name
LINE_TABLE_MAX = 1 << 20  # bytes
INIT_CLEANUP = "__init__"  # name and file of the code object that 3.13 and later run below each inlined __init__


class Lines(Protocol):
    """The lines of a code object."""

    def line_at(self, lasti: int, /) -> int:
        """The line at byte ``lasti`` of the bytecode, 0 for none."""


@dataclass(frozen=True, slots=True)
class Code:
    """A code object; ``lines`` is None when its line table could not be read or kept."""

    name: str
    file: str
    first_line: int
    lines: Lines | None
    layout: CPythonLayout

    def line_at(self, position: int) -> int:
        """The line at a frame's position: the first line where the table has none, 0 without a table."""
        if self.lines is None:
            return 0
        lasti = byte_offset(self.layout, position)
        return (self.lines.line_at(lasti) if lasti >= 0 else 0) or self.first_line


def byte_offset(layout: CPythonLayout, position: int) -> int:
    """The executing instruction's offset in the bytecode, in bytes; negative before the first instruction.

    ``position`` is what the frame says, in the release's own unit.
    """
    if layout.instruction_kind == InstructionKind.LASTI_UNITS:
        return position * 2
    if layout.instruction_kind == InstructionKind.LASTI_BYTES:
        return position
    return position - layout.code_instructions


def python_frame(code: Code, position: int) -> Frame:
    """The frame that runs a code object at a position, which is in the release's own unit."""
    if code.name == code.file == INIT_CLEANUP:
        return Frame(FrameKind.PYTHON, code.name, code.file, plumbing=True)
    return Frame(FrameKind.PYTHON, code.name, code.file, code.first_line, code.line_at(position))


def decode_str(layout: CPythonLayout, data: bytes) -> str | None:
    """The characters of a compact PEP 393 str object, from its memory; None when it is no such str or is cut short."""
    size = str_size(layout, data)
    if size is None or len(data) < size:
        return None
    state = data[layout.str_state]
    kind = state >> layout.str_kind_shift & 7
    start = layout.str_ascii_data if state >> layout.str_ascii_shift & 1 else layout.str_compact_data
    encoding = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[kind]
    return data[start:size].decode(encoding, "surrogatepass" if kind == 2 else "replace")  # noqa: PLR2004 - PEP 393


def str_size(layout: CPythonLayout, header: bytes) -> int | None:
    """The size of a str object with its characters, in bytes, from its header; None when it is not a compact str."""
    if len(header) < max(layout.str_length + 8, layout.str_state + 1):
        return None
    state = header[layout.str_state]
    kind = state >> layout.str_kind_shift & 7
    length = int.from_bytes(header[layout.str_length : layout.str_length + 8], "little")
    if not state >> layout.str_compact_shift & 1 or kind not in (1, 2, 4) or length > NAME_MAX:
        return None
    data = layout.str_ascii_data if state >> layout.str_ascii_shift & 1 else layout.str_compact_data
    return data + length * kind


def read_str(layout: CPythonLayout, read: Callable[[int, int], bytes], address: int) -> str | None:
    """The characters of a str object of another process, None when they cannot be read."""
    header = read(address, max(layout.str_length + 8, layout.str_state + 1))
    size = str_size(layout, header)
    return None if size is None else decode_str(layout, read(address, size))


def read_bytes(layout: CPythonLayout, read: Callable[[int, int], bytes], address: int) -> bytes | None:
    """The contents of a bytes object of another process, None when they cannot be read."""
    header = read(address + layout.bytes_size, 8)
    size = int.from_bytes(header, "little")
    if len(header) < 8 or size > LINE_TABLE_MAX:  # noqa: PLR2004 - a Py_ssize_t
        return None
    data = read(address + layout.bytes_value, size)
    return data if len(data) == size else None
