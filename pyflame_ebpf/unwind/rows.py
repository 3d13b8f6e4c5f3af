"""From an ELF file to the unwind rows of one page of its code: how each address finds its caller.

Only the entries that overlap the page are decoded.  Addresses that no entry covers get rows of kind NONE.  Files are
untrusted: damage ends in BadElf or in rows of kind NONE, after a bounded amount of work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from pyflame_ebpf.elf.bad_elf import OverBudget
from pyflame_ebpf.elf.budget import Clock
from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.unwind.architecture import ELF_MACHINE, ENTRY_POINT, RETURN_ADDRESS, row_body
from pyflame_ebpf.unwind.call_frame_information import CommonEntry
from pyflame_ebpf.unwind.frame_entries import FrameEntry, common_entry_vaddr, frame_rules, parse_common, parse_frame
from pyflame_ebpf.unwind.frame_index import NO_FRAMES, Found, FrameIndex, open_index, read_entry
from pyflame_ebpf.unwind.page_rows import PAGE_SHIFT, PAGE_SIZE, ROWS_MAX, PageRows
from pyflame_ebpf.unwind.row import NONE_BODY, ROOT_BODY, UNSUPPORTED_BODY
from pyflame_ebpf.unwind.rules import Rules

_ADDRESS_END = 1 << 64
_PAGE_BYTES_MAX = 1 << 16  # bytes of entries that are decoded for one page, in 20 ms at the most
_SLOW_PAGE = 0.005  # seconds of CPU time; nearly all pages take 0.0002
_SLOW_PAGES_MAX = 0.1  # seconds of CPU time that a file's slow pages may take together
_COMMON_ENTRIES_MAX = 1024
_COMMON_ENTRY_MAX = 512  # bytes; compilers write 28 at the most
_ENTRY_MIN = 8  # bytes
_TOGETHER_MAX = 1 << 15  # bytes of entries that are read at once: linkers write those of a page side by side
_ENTRY_POINT_SIZE = 16  # bytes that are searched for what only an entry point does


class UnwindTable:
    """The unwind rows of one file, by page.

    Reads the file when it is asked, so keep the file open.  Opening reads the head of .eh_frame_hdr and no more, and
    raises BadElf when that contradicts itself.
    """

    def __init__(self, image: ElfImage, clock: Clock = time.thread_time) -> None:
        self._image = image
        self._clock = clock
        self._slow = 0.0  # seconds that slow pages took
        self._index: FrameIndex = open_index(image) if image.machine == ELF_MACHINE else NO_FRAMES
        self._common_entries: dict[int, CommonEntry] = {}
        self._bodies: dict[Rules, bytes] = {}
        self._signal_bodies: dict[Rules, bytes] = {}

    @property
    def empty(self) -> bool:
        """True when every page is NONE: Go and JIT code, files of other architectures."""
        return self._index is NO_FRAMES

    @property
    def size(self) -> int:
        """Bytes of the index in memory."""
        return self._index.size

    def rows(self, page: int) -> bytes:
        """The packed rows of the page at address ``page << PAGE_SHIFT`` of the image.

        Raises BadElf and TooManyRows, and OverBudget once the file's slow pages took _SLOW_PAGES_MAX.
        """
        if self._slow > _SLOW_PAGES_MAX:
            raise OverBudget(f"its unwind data takes more than {_SLOW_PAGES_MAX} s of CPU time: over its budget")
        began = self._clock()
        try:
            return self._rows(page)
        finally:
            spent = self._clock() - began
            self._slow += spent if spent > _SLOW_PAGE else 0.0

    def _rows(self, page: int) -> bytes:
        begin = page << PAGE_SHIFT
        rows = PageRows(begin)
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
                continue  # the other entries are still good; the addresses of this one stay NONE
        if begin <= self._image.entry < begin + PAGE_SIZE and self._begins_at_entry_point():
            rows.fill(self._image.entry, ROOT_BODY)
        return rows.packed()

    def _begins_at_entry_point(self) -> bool:
        """True when the kernel starts programs at the file's entry point.

        The dynamic linker and musl's programs have no FDE for that code.  In libraries, some linkers give the first
        function as entry point, where nothing starts.
        """
        try:
            return bool(ENTRY_POINT.search(self._image.read_virtual(self._image.entry, _ENTRY_POINT_SIZE)))
        except BadElf:
            return False

    def _add(self, rows: PageRows, frame: FrameEntry, limit: int) -> None:
        """Add the rows of one entry, which hold up to address ``limit`` at most.  Raises BadElf."""
        end = min(frame.end, limit)
        if end <= max(frame.start, rows.begin) or frame.end > _ADDRESS_END:
            return
        if frame.common.return_register == RETURN_ADDRESS:
            rows.add_all(self._decoded(frame, rows.begin, end))
        else:
            rows.add(frame.start, UNSUPPORTED_BODY)
        rows.add(end, NONE_BODY)

    def _decoded(self, frame: FrameEntry, begin: int, end: int) -> list[tuple[int, bytes]]:
        """(address, row body) of one entry; bodies come from memory, since a file has few different rules."""
        is_signal_frame = frame.common.is_signal_frame
        bodies = self._signal_bodies if is_signal_frame else self._bodies
        if len(bodies) >= ROWS_MAX:
            bodies.clear()
        decoded = []
        for vaddr, rules in frame_rules(frame, begin, end):
            body = bodies.get(rules)
            if body is None:
                body = bodies[rules] = row_body(rules, is_signal_frame)
            decoded.append((vaddr, body))
        return decoded

    def _entries(self, found: list[Found]) -> Callable[[int], bytes]:
        """Make a function from an FDE's address to its bytes; FDEs that lie side by side are read at once."""
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
        """Parse the FDE at an address.  Raises BadElf."""
        common_vaddr = common_entry_vaddr(data, vaddr)
        common = self._common_entries.get(common_vaddr)
        if common is None:
            if len(self._common_entries) >= _COMMON_ENTRIES_MAX:
                self._common_entries.clear()
            common = parse_common(read_entry(self._image, common_vaddr, _COMMON_ENTRY_MAX), common_vaddr)
            self._common_entries[common_vaddr] = common
        return parse_frame(data, vaddr, common)
