"""Names of native addresses: (mappings, address) → (mapped file, function).

A lookup never raises: what cannot be named is ``file+0xoffset``, as the field's tools write it.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from pyflame_ebpf.elf_image import BadElf, ElfImage, FunctionTable, Segment
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.processes import Mapping

OpenMapped = Callable[[Mapping], BinaryIO]  # OSError or PyflameError when it cannot be opened

_PLACES_MAX = 1 << 16

_FileIdentity = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _FileSymbols:
    segments: tuple[Segment, ...]
    functions: FunctionTable


class NativeSymbols:
    """Function names by mapped file, each file read once; one object serves all processes."""

    def __init__(self) -> None:
        self._files: dict[_FileIdentity, _FileSymbols | None] = {}
        self._places: dict[tuple[int, Mapping], _FileSymbols | None] = {}

    def lookup(self, pid: int, mappings: Sequence[Mapping], address: int, open_mapped: OpenMapped) -> tuple[str, str]:
        """(mapped file, function or ``file+0xoffset``); mappings by rising address; ("", "0x…") outside of all."""
        index = bisect_right(mappings, address, key=lambda mapping: mapping.start) - 1
        if index < 0 or address >= mappings[index].end:
            return "", f"{address:#x}"
        mapping = mappings[index]
        offset = address - mapping.start + mapping.offset
        return mapping.path, self._function(pid, mapping, offset, open_mapped) or _unnamed(mapping, offset)

    def _function(self, pid: int, mapping: Mapping, offset: int, open_mapped: OpenMapped) -> str:
        symbols = self._symbols(pid, mapping, open_mapped) if mapping.inode else None
        if symbols is None:
            return ""
        vaddr = _vaddr(symbols.segments, offset)
        found = symbols.functions.at(vaddr) if vaddr >= 0 else None
        return found[0] if found else ""

    def _symbols(self, pid: int, mapping: Mapping, open_mapped: OpenMapped) -> _FileSymbols | None:
        """The symbols of a mapped file; opened once for each process and mapping, read once for each file."""
        place = (pid, mapping)
        if place not in self._places:
            if len(self._places) >= _PLACES_MAX:
                self._places.clear()
            self._places[place] = self._open(mapping, open_mapped)
        return self._places[place]

    def _open(self, mapping: Mapping, open_mapped: OpenMapped) -> _FileSymbols | None:
        try:
            with open_mapped(mapping) as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
                if identity not in self._files:
                    self._files[identity] = _read_symbols(file)
                return self._files[identity]
        except (OSError, PyflameError):
            return None


def _read_symbols(file: BinaryIO) -> _FileSymbols | None:
    try:
        image = ElfImage(file)
        return _FileSymbols(image.segments, image.functions())
    except (BadElf, OSError, struct.error, OverflowError):
        return None


def _vaddr(segments: tuple[Segment, ...], offset: int) -> int:
    """Address in the image of code at this offset in the file; -1 when no executable segment has it."""
    for segment in segments:
        if segment.flags & 1 and segment.offset <= offset < segment.offset + segment.file_size:
            return segment.vaddr - segment.offset + offset
    return -1


def _unnamed(mapping: Mapping, offset: int) -> str:
    return f"{PurePosixPath(mapping.path).name or '[anonymous]'}+{offset:#x}"
