"""Names of native addresses: (mappings, address) → (mapped file, function).

A lookup never raises: what cannot be named is ``file+0xoffset``, as the field's tools write it, and ``why_unnamed``
tells the reason.
"""

from __future__ import annotations

import contextlib
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from pyflame_ebpf.debug_files import separate_debug_file, unpack_debug_data
from pyflame_ebpf.demangle import Demangler
from pyflame_ebpf.elf_image import ElfImage, Segment
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.function_table import FunctionTable
from pyflame_ebpf.plt import PltTable
from pyflame_ebpf.processes import Mapping

OpenMapped = Callable[[Mapping], BinaryIO]  # OSError or PyflameError when it cannot be opened

ANONYMOUS = "[anonymous]"  # the file of code that no file holds
JIT = "[jit]"  # ... and that a perf map names
STRIPPED = "stripped: only exported functions have names without its debug file"
PERF_MAP = "only a perf map could name it"
KEPT_MAX = 512 << 20  # bytes of symbols of all files
_PLACES_MAX = 1 << 16
_VDSO = "[vdso]"
_FILES_OF_NO_PROGRAM = ("/memfd:", "/dev/zero", "//anon", "/SYSV", "[anon:", "[heap]", "[stack]")
_DAMAGE = (PyflameError, OSError, struct.error, OverflowError, MemoryError)

_FileIdentity = tuple[bytes, int] | tuple[int, int, int, int]  # build id and size; else as stat tells files apart


class _Functions(Protocol):
    def at(self, vaddr: int) -> tuple[str, int] | None:
        """(function, offset in it) that holds an address."""


@dataclass(frozen=True, slots=True)
class _FileSymbols:
    """A file's tables, those that are exact first; why it has no better ones, "" where it has all."""

    segments: tuple[Segment, ...] = ()
    tables: tuple[_Functions, ...] = ()
    lack: str = ""


class NativeSymbols:
    """Function names by mapped file, each file read once; one object serves all processes.

    The process with ``pid``, 0 for one that is gone, is where separate debug files are looked for first.
    """

    def __init__(self) -> None:
        self._files: dict[_FileIdentity, _FileSymbols] = {}
        self._places: dict[tuple[int, Mapping], _FileSymbols] = {}
        self._demangler = Demangler()
        self._kept = 0
        self.build_ids: dict[str, str] = {}  # in hex, by mapped file

    def lookup(self, pid: int, mappings: Sequence[Mapping], address: int, open_mapped: OpenMapped) -> tuple[str, str]:
        """(mapped file, function or ``file+0xoffset``); mappings by rising address; ("", "0x…") outside of all."""
        index = bisect_right(mappings, address, key=lambda mapping: mapping.start) - 1
        if index < 0 or address >= mappings[index].end:
            return "", f"{address:#x}"
        mapping = mappings[index]
        offset = address - mapping.start + mapping.offset
        name = self._function(self._symbols(pid, mapping, open_mapped), offset)
        return mapping.path or ANONYMOUS, name or f"{PurePosixPath(mapping.path).name or ANONYMOUS}+{offset:#x}"

    def why_unnamed(self, pid: int, mapping: Mapping, open_mapped: OpenMapped) -> str:
        """Why some or all functions of a mapping have no names; "" where they have."""
        return self._symbols(pid, mapping, open_mapped).lack

    def close(self) -> None:
        """Ends what demangles."""
        self._demangler.close()

    def _function(self, symbols: _FileSymbols, offset: int) -> str:
        vaddr = _vaddr(symbols.segments, offset)
        found = [hit for table in symbols.tables if (hit := table.at(vaddr))] if vaddr >= 0 else []
        if not found:
            return ""
        name = min(found, key=lambda hit: hit[1])[0]  # the function that starts nearest
        plain, at, suffix = name.partition("@")
        return self._demangler.demangle(plain) + at + suffix

    def _symbols(self, pid: int, mapping: Mapping, open_mapped: OpenMapped) -> _FileSymbols:
        """The symbols of a mapping; opened once for each process and mapping, read once for each file."""
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
                identity = _identity(image, file)
                if identity not in self._files:
                    self._files[identity] = self._read(image, mapping.path, pid)
                return self._files[identity]
        except PyflameError as error:
            return _FileSymbols(lack=error.message)
        except _DAMAGE as error:
            return _FileSymbols(lack=getattr(error, "strerror", None) or str(error) or type(error).__name__)

    def _read(self, image: ElfImage, path: str, pid: int) -> _FileSymbols:
        tables: list[FunctionTable] = []
        with contextlib.suppress(*_DAMAGE):
            tables += _best_table(image, path, pid)
        lack = "" if tables or path == _VDSO else STRIPPED
        with contextlib.suppress(*_DAMAGE):
            tables.append(image.dynamic_functions())
        self._kept += sum(table.memory for table in tables)
        if self._kept > KEPT_MAX:
            self._kept -= sum(table.memory for table in tables)
            return _FileSymbols(lack=f"the symbols of all files take more than {KEPT_MAX >> 20} MB")
        stubs: list[_Functions] = []
        with contextlib.suppress(*_DAMAGE):
            stubs = [PltTable(image, tables[0])] if tables else []
        return _FileSymbols(image.segments, (*stubs, *tables), lack)


def is_without_file(mapping: Mapping) -> bool:
    """Whether a mapping's code was made by the program itself."""
    return not mapping.path.startswith("[v") and (not mapping.inode or mapping.path.startswith(_FILES_OF_NO_PROGRAM))


def _identity(image: ElfImage, file: BinaryIO) -> _FileIdentity:
    if image.build_id:
        return image.build_id, image.file_size
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _best_table(image: ElfImage, path: str, pid: int) -> list[FunctionTable]:
    """Its own .symtab, else that of its installed debug file, else that of .gnu_debugdata; none; BadElf."""
    with contextlib.suppress(*_DAMAGE):
        if not image.stripped:
            return [image.static_functions()]
    with contextlib.suppress(*_DAMAGE), separate_debug_file(image, path, pid or None) as found:
        if found is not None:
            return [found.static_functions()]
    unpacked = unpack_debug_data(image)
    if unpacked is None:
        return []
    with unpacked as file:
        return [ElfImage(file).static_functions()]


def _vaddr(segments: tuple[Segment, ...], offset: int) -> int:
    """Address in the image of code at this offset in the file; -1 when no executable segment has it."""
    for segment in segments:
        if segment.flags & 1 and segment.offset <= offset < segment.offset + segment.file_size:
            return segment.vaddr - segment.offset + offset
    return -1
