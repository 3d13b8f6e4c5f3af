"""Pages of unwind rows: made when a sample needs them first, sent to the programs, taken back when room is short."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.abi import UnwindPage, UnwindPageKey
from pyflame_ebpf.tracking.program_maps import CodeMaps
from pyflame_ebpf.unwind.page_rows import TooManyRows
from pyflame_ebpf.unwind.row import UnwindRow, unpack_row
from pyflame_ebpf.unwind.rows import UnwindTable

PAGES_LATELY = 512  # whose rows, 4 KiB each at the most, are kept in this process too

_NO_ROWS = bytes(abi.UNWIND_ROW_SIZE)  # one row from 0 on of kind NONE
_UNUSED_ROW = b"\xff\xff" + bytes(abi.UNWIND_ROW_SIZE - 2)
_CHUNK_SIZE = abi.UNWIND_CHUNK_ROWS * abi.UNWIND_ROW_SIZE
_UNUSED_START = 0xFFFF  # of a chunk that a page does not have


@dataclass(slots=True)
class CodeFile:
    """What files with the same contents share: a number by which the programs know them, and their unwind data."""

    number: int
    image: ElfImage  # of the first of them, which stays open with the last
    table: UnwindTable | None  # None: no unwind data


class UnwindPages:
    """The pages of rows that the programs have."""

    def __init__(self, maps: CodeMaps) -> None:
        self._maps = maps
        self._sent: defaultdict[int, set[int]] = defaultdict(set)  # pages by number of their file
        self._next_chunk = 0
        self._rows_lately: dict[tuple[int, int], bytes] = {}  # by number of the file and page
        self.count = 0
        self.evictions = 0

    def send(self, code: CodeFile, page: int) -> None:
        """Sends the rows of a page, unless the programs have them."""
        if page < 0 or page in self._sent[code.number]:
            return
        chunks = _chunks(self._rows_kept(code, page))
        first = self._take_chunks(len(chunks))
        entry = UnwindPage(first)
        for index in range(abi.UNWIND_CHUNKS):
            entry.first[index] = int.from_bytes(chunks[index][:2], "little") if index < len(chunks) else _UNUSED_START
        for index, chunk in enumerate(chunks):
            self._maps.set_unwind_chunk(first + index, chunk)
        self._sent[code.number].add(page)
        self.count += 1
        self._maps.set_unwind_page(UnwindPageKey(code.number, page), entry)

    def row_at(self, code: CodeFile, page: int, offset: int) -> UnwindRow:
        """The row that holds at an offset in a page, in bytes."""
        rows = self._rows_kept(code, page)
        starts = memoryview(rows).cast("H")[:: abi.UNWIND_ROW_SIZE // 2]
        return unpack_row(rows, bisect_right(starts, offset) - 1)

    def _rows_kept(self, code: CodeFile, page: int) -> bytes:
        """The rows of a page, from memory where they were asked for lately."""
        key = code.number, page
        rows = self._rows_lately.get(key)
        if rows is None:
            if len(self._rows_lately) >= PAGES_LATELY:
                self._rows_lately.clear()
            rows = self._rows_lately[key] = _rows(code, page) or _NO_ROWS
        return rows

    def _take_chunks(self, count: int) -> int:
        """Returns the first of so many chunks side by side that are free."""
        if self._next_chunk + count > abi.UNWIND_CHUNKS_IN_ALL or self.count >= abi.UNWIND_PAGES:
            self._evict_all()
        first = self._next_chunk
        self._next_chunk += count
        return first

    def _evict_all(self) -> None:
        """Takes every page back.  A page that is still met is missed and sent again within milliseconds."""
        for number in list(self._sent):
            self._take_back(number)
        self._next_chunk = 0
        self.evictions += 1

    def drop(self, code: CodeFile) -> None:
        """Takes the pages of a file back, and forgets its rows: they may have been made of other contents."""
        self._take_back(code.number)
        for key in [key for key in self._rows_lately if key[0] == code.number]:
            del self._rows_lately[key]

    def _take_back(self, number: int) -> None:
        pages = self._sent.pop(number, set())
        for page in pages:
            self._maps.drop_unwind_page(UnwindPageKey(number, page))
        self.count -= len(pages)


def _rows(code: CodeFile, page: int) -> bytes:
    try:
        return code.table.rows(page) if code.table else _NO_ROWS
    except (BadElf, TooManyRows, OSError):
        return _NO_ROWS


def _chunks(rows: bytes) -> list[bytes]:
    """Rows of a page in pieces of one chunk each; at least one."""
    pieces = [rows[start : start + _CHUNK_SIZE] for start in range(0, len(rows), _CHUNK_SIZE)]
    return [piece + _UNUSED_ROW * ((_CHUNK_SIZE - len(piece)) // len(_UNUSED_ROW)) for piece in pieces]
