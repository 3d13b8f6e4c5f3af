"""Code objects as the walker copied them: names out of str objects, the line of a position.

Pure: what the walker could not copy is read by a function of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyflame_ebpf.cpython.layout import CPythonLayout, InstructionKind
from pyflame_ebpf.cpython.line_table import LineRanges
from pyflame_ebpf.profile.model import Frame, FrameKind

NAME_MAX = 4096  # characters of a name or file name that are read when the walker could not
LINE_TABLE_MAX = 1 << 20
INIT_CLEANUP = "__init__"  # name and file of the code object that 3.13 and later run below each __init__ they inline


@dataclass(frozen=True, slots=True)
class Code:
    """A code object's name, file, first line, and its lines where the table could be read."""

    name: str
    file: str
    first_line: int
    lines: LineRanges | None
    layout: CPythonLayout

    def line_at(self, position: int) -> int:
        """The line at a position as a frame gives it; the first line where the table gives none, 0 without table."""
        if self.lines is None:
            return 0
        lasti = byte_offset(self.layout, position)
        return (self.lines.line_at(lasti) if lasti >= 0 else 0) or self.first_line


def byte_offset(layout: CPythonLayout, position: int) -> int:
    """Byte offset of the executing instruction, negative before the first, from what the frame says of its place."""
    if layout.instruction_kind == InstructionKind.LASTI_UNITS:
        return position * 2
    if layout.instruction_kind == InstructionKind.LASTI_BYTES:
        return position
    return position - layout.code_instructions


def python_frame(code: Code, position: int) -> Frame:
    """The frame that runs a code object, at a position as the frame gives it."""
    if code.name == code.file == INIT_CLEANUP:
        return Frame(FrameKind.PYTHON, code.name, code.file, plumbing=True)
    return Frame(FrameKind.PYTHON, code.name, code.file, code.first_line, code.line_at(position))


def decode_str(layout: CPythonLayout, data: bytes) -> str | None:
    """The characters of a compact PEP 393 str object, from its memory; None when it is not one or is incomplete."""
    size = str_size(layout, data)
    if size is None or len(data) < size:
        return None
    state = data[layout.str_state]
    kind = state >> layout.str_kind_shift & 7
    start = layout.str_ascii_data if state >> layout.str_ascii_shift & 1 else layout.str_compact_data
    encoding = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[kind]
    return data[start:size].decode(encoding, "surrogatepass" if kind == 2 else "replace")  # noqa: PLR2004 - PEP 393


def str_size(layout: CPythonLayout, header: bytes) -> int | None:
    """Bytes of a str object with its characters, from its header; None when it is not a compact str."""
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
    """A str object of another process, None when it cannot be read."""
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
