"""Executable memory of processes, and the unwind rows of the code pages that samples meet in it.

Files with the same unwind data have one number however many processes map them; a page of code becomes rows when the
first sample needs it.  Each file stays open for itself: of what else it holds, names above all, that says nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pyflame_ebpf.cpython.interpreter import load_bias
from pyflame_ebpf.elf.file import FileIdentity
from pyflame_ebpf.elf.file_contents import Digest, FilesByContents, hold_rows
from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.open_files import files_allowed
from pyflame_ebpf.host.proc import Mapping, ProcessGone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.abi import UnwindPage, UnwindPageKey
from pyflame_ebpf.sampling.sampler import Sampler
from pyflame_ebpf.unwind.page_rows import PAGE_SIZE, TooManyRows
from pyflame_ebpf.unwind.row import UnwindRow, unpack_row
from pyflame_ebpf.unwind.rows import UnwindTable

OpenMapped = Callable[[Identity, Mapping], BinaryIO]
NO_FILE = 0
VDSO = "[vdso]"
HELD_MAX = 64 << 20  # bytes of unwind data of files that are there twice
PAGES_LATELY = 512  # whose rows, 4 KiB each at the most, are kept in this process too

_NO_ROWS = bytes(abi.UNWIND_ROW_SIZE)  # one row from 0 on of kind NONE
_UNUSED_ROW = b"\xff\xff" + bytes(abi.UNWIND_ROW_SIZE - 2)
_CHUNK_SIZE = abi.UNWIND_CHUNK_ROWS * abi.UNWIND_ROW_SIZE


@dataclass(slots=True)
class CodeFile:
    """What files with the same contents share: a number, the unwind data, and which pages of it were sent."""

    number: int
    image: ElfImage  # of the first of them, which stays open with the last
    table: UnwindTable | None  # None: no unwind data
    pages: dict[int, int] = field(default_factory=dict)  # page → chunks


@dataclass(frozen=True, slots=True, eq=False)
class _MappedFile:
    """A file that processes have mapped."""

    identity: FileIdentity
    file: BinaryIO
    code: CodeFile


class MappedCode:
    """Tells the BPF programs where code is and how its frames are laid out."""

    def __init__(self, sampler: Sampler, open_mapped: OpenMapped) -> None:
        self._sampler = sampler
        self._open_mapped = open_mapped
        self._files: dict[int, CodeFile] = {}
        self._last_number = NO_FILE
        self._used: dict[Identity, set[FileIdentity]] = {}  # files that processes have mapped now
        self._unused_now = False  # whether files may have become unused since those were closed: it takes milliseconds
        self._gone: set[Identity] = set()  # processes that ended before their files could be opened
        self._same = FilesByContents(self._hold_rows, self._joined)
        self._by_place: dict[tuple[int, int, str], _MappedFile | None] = {}
        self._open_files: dict[FileIdentity, _MappedFile] = {}
        self._slots: OrderedDict[Identity, int] = OrderedDict()
        self._free_slots = list(range(abi.MAPPED_PROCESSES))
        self._next_chunk = 0
        self._rows_lately: dict[tuple[int, int], bytes] = {}  # file and page → rows
        self.pages = 0
        self.evictions = 0
        self.evicted: list[Identity] = []  # processes that have lost their slot, which the programs must be told

    # ---- processes ----

    def map_process(self, identity: Identity, mappings: Iterable[Mapping]) -> int:
        """Writes a process's executable memory; gives what its entry needs: 1 + the number of its slot."""
        slot = self._slot(identity)
        self._used[identity] = set()
        self._unused_now = True
        self._sampler.set_mappings(slot, self._pack(identity, mappings))
        return slot + 1

    def _slot(self, identity: Identity) -> int:
        if identity in self._slots:
            self._slots.move_to_end(identity)
        else:
            self._slots[identity] = self._free_slots.pop() if self._free_slots else self._taken_from_the_oldest()
        return self._slots[identity]

    def _taken_from_the_oldest(self) -> int:
        oldest, slot = self._slots.popitem(last=False)
        self._used.pop(oldest, None)
        self.evicted.append(oldest)
        return slot

    def forget(self, identity: Identity) -> None:
        """The process has ended."""
        self._used.pop(identity, None)
        self._unused_now = True
        self._gone.discard(identity)
        slot = self._slots.pop(identity, None)
        if slot is not None:
            self._free_slots.append(slot)

    def _pack(self, identity: Identity, mappings: Iterable[Mapping]) -> bytes:
        code = [mapping for mapping in mappings if mapping.executable and mapping.end < abi.UNUSED_MAPPING]
        code.sort(key=lambda mapping: mapping.start)
        packed = b"".join(self._pack_one(identity, mapping) for mapping in code[: abi.MAPPINGS - 1])
        # The search needs a first entry below all addresses.
        unused = bytes(abi.Mapping(abi.UNUSED_MAPPING, 0, 0, NO_FILE))
        return bytes(len(unused)) + packed + unused * (abi.MAPPINGS - 1 - len(packed) // len(unused))

    def _pack_one(self, identity: Identity, mapping: Mapping) -> bytes:
        number, bias = NO_FILE, 0
        file = self._file(identity, mapping)
        if file is not None:
            self._used[identity].add(file.identity)
            found = load_bias(mapping, file.code.image.segments)
            if found is not None:
                number, bias = file.code.number if file.code.table else NO_FILE, found
        pages = mapping.end - mapping.start >> 12
        return bytes(abi.Mapping(mapping.start, bias & 0xFFFFFFFFFFFFFFFF, pages, number))

    # ---- files ----

    def _file(self, identity: Identity, mapping: Mapping) -> _MappedFile | None:
        if not mapping.inode and mapping.path != VDSO:
            return None
        place = (mapping.device, mapping.inode, mapping.path)
        if place not in self._by_place and identity not in self._gone and self._has_room():
            try:
                self._by_place[place] = self._open(identity, mapping)
            except ProcessGone:  # others may have it mapped, too
                self._gone.add(identity)
        return self._by_place.get(place)

    def _has_room(self) -> bool:
        """Whether another file may be open, where needed after unused ones were closed."""
        allowed = files_allowed()
        if len(self._open_files) >= allowed and self._unused_now:
            self._unused_now = False
            self._close_unused()
        return len(self._open_files) < allowed

    def _open(self, identity: Identity, mapping: Mapping) -> _MappedFile | None:
        """The file as far as it can be read, None where it cannot; ProcessGone."""
        with contextlib.ExitStack() as opened:
            try:
                file = opened.enter_context(self._open_mapped(identity, mapping))
                image = ElfImage(file)
                if image.identity in self._open_files:  # mapped by another path
                    return self._open_files[image.identity]
                code = self._code_of(image)
            except ProcessGone:
                raise
            except (BadElf, PyflameError, OSError):
                return None
            opened.pop_all()
        self._open_files[image.identity] = _MappedFile(image.identity, file, code)
        return self._open_files[image.identity]

    def _code_of(self, image: ElfImage) -> CodeFile:
        """What a file shares with those that have its contents; BadElf, OSError."""
        same, digest = self._same.same_as(image)
        if same is not None:
            return same
        table = UnwindTable(image)
        self._last_number += 1
        code = CodeFile(self._last_number, image, None if table.empty else table)
        self._files[code.number] = code
        self._same.add(image, code, digest, lambda: contextlib.nullcontext(image))
        return code

    def _hold_rows(self, image: ElfImage) -> Digest:
        if sum(file.image.held for file in self._files.values()) > HELD_MAX:
            raise BadElf("too much is in memory already")
        return hold_rows(image)

    def _joined(self, code: CodeFile, image: ElfImage, _digest: Digest) -> None:
        """Another file is to have this one's rows: those of before may have been made of other contents."""
        self._drop_pages(code)
        for key in [key for key in self._rows_lately if key[0] == code.number]:
            del self._rows_lately[key]
        table = UnwindTable(image)
        code.table = None if table.empty else table

    def _close_unused(self) -> None:
        """Gives back the files that no process has mapped any more, with their pages; their functions stay unnamed."""
        used = set().union(*self._used.values())
        used |= {self._open_files[identity].code.image.identity for identity in used}
        unused = {identity: file for identity, file in self._open_files.items() if identity not in used}
        for identity, file in unused.items():
            del self._open_files[identity]
            file.file.close()
        self._by_place = {
            place: file for place, file in self._by_place.items() if file is None or file.identity not in unused
        }
        self._drop([code for code in self._files.values() if code.image.identity in unused])

    def _drop(self, codes: list[CodeFile]) -> None:
        for code in codes:
            del self._files[code.number]
            self._drop_pages(code)
        self._same.drop(codes)

    def _drop_pages(self, file: CodeFile) -> None:
        for page in file.pages:
            self._sampler.drop_unwind_page(UnwindPageKey(file.number, page))
        self.pages -= len(file.pages)
        file.pages.clear()

    def open_again(self, mapping: Mapping) -> BinaryIO:
        """The file behind a mapping that was met, also when its process is gone; OSError when it never was opened."""
        file = self._by_place.get((mapping.device, mapping.inode, mapping.path))
        if file is None:
            raise FileNotFoundError(mapping.path)
        return os.fdopen(os.dup(file.file.fileno()), "rb", buffering=0)

    # ---- pages ----

    def row_at(self, identity: Identity, mapping: Mapping, address: int) -> UnwindRow | None:
        """The row that holds at an address of a mapping, None for code without unwind data; its page is sent."""
        file = self._file(identity, mapping)
        bias = load_bias(mapping, file.code.image.segments) if file else None
        if file is None or bias is None or file.code.table is None:
            return None
        page, offset = divmod(address - bias, PAGE_SIZE)
        self.send_page(file.code.number, page)
        rows = self._rows_kept(file.code, page)
        starts = memoryview(rows).cast("H")[:: abi.UNWIND_ROW_SIZE // 2]
        return unpack_row(rows, bisect_right(starts, offset) - 1)

    def _rows_kept(self, file: CodeFile, page: int) -> bytes:
        """The rows of a page, from memory where they were asked for lately."""
        key = file.number, page
        rows = self._rows_lately.get(key)
        if rows is None:
            if len(self._rows_lately) >= PAGES_LATELY:
                self._rows_lately.clear()
            rows = self._rows_lately[key] = self._rows(file, page) or _NO_ROWS
        return rows

    def send_page(self, number: int, page: int) -> None:
        """Sends the rows of a page that was missed."""
        file = self._files.get(number)
        if file is None or page in file.pages or page < 0:
            return
        chunks = _chunks(self._rows_kept(file, page))
        first = self._take_chunks(len(chunks))
        entry = UnwindPage(first)
        for index in range(abi.UNWIND_CHUNKS):
            start = int.from_bytes(chunks[index][:2], "little") if index < len(chunks) else 0xFFFF
            entry.first[index] = start
        for index, chunk in enumerate(chunks):
            self._sampler.set_unwind_chunk(first + index, chunk)
        file.pages[page] = len(chunks)
        self.pages += 1
        self._sampler.set_unwind_page(UnwindPageKey(number, page), entry)

    @staticmethod
    def _rows(file: CodeFile, page: int) -> bytes:
        try:
            return file.table.rows(page) if file.table else _NO_ROWS
        except (BadElf, TooManyRows, OSError):
            return _NO_ROWS

    def _take_chunks(self, count: int) -> int:
        if self._next_chunk + count > abi.UNWIND_CHUNKS_IN_ALL or self.pages >= abi.UNWIND_PAGES:
            self._evict_all()
        first = self._next_chunk
        self._next_chunk += count
        return first

    def _evict_all(self) -> None:
        """Forgets every page: those still met come back within milliseconds."""
        for file in self._files.values():
            self._drop_pages(file)
        self._next_chunk = 0
        self.evictions += 1


def _chunks(rows: bytes) -> list[bytes]:
    """Rows of a page in pieces of one chunk each; at least one."""
    rows = rows or _NO_ROWS
    pieces = [rows[start : start + _CHUNK_SIZE] for start in range(0, len(rows), _CHUNK_SIZE)]
    return [piece + _UNUSED_ROW * ((_CHUNK_SIZE - len(piece)) // len(_UNUSED_ROW)) for piece in pieces]


def file_of_memory(data: bytes) -> BinaryIO:
    """Memory (of a vDSO) as an open file."""
    handle = os.memfd_create("vdso")
    os.write(handle, data)
    return os.fdopen(handle, "rb", buffering=0)


def open_code(pid: int, mapping: Mapping) -> BinaryIO:
    """The file behind a mapping of a process, for the vDSO its memory; OSError, BadElf, ProcessGone."""
    if mapping.path == VDSO:
        return file_of_memory(_own_vdso() or proc.read_memory(pid, mapping.start, mapping.end - mapping.start))
    return proc.open_mapped_file(pid, mapping)


def _own_vdso() -> bytes:
    """The vDSO as this process has it, empty where it has none.

    The kernel gives the same one to all, but a process can write to its own.
    """
    for mapping in proc.parse_maps(Path("/proc/self/maps").read_bytes()):
        if mapping.path == VDSO:
            return ctypes.string_at(mapping.start, mapping.end - mapping.start)
    return b""
