"""The rows of one page while they are collected: sorted, different from their neighbours, as many as BPF maps hold.

Each row holds from its start up to the next row; the first starts at 0.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

from pyflame_ebpf.unwind.row import NONE_BODY, UNSUPPORTED_BODY

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
ROWS_MAX = 512

_START = struct.Struct("<H")
_ALIGNMENT = 16  # bytes, of functions: a gap that is smaller is padding
_GIVEN_UP_FIRST = (2, 5)  # bytes: a push; a push and the move to the frame pointer, or at worst a call


class TooManyRows(ValueError):
    """A page has more rows than the BPF maps hold."""


class PageRows:
    """The rows of the page at address ``begin``, to be added in order of address."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self._starts = [0]
        self._bodies = [NONE_BODY]

    def add(self, vaddr: int, body: bytes) -> None:
        """Let a row hold from an address on; it replaces a row that starts at the same address."""
        start = max(vaddr - self.begin, 0)
        if start >= PAGE_SIZE:
            return
        if self._starts and start == self._starts[-1]:
            self._starts.pop()
            self._bodies.pop()
        if not self._bodies or self._bodies[-1] != body:
            self._starts.append(start)
            self._bodies.append(body)

    def add_all(self, rows: list[tuple[int, bytes]]) -> None:
        """Add the rows of a function, at least one; a call for each row would take longer than all the rest."""
        self.add(*rows[0])
        starts, bodies, begin = self._starts, self._bodies, self.begin
        for vaddr, body in rows[1:]:
            start = vaddr - begin
            if start <= starts[-1] or start >= PAGE_SIZE:
                self.add(vaddr, body)
            elif body != bodies[-1]:
                starts.append(start)
                bodies.append(body)

    def fill(self, vaddr: int, body: bytes) -> None:
        """Let a row hold from an address up to the next row, unless an entry covers the address."""
        start = vaddr - self.begin
        index = bisect_right(self._starts, start) - 1
        if self._bodies[index] != NONE_BODY:
            return
        if self._starts[index] == start:
            self._bodies[index] = body
        else:
            self._starts.insert(index + 1, start)
            self._bodies.insert(index + 1, body)

    def packed(self) -> bytes:
        """The rows as BPF reads them.  Raises TooManyRows.

        Of a page with too many rows those of padding are left out.  Where that is not enough, the addresses between the
        pushes of some functions are given up, where hardly any call returns to.
        """
        if len(self._starts) > ROWS_MAX:
            self._drop_padding()
        for size in _GIVEN_UP_FIRST:
            if len(self._starts) > ROWS_MAX:
                self._give_up(size)
        if len(self._starts) > ROWS_MAX:
            raise TooManyRows(f"the page at {self.begin:#x} has {len(self._starts)} unwind rows")
        return b"".join([_START.pack(start) + body for start, body in zip(self._starts, self._bodies, strict=True)])

    def _drop_padding(self) -> None:
        """Let each row hold in the padding behind its function, too: nothing runs there."""
        for start, end, body in self._taken():
            if body != NONE_BODY or start == 0 or end - start >= _ALIGNMENT:
                self.add(self.begin + start, body)

    def _give_up(self, size: int) -> None:
        """Join neighbours of at most ``size`` bytes into UNSUPPORTED rows, and no more of them than needed."""
        excess = len(self._starts) - ROWS_MAX
        last_was_short = False
        for start, end, body in self._taken():
            short = body != NONE_BODY and end - start <= size
            if excess and short and last_was_short:
                self._bodies[-1] = UNSUPPORTED_BODY
                excess -= 1
            else:
                self.add(self.begin + start, body)
            last_was_short = short

    def _taken(self) -> list[tuple[int, int, bytes]]:
        """Take out all rows, as (start, end, body)."""
        starts, bodies = self._starts, self._bodies
        self._starts, self._bodies = [], []
        return list(zip(starts, [*starts[1:], PAGE_SIZE], bodies, strict=True))
