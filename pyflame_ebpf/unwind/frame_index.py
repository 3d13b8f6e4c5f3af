"""Where in .eh_frame the entries of an address range are, without decoding the section.

The linker's binary-search table (.eh_frame_hdr) is searched in the file, so that opening a file and finding a page take
the same time for every size of file.  Without a table, the section is walked once.

Source: Linux Standard Base Core 5.0, 10.6.2 (.eh_frame_hdr).
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from typing import NamedTuple, Protocol

from pyflame_ebpf.elf.file import PIECE
from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.unwind.call_frame_information import CommonEntry
from pyflame_ebpf.unwind.dwarf_numbers import Reader
from pyflame_ebpf.unwind.frame_entries import common_entry_vaddr, parse_common, parse_frame

_VERSION = 1
_TABLE_ENCODING = 0x3B  # signed 32 bits, relative to .eh_frame_hdr: linkers write no other
_OMITTED = 0xFF  # DW_EH_PE_omit
_HEADER_MAX = 32  # bytes in front of the table
_PAIR = struct.Struct("<ii")
_CHUNK = 64  # entries read at a time
_PROBED_MAX = 1024
_ENTRIES_MAX = 4097  # of one page: an entry for each byte, and one that began before the page
_ENTRY_GUESS = 512  # bytes; most entries take less than 100
_ENTRY_MAX = 1 << 16  # bytes; the largest entry that was met, in rustc, takes 34 KB
_WALK_MAX = 16 << 20  # bytes of a section without a table
_WALK_ENTRIES_MAX = 1 << 18
_WALK_CHECK = 256  # entries that are read between two looks at the budget
_COMMONS_MAX = 1024  # CIEs that are kept while a section is walked
_TERMINATOR, _LONG_FORM = 0, 0xFFFFFFFF
_SMALLEST_ENTRY = 8


class Found(NamedTuple):
    """Where an FDE is.  It alone can cover the addresses from its start up to the next FDE's start."""

    start: int  # the first address of its code
    vaddr: int  # the FDE's own address


class FrameIndex(Protocol):
    """Finds the FDEs of an address range."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""

    def find(self, begin: int, end: int) -> list[Found]:
        """Find the FDEs that start in [begin, end) and the last that starts before, sorted by start."""


class _NoFrames:
    """The index of a file that has no FDEs."""

    size = 0

    def find(self, begin: int, end: int) -> list[Found]:  # noqa: ARG002
        """Find nothing."""
        return []


NO_FRAMES: FrameIndex = _NoFrames()


class _SearchTable:
    """The linker's table of ``count`` pairs (start, FDE), which stays in the file."""

    size = 0  # all files together remember some thousand starts

    def __init__(self, image: ElfImage, header: int, table: int, count: int) -> None:
        self._image = image
        self._header = header
        self._table = table
        self._count = count
        self._probed: dict[int, int] = {}  # index → start: pages that lie together ask for the same entries

    def _start(self, index: int) -> int:
        start = self._probed.get(index)
        if start is None:
            if len(self._probed) >= _PROBED_MAX:
                self._probed.clear()
            start = self._probed[index] = self._read(index, 1)[0].start
        return start

    def _read(self, first: int, count: int) -> list[Found]:
        data = self._image.read_virtual(self._table + _PAIR.size * first, _PAIR.size * count)
        return [Found(start + self._header, vaddr + self._header) for start, vaddr in _PAIR.iter_unpack(data)]

    def find(self, begin: int, end: int) -> list[Found]:
        """Find by bisection; an entry out of order ends the search."""
        first = self._last_before(begin)
        found: list[Found] = []
        while first < self._count and len(found) < _ENTRIES_MAX:
            for entry in self._read(first, min(_CHUNK, self._count - first)):
                if entry.start >= end or (found and entry.start < found[-1].start):
                    return found
                if entry.start <= begin:
                    found.clear()  # this entry is nearer
                found.append(entry)
            first += _CHUNK
        return found

    def _last_before(self, vaddr: int) -> int:
        """The index of an entry at most ``_CHUNK`` entries before the last one that starts at or before an address."""
        low, high = 0, self._count
        while high - low > _CHUNK:
            middle = (low + high) // 2
            if self._start(middle) <= vaddr:
                low = middle
            else:
                high = middle
        return low


class _Walked:
    """An index that was made by walking the section."""

    def __init__(self, entries: list[Found]) -> None:
        entries.sort()
        self._starts = array("Q", [entry.start for entry in entries])
        self._vaddrs = array("Q", [entry.vaddr for entry in entries])

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self._starts) * (self._starts.itemsize + self._vaddrs.itemsize)

    def find(self, begin: int, end: int) -> list[Found]:
        """Find by bisection."""
        first = max(bisect_right(self._starts, begin) - 1, 0)
        last = min(bisect_right(self._starts, end - 1), first + _ENTRIES_MAX)
        return [Found(self._starts[index], self._vaddrs[index]) for index in range(first, last)]


def open_index(image: ElfImage) -> FrameIndex:
    """Find the search table; where there is no usable one, walk the section; NO_FRAMES for a file without either.

    Raises BadElf for a table that contradicts itself.
    """
    frames = 0
    header = image.unwind_index
    if header:
        reader = Reader(image.read_virtual_up_to(header.vaddr, min(_HEADER_MAX, header.file_size)), header.vaddr)
        try:
            frames, count = _parse_header(reader)
        except (IndexError, struct.error) as error:
            raise BadElf(".eh_frame_hdr is cut short") from error
        if 0 < count <= (header.file_size - reader.position) // _PAIR.size:
            return _SearchTable(image, header.vaddr, header.vaddr + reader.position, count)
    section = image.section(".eh_frame")
    if section and section.vaddr:
        return _walk(image, section.vaddr, section.size)
    return _walk(image, frames, _WALK_MAX) if frames else NO_FRAMES


def _parse_header(reader: Reader) -> tuple[int, int]:
    """Read (address of .eh_frame or 0, number of the table's entries or 0), and leave the reader at the table."""
    version, frames_encoding, count_encoding, table_encoding = (reader.byte() for _ in range(4))
    if version != _VERSION:
        raise BadElf(f"version {version} of .eh_frame_hdr is not supported")
    frames = 0 if frames_encoding == _OMITTED else reader.pointer(frames_encoding, reader.vaddr)
    if table_encoding != _TABLE_ENCODING or count_encoding == _OMITTED:
        return frames, 0
    return frames, reader.number(count_encoding)


def _walk(image: ElfImage, vaddr: int, size: int) -> FrameIndex:
    """Read the heads of all entries up to the first whose length cannot be, or as many as the budget allows."""
    entries: list[Found] = []
    commons: dict[int, CommonEntry] = {}
    with suppress(BadElf):  # linkers leave the address of a section that turned out to be empty
        for at, entry in islice(_entries(image, vaddr, min(size, _WALK_MAX)), _WALK_ENTRIES_MAX):
            if int.from_bytes(entry[4:8], "little"):
                with suppress(BadElf):  # the length still tells where the next entry is
                    _note(image, entry, at, entries, commons)
    return _Walked(entries) if entries else NO_FRAMES


def _entries(image: ElfImage, vaddr: int, size: int) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of the entries of a section, which is read piece by piece.  Raises BadElf, OverBudget."""
    data, start, position = b"", vaddr, 0  # ``data`` begins at ``start``
    end = vaddr + size
    for number in count():
        at = start + position
        if position + _ENTRY_MAX + 4 > len(data) and start + len(data) < end:
            data, start, position = image.read_virtual_up_to(at, min(PIECE, end - at)), at, 0
            if len(data) < min(PIECE, end - at):
                end = at + len(data)  # the segment ends here
        length = int.from_bytes(data[position : position + 4], "little")
        whole = position + 4 + length
        too_long = length in (_TERMINATOR, _LONG_FORM) or length > _ENTRY_MAX or whole > len(data)
        if position + _SMALLEST_ENTRY > len(data) or too_long:
            return
        if number % _WALK_CHECK == 0 and image.budget is not None:
            image.budget.check(".eh_frame")
        yield at, data[position:whole]
        position = whole


def _note(image: ElfImage, entry: bytes, vaddr: int, entries: list[Found], commons: dict[int, CommonEntry]) -> None:
    """Keep where an FDE is.  Raises BadElf."""
    place = common_entry_vaddr(entry, vaddr)
    common = commons.get(place)
    if common is None:
        if len(commons) >= _COMMONS_MAX:
            commons.clear()
        common = commons[place] = parse_common(read_entry(image, place), place)
    frame = parse_frame(entry, vaddr, common)
    if frame.end > frame.start:
        entries.append(Found(frame.start, vaddr))


def read_entry(image: ElfImage, vaddr: int, limit: int = _ENTRY_MAX) -> bytes:
    """Read a whole CIE or FDE, its length included.  Raises BadElf, also for more than ``limit`` bytes."""
    data = image.read_virtual_up_to(vaddr, _ENTRY_GUESS)
    size = 4 + int.from_bytes(data[:4], "little")
    if not _SMALLEST_ENTRY <= size <= limit:
        raise BadElf(f"an entry of .eh_frame cannot take {size} bytes")
    return data[:size] if size <= len(data) else image.read_virtual(vaddr, size)
