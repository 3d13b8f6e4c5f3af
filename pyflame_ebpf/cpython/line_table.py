"""From a code object's line table to the line of each instruction; a table may be cut short, or garbage.

Sources: Objects/lnotab_notes.txt (3.6 to 3.10), Objects/locations.md (3.11 and 3.12), InternalDocs/code_objects.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

_UNIT = 2  # bytes of a code unit from 3.6 on
_NO_LINE_310 = 0x80  # line delta of an entry without a line in 3.10's table
_LARGEST_LINE = (1 << 31) - 1  # lines are C ints
_VARINT_CHUNKS = 6  # of 6 bits: more than a C int needs


class LineTableFormat(Enum):
    """How a release encodes the line of each instruction."""

    LNOTAB_UNSIGNED = "co_lnotab, unsigned line deltas"  # 2.7
    LNOTAB = "co_lnotab, signed line deltas"  # 3.6 to 3.9
    LINETABLE_310 = "co_linetable, line deltas"  # 3.10
    LOCATIONS = "co_linetable, locations"  # 3.11 and later


@dataclass(frozen=True, slots=True)
class LineRanges:
    """The lines of one code object.

    ``lines[i]`` holds from byte ``starts[i]`` of the bytecode up to the next start; 0 stands for no line.
    """

    first_line: int
    starts: tuple[int, ...]  # strictly ascending
    lines: tuple[int, ...]

    def line_at(self, lasti: int) -> int:
        """The line at byte ``lasti`` of the bytecode; the first line for a frame not yet started (negative)."""
        if lasti < 0:
            return self.first_line
        index = bisect_right(self.starts, lasti) - 1
        return self.lines[index] if index >= 0 else 0


def decode_lines(table_format: LineTableFormat, table: bytes, first_line: int) -> LineRanges:
    """Decode a whole table.  Never fails: a position that the table says nothing of has no line."""
    starts: list[int] = []
    lines: list[int] = []
    for start, raw in _DECODERS[table_format](table, first_line):
        line = raw if 0 < raw <= _LARGEST_LINE else 0
        if starts and starts[-1] == start:
            lines[-1] = line
        elif not lines or lines[-1] != line:
            starts.append(start)
            lines.append(line)
    return LineRanges(max(first_line, 0), tuple(starts), tuple(lines))


def _signed(byte: int) -> int:
    return byte - 0x100 if byte & 0x80 else byte


def _pairs(table: bytes) -> Iterator[tuple[int, int]]:
    return zip(table[::2], table[1::2], strict=False)


def _decode_lnotab_unsigned(table: bytes, first_line: int) -> Iterator[tuple[int, int]]:
    """2.7: pairs of a bytecode delta and a line delta; the last line holds to the end."""
    start, line = 0, first_line
    yield start, line
    for width, delta in _pairs(table):
        start += width
        line += delta
        yield start, line


def _decode_lnotab(table: bytes, first_line: int) -> Iterator[tuple[int, int]]:
    """3.6 to 3.9: as in 2.7, but lines may go back."""
    start, line = 0, first_line
    yield start, line
    for width, delta in _pairs(table):
        start += width
        line += _signed(delta)
        yield start, line


def _decode_linetable_310(table: bytes, first_line: int) -> Iterator[tuple[int, int]]:
    """3.10: pairs of a bytecode width and the line delta that comes before it; behind the last there is no line."""
    start, line = 0, first_line
    for width, delta in _pairs(table):
        if delta != _NO_LINE_310:
            line += _signed(delta)
        yield start, 0 if delta == _NO_LINE_310 else line
        start += width
    yield start, 0


def _decode_locations(table: bytes, first_line: int) -> Iterator[tuple[int, int]]:
    """3.11 and later: entries of a head byte 1cccclll and payload bytes below 0x80, for lll + 1 units of kind cccc."""
    start, line = 0, first_line
    for index, head in enumerate(table):
        if not head & 0x80:
            continue  # payload
        kind = head >> 3 & 15
        line += _line_delta(kind, table, index + 1)
        yield start, 0 if kind == _Kind.NONE else line
        start += ((head & 7) + 1) * _UNIT
    yield start, 0


class _Kind:
    """Codes of enum _PyCodeLocationInfoKind (cpython/code.h); entries below ONE_LINE_0 stay on the line."""

    ONE_LINE_0 = 10  # 10 to 12: the line delta is 0 to 2
    NO_COLUMNS = 13
    LONG = 14
    NONE = 15


def _line_delta(kind: int, table: bytes, payload: int) -> int:
    if kind in (_Kind.LONG, _Kind.NO_COLUMNS):
        value = _varint(table, payload)
        return -(value >> 1) if value & 1 else value >> 1
    return kind - _Kind.ONE_LINE_0 if _Kind.ONE_LINE_0 <= kind < _Kind.NO_COLUMNS else 0


def _varint(table: bytes, start: int) -> int:
    """A number in chunks of 6 bits, the lowest first; bit 6 says that another chunk follows."""
    value = 0
    for position, byte in enumerate(table[start : start + _VARINT_CHUNKS]):
        value |= (byte & 0x3F) << 6 * position
        if not byte & 0x40:
            break
    return value


_DECODERS = {
    LineTableFormat.LNOTAB_UNSIGNED: _decode_lnotab_unsigned,
    LineTableFormat.LNOTAB: _decode_lnotab,
    LineTableFormat.LINETABLE_310: _decode_linetable_310,
    LineTableFormat.LOCATIONS: _decode_locations,
}
