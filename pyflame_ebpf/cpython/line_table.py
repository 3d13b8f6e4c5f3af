"""From a code object's line table to the line of each instruction; a table may be cut short, or garbage.

Sources: Objects/lnotab_notes.txt (3.6 to 3.10), Objects/locations.md (3.11 and 3.12), InternalDocs/code_objects.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

_UNIT = 2  # bytes of a code unit from 3.6 on
_NO_LINE_310 = 0x80  # line delta of an entry without a line in 3.10's table
_LARGEST_LINE = (1 << 31) - 1  # lines are C ints
_VARINT_CHUNKS = 6  # of 6 bits: more than a C int needs
_MARK_EVERY = 4096  # entries; so many are walked in about a millisecond


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
    for entry in _DECODERS[table_format](table, 0, 0, first_line):
        line = _valid(entry.line)
        if starts and starts[-1] == entry.start:
            lines[-1] = line
        elif not lines or lines[-1] != line:
            starts.append(entry.start)
            lines.append(line)
    return LineRanges(max(first_line, 0), tuple(starts), tuple(lines))


def _valid(line: int) -> int:
    return line if 0 < line <= _LARGEST_LINE else 0


class _Entry(NamedTuple):
    """``line`` holds from byte ``start`` of the bytecode; decoding can go on from (``at``, ``start``, ``counted``)."""

    start: int
    line: int
    at: int  # offset in the table, in bytes
    counted: int  # the line that later deltas are added to, before those at ``at``


class LineTable:
    """The lines of one code object, packed as they came; a question walks the table up to the position.

    Each question leaves marks behind, one for each 4,096 entries, from which later ones go on.  A recording keeps the
    tables of all code objects that it met, and asks a few of them for a few positions.
    """

    __slots__ = ("_marks", "first_line", "packed", "table_format")

    def __init__(self, table_format: LineTableFormat, packed: bytes, first_line: int) -> None:
        self.table_format = table_format
        self.packed = packed
        self.first_line = first_line
        self._marks: list[tuple[int, int, int]] = []  # start, offset in the table, counted line; rising

    def line_at(self, lasti: int) -> int:
        """The line at byte ``lasti`` of the bytecode; the first line for a frame not yet started (negative)."""
        if lasti < 0:
            return max(self.first_line, 0)
        known = bisect_right(self._marks, (lasti, -1, 0))
        start, at, counted = self._marks[known - 1] if known else (0, 0, self.first_line)
        found = 0
        for number, entry in enumerate(_DECODERS[self.table_format](self.packed, at, start, counted)):
            if entry.start > lasti:
                break
            found = entry.line
            if number % _MARK_EVERY == _MARK_EVERY - 1 and known == len(self._marks):
                self._marks.append((entry.start, entry.at, entry.counted))
                known += 1
        return _valid(found)


def _signed(byte: int) -> int:
    return byte - 0x100 if byte & 0x80 else byte


def _decode_lnotab_unsigned(table: bytes, at: int, start: int, line: int) -> Iterator[_Entry]:
    """2.7: pairs of a bytecode delta and a line delta; the last line holds to the end."""
    yield _Entry(start, line, at, line)
    for place in range(at, len(table) - 1, 2):
        start += table[place]
        line += table[place + 1]
        yield _Entry(start, line, place + 2, line)


def _decode_lnotab(table: bytes, at: int, start: int, line: int) -> Iterator[_Entry]:
    """3.6 to 3.9: as in 2.7, but lines may go back."""
    yield _Entry(start, line, at, line)
    for place in range(at, len(table) - 1, 2):
        start += table[place]
        line += _signed(table[place + 1])
        yield _Entry(start, line, place + 2, line)


def _decode_linetable_310(table: bytes, at: int, start: int, line: int) -> Iterator[_Entry]:
    """3.10: pairs of a bytecode width and the line delta that comes before it; behind the last there is no line."""
    for place in range(at, len(table) - 1, 2):
        delta, before = table[place + 1], line
        if delta != _NO_LINE_310:
            line += _signed(delta)
        yield _Entry(start, 0 if delta == _NO_LINE_310 else line, place, before)
        start += table[place]
    yield _Entry(start, 0, len(table), line)


def _decode_locations(table: bytes, at: int, start: int, line: int) -> Iterator[_Entry]:
    """3.11 and later: entries of a head byte 1cccclll and payload bytes below 0x80, for lll + 1 units of kind cccc."""
    for place in range(at, len(table)):
        head = table[place]
        if not head & 0x80:
            continue  # payload
        kind, before = head >> 3 & 15, line
        line += _line_delta(kind, table, place + 1)
        yield _Entry(start, 0 if kind == _Kind.NONE else line, place, before)
        start += ((head & 7) + 1) * _UNIT
    yield _Entry(start, 0, len(table), line)


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
