"""From an ELF file to the unwind rows of one page of its code: how each address finds its caller; x86-64.

A row is 8 bytes, as BPF reads it, and holds from its start up to the next one; the first starts at 0.  Rows are sorted
and differ from their neighbours.  Addresses that no entry covers get rows of kind NONE.  Only the entries that overlap
the page are decoded.  Files are untrusted: damage ends in BadElf or in NONE, after a bounded amount of work.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress

from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.unwind.call_frame_information import RETURN_ADDRESS, CommonEntry, Rules
from pyflame_ebpf.unwind.frame_entries import FrameEntry, common_entry_vaddr, frame_rules, parse_common, parse_frame
from pyflame_ebpf.unwind.frame_index import NO_FRAMES, Found, FrameIndex, open_index, read_entry
from pyflame_ebpf.unwind.plain_frames import is_plain, plain_rows, rules_of
from pyflame_ebpf.unwind.row import NONE_BODY, ROOT_BODY, UNSUPPORTED_BODY, row_body

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
ROWS_MAX = 512

_START = struct.Struct("<H")
_MACHINE_X86_64 = 62
_ADDRESS_END = 1 << 64
_PAGE_BYTES_MAX = 1 << 18  # of entries decoded for one page
_COMMON_ENTRIES_MAX = 1024
_COMMON_ENTRY_MAX = 512  # bytes; compilers write 28 at the most
_ENTRY_MIN = 8
_TOGETHER_MAX = 1 << 15  # bytes of entries read at once: those of a page lie side by side, as linkers write them
_ALIGNMENT = 16  # of functions
_GIVEN_UP_FIRST = (2, 5)  # bytes: a push; a push and the move to rbp, or at worst a call

_ENTRY_POINT = re.compile(rb"\x31\xed|\x48\x89\xe7")  # xor %ebp,%ebp: there is no caller; mov %rsp,%rdi: arguments


class TooManyRows(ValueError):
    """A page has more rows than the BPF maps hold."""


class UnwindTable:
    """The unwind rows of one file, by page; reads the file when it is asked, so keep the file open.

    Opening it reads the head of .eh_frame_hdr and no more.  BadElf when that contradicts itself.
    """

    def __init__(self, image: ElfImage) -> None:
        self._image = image
        self._index: FrameIndex = open_index(image) if image.machine == _MACHINE_X86_64 else NO_FRAMES
        self._common_entries: dict[int, CommonEntry] = {}
        self._bodies: dict[tuple[Rules, bool], bytes] = {}
        self._plain_bodies: dict[tuple[int, int, int], bytes] = {}

    @property
    def empty(self) -> bool:
        """Whether all its pages are NONE: Go and JIT code, other machines."""
        return self._index is NO_FRAMES

    def rows(self, page: int) -> bytes:
        """The rows of the page at address ``page << PAGE_SHIFT`` of the image; BadElf, TooManyRows."""
        begin = page << PAGE_SHIFT
        rows = _Rows(begin)
        budget = _PAGE_BYTES_MAX
        found = self._index.find(begin, begin + PAGE_SIZE)
        limits = [*(entry.start for entry in found), begin + PAGE_SIZE][1:]
        read = self._entries(found)
        for (start, vaddr), limit in zip(found, limits, strict=True):
            try:
                frame = self._frame(vaddr, read(vaddr))
                budget -= len(frame.data)
                if budget < 0:
                    break
                if frame.start == start and limit > begin:
                    self._add(rows, frame, limit)
            except BadElf:
                continue  # the others are still good; this one's addresses stay NONE
        if begin <= self._image.entry < begin + PAGE_SIZE and self._begins_at_entry_point():
            rows.fill(self._image.entry, ROOT_BODY)
        return rows.packed()

    def _begins_at_entry_point(self) -> bool:
        """Whether the kernel begins there: the dynamic linker and musl's programs have no entry for that code.

        In libraries some linkers give the first function as entry point.
        """
        try:
            return bool(_ENTRY_POINT.search(self._image.read_virtual(self._image.entry, _ALIGNMENT)))
        except BadElf:
            return False

    def _add(self, rows: _Rows, frame: FrameEntry, limit: int) -> None:
        """Add the rows of one entry, which hold up to address ``limit`` at most."""
        end = min(frame.end, limit)
        if end <= max(frame.start, rows.begin) or frame.end > _ADDRESS_END:
            return
        plain = self._plain(frame, rows.begin, end) if is_plain(frame.common) else None
        if plain is not None:
            rows.add_all(plain)
        elif frame.common.return_register == RETURN_ADDRESS:
            for vaddr, rules in frame_rules(frame, rows.begin, end):
                rows.add(vaddr, self._body_of(rules, frame.common.is_signal_frame))
        else:
            rows.add(frame.start, UNSUPPORTED_BODY)
        rows.add(end, NONE_BODY)

    def _plain(self, frame: FrameEntry, begin: int, end: int) -> list[tuple[int, bytes]] | None:
        """The rows of an ordinary function; None for others."""
        found = plain_rows(frame, begin, end)
        if found is None:
            return None
        bodies = self._plain_bodies
        if len(bodies) >= 2 * ROWS_MAX:
            bodies.clear()
        rows = []
        for vaddr, register, offset, place in found:
            key = (register, offset, place)
            body = bodies.get(key)
            if body is None:
                body = bodies[key] = row_body(rules_of(*key), is_signal_frame=False)
            rows.append((vaddr, body))
        return rows

    def _body_of(self, rules: Rules, is_signal_frame: bool) -> bytes:
        """A row by its rules, from memory: a file has few different ones."""
        body = self._bodies.get((rules, is_signal_frame))
        if body is None:
            if len(self._bodies) >= ROWS_MAX:
                self._bodies.clear()
            body = self._bodies[rules, is_signal_frame] = row_body(rules, is_signal_frame)
        return body

    def _entries(self, found: list[Found]) -> Callable[[int], bytes]:
        """Gives the FDEs by their addresses, from one read of the file where they lie side by side."""
        first = min((entry.vaddr for entry in found), default=0)
        last = max((entry.vaddr for entry in found), default=0)
        together = b""
        if 0 < last - first <= _TOGETHER_MAX:
            with suppress(BadElf):
                together = self._image.read_virtual_up_to(first, last - first + _COMMON_ENTRY_MAX)

        def read(vaddr: int) -> bytes:
            at = vaddr - first
            end = at + 4 + int.from_bytes(together[at : at + 4], "little")
            return (
                together[at:end] if end - at >= _ENTRY_MIN and end <= len(together) else read_entry(self._image, vaddr)
            )

        return read

    def _frame(self, vaddr: int, data: bytes) -> FrameEntry:
        """The FDE at an address."""
        common_vaddr = common_entry_vaddr(data, vaddr)
        common = self._common_entries.get(common_vaddr)
        if common is None:
            if len(self._common_entries) >= _COMMON_ENTRIES_MAX:
                self._common_entries.clear()
            common = parse_common(read_entry(self._image, common_vaddr, _COMMON_ENTRY_MAX), common_vaddr)
            self._common_entries[common_vaddr] = common
        return parse_frame(data, vaddr, common)


class _Rows:
    """The rows of a page while they are collected, in order of address."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self._starts = [0]
        self._bodies = [NONE_BODY]

    def add(self, vaddr: int, body: bytes) -> None:
        """Let a row hold from an address on, in place of one that starts there too."""
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
        """Add the rows of a function; a call for each would take longer than the rest."""
        starts, bodies, begin = self._starts, self._bodies, self.begin
        for vaddr, body in rows:
            start = vaddr - begin
            if start <= starts[-1] or start >= PAGE_SIZE:
                self.add(vaddr, body)
            elif body != bodies[-1]:
                starts.append(start)
                bodies.append(body)

    def fill(self, vaddr: int, body: bytes) -> None:
        """Let a row hold from an address up to the next row, if no entry covers the address."""
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
        """As BPF reads them; TooManyRows.

        A page that would have too many does without those of padding, and if need be gives up the addresses between
        the pushes of some functions, where hardly any call returns to.
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
        """Let the rows before the gaps that alignment leaves between functions hold in the gaps: nothing runs there."""
        for start, end, body in self._taken():
            if body != NONE_BODY or start == 0 or end - start >= _ALIGNMENT:
                self.add(self.begin + start, body)

    def _give_up(self, size: int) -> None:
        """Make one UNSUPPORTED row of neighbours that hold for so many bytes at most, no more of them than needed."""
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
        """(start, end, body) of all rows, which are taken out."""
        starts, bodies = self._starts, self._bodies
        self._starts, self._bodies = [], []
        return list(zip(starts, [*starts[1:], PAGE_SIZE], bodies, strict=True))
