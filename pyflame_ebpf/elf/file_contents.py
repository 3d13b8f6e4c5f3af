"""Which mapped files have the same contents, as far as unwind rows or names come of them.

A build id says nothing: anybody can write one into a file, and a file may be written to later.  So where two files
claim to be one, what is used of both is read into memory, compared there, and used from there.  One that nobody claims
to be is used as it lies on the disk.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from pyflame_ebpf.elf.image import BadElf, ElfImage, Extent
from pyflame_ebpf.elf.plt import PLT_SECTIONS, RELOCATION_TABLES
from pyflame_ebpf.errors import PyflameError

ROWS_MAX = 8 << 20  # bytes of .eh_frame and its table, in memory as long as the file is known; read in 8 ms
NAMES_MAX = 64 << 20  # bytes of symbols, names and relocations, during a look-up or as long as an index is kept
_ENTRY_POINT = 16  # bytes of code that tell whether a stack begins there

Digest = bytes
Hold = Callable[[ElfImage], Digest]  # BadElf for a file that is not to be compared
Reopened = Callable[[], AbstractContextManager[ElfImage]]
File = TypeVar("File")


def hold_rows(image: ElfImage) -> Digest:
    """Takes what unwind rows are made of into memory; BadElf where that is not possible."""
    extents = [Extent(table.offset, table.file_size)] if (table := image.unwind_index) else []
    section = image.section(".eh_frame")
    if section is None:
        raise BadElf("where its .eh_frame ends is not known")
    extents.append(Extent(section.offset, section.size))
    with contextlib.suppress(BadElf):  # libraries have none
        extents.append(image.extent(image.entry, _ENTRY_POINT))
    return image.hold(_limited(extents, ROWS_MAX), (image.machine, image.entry, image.all_segments, section))


def hold_names(image: ElfImage) -> Digest:
    """Takes what names of functions are made of into memory; BadElf where that is not possible."""
    extents = [*image.symbol_extents, *(image.table_extent(*tags) for tags in RELOCATION_TABLES)]
    names = (*PLT_SECTIONS, ".gnu_debugdata", ".gnu_debuglink")
    extents += [Extent(section.offset, section.size) for name in names if (section := image.section(name))]
    facts = (image.machine, image.all_segments, image.sections, image.dynamic_entries)
    return image.hold(_limited(extents, NAMES_MAX), facts)


def _limited(extents: Iterable[Extent], limit: int) -> list[Extent]:
    wanted = sorted({extent for extent in extents if extent.size})
    if sum(extent.size for extent in wanted) > limit:
        raise BadElf("what is used of it is too large to be compared")
    return wanted


_Key = tuple[bytes, int, Hashable]


class FilesByContents(Generic[File]):
    """Files that were met; ``joined`` is told of one that stands for another from now on, and is held in memory."""

    def __init__(self, hold: Hold, joined: Callable[[File, ElfImage, Digest], None]) -> None:
        self._hold = hold
        self._joined = joined
        self._alone: dict[_Key, tuple[File, Reopened]] = {}  # by build id, size and what else must be the same
        self._claimed: set[_Key] = set()
        self._held: dict[tuple[_Key, Digest], File] = {}

    def same_as(self, image: ElfImage, other: Hashable = None) -> tuple[File | None, Digest | None]:
        """A file that was met and has the same contents; those of a new one, which is held, if its build id is not."""
        key = (image.build_id, image.file_size, other)
        if not image.build_id or not (key in self._alone or key in self._claimed):
            return None, None
        try:
            digest = self._hold(image)
        except (PyflameError, OSError, struct.error):
            return None, None
        self._hold_first(key)
        return self._held.get((key, digest)), digest

    def _hold_first(self, key: _Key) -> None:
        """The first file with a build id that another one claims."""
        if key not in self._alone:
            return
        file, reopened = self._alone.pop(key)
        self._claimed.add(key)
        try:
            with reopened() as image:
                digest = self._hold(image)
                self._joined(file, image, digest)
        except (PyflameError, OSError, struct.error):
            return
        self._held[key, digest] = file

    def add(
        self, image: ElfImage, file: File, digest: Digest | None, reopened: Reopened, other: Hashable = None
    ) -> None:
        """Keeps a new file, with what ``same_as`` gave for it."""
        key = (image.build_id, image.file_size, other)
        if digest is not None:
            self._held[key, digest] = file
        elif image.build_id and key not in self._claimed:
            self._alone.setdefault(key, (file, reopened))

    def drop(self, files: Iterable[File]) -> None:
        """Forgets files."""
        dropped = {id(file) for file in files}
        self._alone = {key: met for key, met in self._alone.items() if id(met[0]) not in dropped}
        self._held = {key: file for key, file in self._held.items() if id(file) not in dropped}
