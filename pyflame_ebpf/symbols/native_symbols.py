"""Names of native addresses: (mappings, address) → (mapped file, function).

A lookup never raises: what cannot be named is ``file+0xoffset``, as the field's tools write it, and ``why_unnamed``
tells the reason.  A file's symbols are read for all addresses at once that were expected before its first lookup, and
not kept: say what will be asked for.
"""

from __future__ import annotations

import contextlib
import struct
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from pyflame_ebpf.elf.file import FileIdentity
from pyflame_ebpf.elf.file_contents import Digest, FilesByContents, hold_names
from pyflame_ebpf.elf.function_table import FunctionAt, Hit
from pyflame_ebpf.elf.image import ElfImage, Segment
from pyflame_ebpf.elf.plt import PltStubs
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.proc import Mapping
from pyflame_ebpf.symbols.debug_files import DebugFiles, open_debug_file, unpack_debug_data
from pyflame_ebpf.symbols.demangle import Demangler

OpenMapped = Callable[[Mapping], BinaryIO]  # OSError or PyflameError when it cannot be opened

ANONYMOUS = "[anonymous]"  # the file of code that no file holds
JIT = "[jit]"  # ... and that a perf map names
STRIPPED = "stripped: only exported functions have names without its debug file"
PERF_MAP = "only a perf map could name it"
KEPT_MAX = 64 << 20  # characters of names of all files
_PLACES_MAX = 1 << 16
_INDEXED_MAX = 200_000  # symbols of a file that is kept at hand, in 30 MB
_INDEXED_IN_ALL = 1_000_000  # ... and of all files that are
_INDEXES_HOLD_MAX = 64 << 20  # bytes that those read from memory: contents that were compared, or unpacked
_REST = 50  # a larger one is read again after so many times as long as it took
_VDSO = "[vdso]"
_NOWHERE = -1
_FILES_OF_NO_PROGRAM = ("/memfd:", "/dev/zero", "//anon", "/SYSV", "[anon:", "[heap]", "[stack]")
_DAMAGE = (PyflameError, OSError, struct.error, OverflowError, MemoryError)


@dataclass(slots=True)
class _FileSymbols:
    """A file's names as far as they were asked for; ``lack``: why it has no better ones, "" where it has all."""

    segments: tuple[Segment, ...] = ()
    names: dict[int, str] = field(default_factory=dict)  # by address in the image; "": has none
    starts: list[int] = field(default_factory=list)  # of functions that were found, rising
    spans: dict[int, tuple[int, str]] = field(default_factory=dict)  # start → last address that was looked up, name
    expected: set[int] = field(default_factory=set)  # addresses that are yet to be looked up
    lack: str = ""
    readable: bool = False
    index: _FileIndex | None = None
    rests_until: float = 0.0  # on the monotonic clock: when a large file may be read again
    debug: FileIdentity | None = None  # its separate debug file
    digest: Digest | None = None  # of the contents that it has in common with others
    kept: int = 0  # characters of names

    def begin_anew(self, segments: tuple[Segment, ...], digest: Digest) -> None:
        """Forgets what was found: from now on it is to come from these contents."""
        if segments != self.segments:  # by which those addresses were computed
            self.expected = set()
        self.names, self.starts, self.spans, self.kept = {}, [], {}, 0
        self.index, self.lack, self.rests_until = None, "", 0.0
        self.segments, self.digest = segments, digest

    def add(self, hits: dict[int, Hit]) -> None:
        """Keeps what was found."""
        for vaddr, (name, offset) in hits.items():
            self.names[vaddr] = name
            start = vaddr - offset
            if start not in self.spans:
                insort(self.starts, start)
            self.spans[start] = max(self.spans.get(start, (vaddr, name)), (vaddr, name))

    def between(self, vaddr: int) -> str:
        """The function that has this address between its start and another that was found in it; "" elsewhere.

        A live view asks for new addresses of the same functions each second: their file need not be read again.
        """
        index = bisect_right(self.starts, vaddr) - 1
        if index < 0:
            return ""
        last, name = self.spans[self.starts[index]]
        return name if vaddr <= last else ""


class ContentsChanged(Exception):
    """A file has no longer the contents that it had in common with others."""


class NativeSymbols:
    """Function names by mapped file, each file read once; one object serves all processes.

    A ``live`` one is asked for names all the time: it keeps an index of each file that is not too large for that, and
    reads a larger one seldom.  The process with ``pid``, 0 for one that is gone, is where separate debug files are
    looked for first.
    """

    def __init__(self, *, live: bool = False) -> None:
        self._live = live
        self._files: dict[tuple[FileIdentity, FileIdentity | None], _FileSymbols] = {}
        self._same: FilesByContents[_FileSymbols] = FilesByContents(hold_names, self._joined)
        self._places: dict[tuple[int, Mapping], _FileSymbols] = {}
        self._debug_files = DebugFiles()
        self._demangler = Demangler()
        self._kept = 0
        self._indexed = 0  # symbols
        self._held = 0  # bytes, by indexes
        self.build_ids: dict[str, str] = {}  # in hex, by mapped file

    def lookup(self, pid: int, mappings: Sequence[Mapping], address: int, open_mapped: OpenMapped) -> tuple[str, str]:
        """(mapped file, function or ``file+0xoffset``); mappings by rising address; ("", "0x…") outside of all."""
        index = bisect_right(mappings, address, key=lambda mapping: mapping.start) - 1
        if index < 0 or address >= mappings[index].end:
            return "", f"{address:#x}"
        mapping = mappings[index]
        offset = address - mapping.start + mapping.offset
        name = self._function(pid, mapping, offset, open_mapped)
        return mapping.path or ANONYMOUS, name or f"{PurePosixPath(mapping.path).name or ANONYMOUS}+{offset:#x}"

    def expect(self, pid: int, mapping: Mapping, addresses: Iterable[int], open_mapped: OpenMapped) -> None:
        """Notes addresses in a mapping that will be looked up: together they cost as much as one."""
        symbols = self._symbols(pid, mapping, open_mapped)
        vaddrs = {_vaddr(symbols.segments, address - mapping.start + mapping.offset) for address in addresses}
        symbols.expected |= vaddrs - symbols.names.keys() - {_NOWHERE}

    def why_unnamed(self, pid: int, mapping: Mapping, open_mapped: OpenMapped) -> str:
        """Why some or all functions of a mapping have no names; "" where they have."""
        symbols = self._symbols(pid, mapping, open_mapped)
        if symbols.readable and not symbols.names:
            self._read(symbols, {0}, pid, mapping, open_mapped)
        return symbols.lack

    def close(self) -> None:
        """Ends what demangles, and closes files."""
        self._demangler.close()
        for symbols in self._files.values():
            if symbols.index is not None:
                symbols.index.close()

    def _function(self, pid: int, mapping: Mapping, offset: int, open_mapped: OpenMapped) -> str:
        symbols = self._symbols(pid, mapping, open_mapped)
        vaddr = _vaddr(symbols.segments, offset)
        if vaddr == _NOWHERE or not symbols.readable:
            return ""
        if vaddr not in symbols.names and (between := symbols.between(vaddr)):
            symbols.names[vaddr] = between
        if vaddr not in symbols.names:
            self._read(symbols, symbols.expected | {vaddr}, pid, mapping, open_mapped)
        plain, at, suffix = symbols.names.get(vaddr, "").partition("@")
        return self._demangler.demangle(plain) + at + suffix

    def _symbols(self, pid: int, mapping: Mapping, open_mapped: OpenMapped) -> _FileSymbols:
        """The symbols of a mapping, which is opened once for each process; files are known by their contents."""
        place = (pid, mapping)
        if place not in self._places:
            if len(self._places) >= _PLACES_MAX:
                self._places.clear()
            self._places[place] = self._open(pid, mapping, open_mapped)
        return self._places[place]

    def _open(self, pid: int, mapping: Mapping, open_mapped: OpenMapped) -> _FileSymbols:
        if is_without_file(mapping):
            return _FileSymbols(lack=f"no file holds this code (a JIT compiler's?), and {PERF_MAP}")
        try:
            with open_mapped(mapping) as file:
                image = ElfImage(file)
                if image.build_id:
                    self.build_ids.setdefault(mapping.path, image.build_id.hex())
                debug = None
                with contextlib.suppress(*_DAMAGE):
                    debug = self._debug_files.find(image, mapping.path, pid)
                return self._of_file(image, debug, mapping, open_mapped)
        except _DAMAGE as error:
            return _FileSymbols(lack=_said(error))

    def _of_file(
        self, image: ElfImage, debug: FileIdentity | None, mapping: Mapping, open_mapped: OpenMapped
    ) -> _FileSymbols:
        """The symbols of a file, of one with the same contents where there is one."""
        key = image.identity, debug
        if key not in self._files:
            same, digest = self._same.same_as(image, debug)
            if same is None:
                same = _FileSymbols(image.segments, readable=True, debug=debug, digest=digest)
                self._same.add(image, same, digest, lambda: _reopened(mapping, open_mapped), debug)
            self._files[key] = same
        return self._files[key]

    def _joined(self, symbols: _FileSymbols, image: ElfImage, digest: Digest) -> None:
        """Others are to have these names: those of before may have been made of other contents."""
        if symbols.index is not None:
            self._indexed -= symbols.index.symbols
            self._held -= symbols.index.held
            symbols.index.close()
        self._kept -= symbols.kept
        symbols.begin_anew(image.segments, digest)

    def _read(
        self, symbols: _FileSymbols, vaddrs: set[int], pid: int, mapping: Mapping, open_mapped: OpenMapped
    ) -> None:
        """Adds what a file calls these addresses."""
        if self._live and time.monotonic() < symbols.rests_until:
            return
        if self._kept > KEPT_MAX:
            symbols.names |= dict.fromkeys(vaddrs, "")
            symbols.lack = f"the names of all files take more than {KEPT_MAX >> 20} MB"
            return
        try:
            found = self._found(symbols, vaddrs, pid, mapping, open_mapped)
        except ContentsChanged:  # the other files that have their names from here have not changed
            self._places[pid, mapping] = _FileSymbols(lack="it was changed while it was mapped")
            return
        except _DAMAGE as error:
            found = {}
            symbols.lack = _said(error)
        symbols.names |= dict.fromkeys(vaddrs, "")
        symbols.expected = set()
        kept = sum(len(name) for name, _ in found.values())
        self._kept += kept
        symbols.kept += kept
        symbols.add(found)

    def _found(
        self, symbols: _FileSymbols, vaddrs: set[int], pid: int, mapping: Mapping, open_mapped: OpenMapped
    ) -> dict[int, Hit]:
        """What a file says now, by an index where one can be kept."""
        began = time.monotonic()
        with open_mapped(mapping) as file:
            image = ElfImage(file)
            if self._live and symbols.index is None and self._has_room_for(image.symbols):
                symbols.index = self._new_index(_FileIndex(open_mapped(mapping), mapping.path, pid, symbols))
            if symbols.index is not None:
                return symbols.index.hits(vaddrs)
            _check_contents(image, symbols.digest)
            found, symbols.lack = _functions_in_file(image, vaddrs, mapping.path, pid, symbols.debug)
            symbols.rests_until = time.monotonic() + _REST * (time.monotonic() - began)
            return found

    def _new_index(self, index: _FileIndex) -> _FileIndex | None:
        """The index with its functions, None where those, perhaps of a debug file, are too many or take too much."""
        if not self._has_room_for(index.symbols) or self._held + index.held > _INDEXES_HOLD_MAX:
            index.close()
            return None
        self._indexed += index.symbols
        self._held += index.held
        index.build()
        return index

    def _has_room_for(self, symbols: int) -> bool:
        """Whether a file with so many symbols can be kept at hand."""
        return symbols <= _INDEXED_MAX and self._indexed + symbols <= _INDEXED_IN_ALL


def _said(error: BaseException) -> str:
    return getattr(error, "message", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__


def _functions_in_file(
    image: ElfImage, vaddrs: set[int], path: str, pid: int, debug: FileIdentity | None
) -> tuple[dict[int, Hit], str]:
    """What holds those addresses that something holds, and why there is nothing better."""
    stubs = PltStubs(image, vaddrs)
    everything = vaddrs | stubs.choosers
    tables: list[dict[int, Hit]] = []
    with contextlib.suppress(*_DAMAGE):
        tables += _best_functions(image, everything, path, pid, debug)
    lack = "" if tables or path == _VDSO else STRIPPED
    with contextlib.suppress(*_DAMAGE):
        tables.append(image.dynamic_functions(everything))
    return _nearest(vaddrs, stubs, tables), lack


def _nearest(vaddrs: set[int], stubs: PltStubs, tables: Sequence[dict[int, Hit]]) -> dict[int, Hit]:
    """Of all that holds an address, the function that starts nearest."""
    hits = {}
    for vaddr in vaddrs:
        found = [table[vaddr] for table in tables if vaddr in table]
        if tables and (stub := stubs.at(vaddr, tables[0])):
            found.insert(0, stub)
        if found:
            hits[vaddr] = min(found, key=lambda hit: hit[1])
    return hits


class _FileIndex:
    """A file's functions for look-ups of a few addresses again and again; it stays open."""

    def __init__(self, file: BinaryIO, path: str, pid: int, symbols: _FileSymbols) -> None:
        with contextlib.ExitStack() as opened:
            self._image = ElfImage(opened.enter_context(file))
            _check_contents(self._image, symbols.digest)
            self._open = opened.pop_all()
        self._best = self._image
        self._unpacked = 0  # bytes
        self._tables: list[FunctionAt] = []
        with contextlib.suppress(*_DAMAGE):
            self._best = self._find_best(path, pid, symbols.debug)

    def _find_best(self, path: str, pid: int, debug: FileIdentity | None) -> ElfImage:
        """The file that ``_best_functions`` takes them from, itself where there is nothing better; BadElf."""
        if not self._image.stripped:
            return self._image
        found = self._open.enter_context(open_debug_file(self._image, path, pid, debug)) if debug else None
        if found is None and (unpacked := unpack_debug_data(self._image)) is not None:
            found = ElfImage(self._open.enter_context(unpacked))
            self._unpacked = found.file_size
        return found or self._image

    @property
    def symbols(self) -> int:
        """How many symbols it is made of, some of them twice; BadElf."""
        return self._image.symbols + (0 if self._best is self._image else self._best.symbols)

    @property
    def held(self) -> int:
        """Bytes in memory, without the functions."""
        return self._image.held + self._unpacked

    def build(self) -> None:
        """Reads the functions."""
        for index in (self._best.static_index, self._image.dynamic_index):
            with contextlib.suppress(*_DAMAGE):
                self._tables.append(index())

    def hits(self, vaddrs: set[int]) -> dict[int, Hit]:
        """What holds those addresses that something holds."""
        stubs = PltStubs(self._image, vaddrs)
        everything = vaddrs | stubs.choosers
        tables = [{vaddr: hit for vaddr in everything if (hit := at(vaddr))} for at in self._tables]
        return _nearest(vaddrs, stubs, tables)

    def close(self) -> None:
        """Closes what it read."""
        self._open.close()


def is_without_file(mapping: Mapping) -> bool:
    """Whether a mapping's code was made by the program itself."""
    return not mapping.path.startswith("[v") and (not mapping.inode or mapping.path.startswith(_FILES_OF_NO_PROGRAM))


@contextlib.contextmanager
def _reopened(mapping: Mapping, open_mapped: OpenMapped) -> Iterator[ElfImage]:
    with open_mapped(mapping) as file:
        yield ElfImage(file)


def _check_contents(image: ElfImage, digest: Digest | None) -> None:
    """Holds a file in memory that must have the contents of others; ContentsChanged."""
    if digest is not None and hold_names(image) != digest:
        raise ContentsChanged


def _best_functions(
    image: ElfImage, vaddrs: set[int], path: str, pid: int, debug: FileIdentity | None
) -> list[dict[int, Hit]]:
    """Those of its own .symtab, else of its installed debug file's, else of .gnu_debugdata's; none; BadElf."""
    if not image.stripped:
        return [image.static_functions(vaddrs)]
    if debug is not None:
        with contextlib.suppress(*_DAMAGE), open_debug_file(image, path, pid, debug) as found:
            if found is not None:
                return [found.static_functions(vaddrs)]
    unpacked = unpack_debug_data(image)
    if unpacked is None:
        return []
    with unpacked as file:
        return [ElfImage(file).static_functions(vaddrs)]


def _vaddr(segments: tuple[Segment, ...], offset: int) -> int:
    """Address in the image of code at this offset in the file; -1 when no executable segment has it."""
    for segment in segments:
        if segment.flags & 1 and segment.offset <= offset < segment.offset + segment.file_size:
            return segment.vaddr - segment.offset + offset
    return _NOWHERE
