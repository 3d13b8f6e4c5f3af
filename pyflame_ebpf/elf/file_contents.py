"""Mapped files with the same contents, as far as unwind rows or function names are made from them.

A build id proves nothing: anybody can write one into a file, and a file can be written to later.  So if two files have
the same build id and size, the parts in use are read of both into memory, compared there, and used from there.  A file
whose build id no other file has is used as it lies on the disk.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

from pyflame_ebpf.elf.image import BadElf, ElfImage, Extent
from pyflame_ebpf.elf.plt import PLT_SECTIONS, RELOCATION_TABLES
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.errors import PyflameError

ROWS_MAX = 8 << 20  # bytes of .eh_frame and its table, in memory as long as the file is known; read in 8 ms
NAMES_MAX = 32 << 20  # bytes of symbols, names and relocations, in memory for a look-up or as long as an index is kept
_ENTRY_POINT = 16  # bytes of code; they tell whether a stack begins there

Digest = bytes


class Identified(Protocol):
    """An open file, or a reading of one, by what it says of itself."""

    @property
    def build_id(self) -> bytes:
        """The build id, empty without one."""

    @property
    def file_size(self) -> int:
        """The size in bytes."""


File = TypeVar("File")  # what is known of a file
Opened = TypeVar("Opened", bound=Identified)  # a file that is open


def hold_rows(image: ElfImage) -> Digest:
    """Read into memory what unwind rows are made from.  Raises BadElf if that is impossible or more than ROWS_MAX."""
    extents = [Extent(table.offset, table.file_size)] if (table := image.unwind_index) else []
    section = image.section(".eh_frame")
    if section is None:
        raise BadElf("where its .eh_frame ends is not known")
    extents.append(Extent(section.offset, section.size))
    with contextlib.suppress(BadElf):  # libraries have none
        extents.append(image.extent(image.entry, _ENTRY_POINT))
    return image.hold(_limited(extents, ROWS_MAX), (image.machine, image.entry, image.all_segments, section))


def hold_names(symbols: ElfSymbols) -> Digest:
    """Read into memory what function names are made from.  Raises BadElf if that is impossible or over NAMES_MAX."""
    image = symbols.image
    extents = [*symbols.extents, *(image.table_extent(*tags) for tags in RELOCATION_TABLES)]
    names = (*PLT_SECTIONS, ".gnu_debugdata", ".gnu_debuglink")
    extents += [Extent(section.offset, section.size) for name in names if (section := image.section(name))]
    facts = (image.machine, image.all_segments, image.sections, image.dynamic_entries)
    return image.hold(_limited(extents, NAMES_MAX), facts)


def _limited(extents: Iterable[Extent], limit: int) -> list[Extent]:
    wanted = sorted({extent for extent in extents if extent.size})
    if sum(extent.size for extent in wanted) > limit:
        raise BadElf("what is used of it is too large to be compared")
    return wanted


_Key = tuple[bytes, int, Hashable]  # build id, size in bytes, what else must be equal


class FilesByContents(Generic[File, Opened]):
    """Files that were met, by build id and size and then by the digest of their contents.

    ``hold`` reads an open file's contents into memory and returns their digest; BadElf, OSError and struct.error from
    it mean that the file is compared with none.  ``joined`` is called once for the first file of a build id when a
    second one claims it: from then on that file is held in memory and may stand for others.
    """

    def __init__(self, hold: Callable[[Opened], Digest], joined: Callable[[File, Opened, Digest], None]) -> None:
        self._hold = hold
        self._joined = joined
        self._alone: dict[_Key, tuple[File, Callable[[], AbstractContextManager[Opened]]]] = {}
        self._claimed: set[_Key] = set()
        self._held: dict[tuple[_Key, Digest], File] = {}

    def same_as(self, opened: Opened, other: Hashable = None) -> tuple[File | None, Digest | None]:
        """(known equal file or None, digest or None); ``other`` must be equal, too.

        If another file has this build id and size, the opened file is held in memory and compared.  Otherwise it is
        not read and the digest is None.
        """
        key = (opened.build_id, opened.file_size, other)
        if not opened.build_id or not (key in self._alone or key in self._claimed):
            return None, None
        try:
            digest = self._hold(opened)
        except (PyflameError, OSError, struct.error):
            return None, None
        self._hold_first(key)
        return self._held.get((key, digest)), digest

    def _hold_first(self, key: _Key) -> None:
        """Hold the first file with this key, now that a second one has it."""
        if key not in self._alone:
            return
        file, reopened = self._alone.pop(key)
        self._claimed.add(key)
        try:
            with reopened() as first:
                digest = self._hold(first)
                self._joined(file, first, digest)
        except (PyflameError, OSError, struct.error):
            return
        self._held[key, digest] = file

    def add(
        self,
        opened: Opened,
        file: File,
        digest: Digest | None,
        reopened: Callable[[], AbstractContextManager[Opened]],
        other: Hashable = None,
    ) -> None:
        """Keep a new file with the digest that ``same_as`` returned.  ``reopened`` opens it again."""
        key = (opened.build_id, opened.file_size, other)
        if digest is not None:
            self._held[key, digest] = file
        elif opened.build_id and key not in self._claimed:
            self._alone.setdefault(key, (file, reopened))

    def drop(self, files: Iterable[File]) -> None:
        """Forget files."""
        dropped = {id(file) for file in files}
        self._alone = {key: met for key, met in self._alone.items() if id(met[0]) not in dropped}
        self._held = {key: file for key, file in self._held.items() if id(file) not in dropped}
