"""The files that processes have mapped executable: each stays open, and those with the same contents share one number.

A file that shares its unwind data with another keeps a descriptor of its own: equal unwind data does not mean equal
symbols.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from pyflame_ebpf.elf.bad_elf import OverBudget, ProcessOverBudget
from pyflame_ebpf.elf.budget import SharedBudget
from pyflame_ebpf.elf.file import FileIdentity
from pyflame_ebpf.elf.file_contents import Digest, FilesByContents, hold_rows
from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.mapped_files import VDSO
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.host.open_files import files_allowed
from pyflame_ebpf.host.process_directory import ProcessGone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.tracking.unwind_pages import CodeFile, UnwindPages
from pyflame_ebpf.unwind.rows import UnwindTable

OpenMapped = Callable[[Identity, Mapping], BinaryIO]  # raises OSError, BadElf, ProcessGone
INDEXES_MAX = 32 << 20  # bytes of indexes that were made by walking .eh_frame, for lack of the linker's table
HELD_MAX = 64 << 20  # bytes of unwind data of files that are there twice


@dataclass(frozen=True, slots=True, eq=False)
class MappedFile:
    """A file that processes have mapped."""

    identity: FileIdentity
    file: BinaryIO
    code: CodeFile


class CodeFiles:
    """The open files, by where they were mapped and by contents."""

    def __init__(
        self, open_mapped: OpenMapped, pages: UnwindPages, over_budget: Callable[[str], None] = lambda _path: None
    ) -> None:
        self._open_mapped = open_mapped
        self._pages = pages
        self._codes: dict[int, CodeFile] = {}  # by number
        self._last_number = 0
        self._same = FilesByContents(self._hold_rows, self._joined)
        self._by_place: dict[tuple[int, int, str], MappedFile | None] = {}  # by device, inode and path
        self._open_files: dict[FileIdentity, MappedFile] = {}
        self._used: dict[Identity, set[FileIdentity]] = {}  # what each process has mapped now
        self._unused_now = False  # whether a file may be unused since the last search, which takes milliseconds
        self._gone: set[Identity] = set()  # processes that ended before their files could be opened
        self._budgets: dict[Identity, SharedBudget] = {}  # what reading the files of a process may take
        self._over_budget = over_budget  # told of files that would take too much time or memory to read

    # ---- who uses what ----

    def begin(self, identity: Identity) -> None:
        """A process has mapped other files than before: those that are told by ``use`` from now on."""
        self._used[identity] = set()
        self._unused_now = True

    def use(self, identity: Identity, mapping: Mapping) -> MappedFile | None:
        """The file behind a mapping that a process has now, None where it cannot be read."""
        file = self.get(identity, mapping)
        if file is not None:
            self._used[identity].add(file.identity)
        return file

    def lose(self, identity: Identity) -> None:
        """The programs do not know what a process has mapped any more."""
        self._used.pop(identity, None)

    def forget(self, identity: Identity) -> None:
        """A process has ended."""
        self._used.pop(identity, None)
        self._unused_now = True
        self._gone.discard(identity)
        self._budgets.pop(identity, None)

    # ---- files ----

    def get(self, identity: Identity, mapping: Mapping) -> MappedFile | None:
        """The file behind a mapping of a process, None where it cannot be read."""
        if not mapping.inode and mapping.path != VDSO:
            return None
        place = (mapping.device, mapping.inode, mapping.path)
        if place not in self._by_place and identity not in self._gone and self._has_room():
            try:
                self._by_place[place] = self._open(identity, mapping)
            except ProcessGone:  # others may have it mapped, too
                self._gone.add(identity)
            except ProcessOverBudget:  # likewise, and it may not be this file that took so long
                self._over_budget(ascii(mapping.path))
        return self._by_place.get(place)

    def with_number(self, number: int) -> CodeFile | None:
        """What files with this number share, None for a number that is not in use."""
        return self._codes.get(number)

    def open_again(self, mapping: Mapping) -> BinaryIO:
        """The file behind a mapping, also when its process is gone.  Raises OSError when it never was opened."""
        file = self._by_place.get((mapping.device, mapping.inode, mapping.path))
        if file is None:
            raise FileNotFoundError(mapping.path)
        return os.fdopen(os.dup(file.file.fileno()), "rb", buffering=0)

    def _has_room(self) -> bool:
        """Whether another file may be open, where needed after unused ones were closed."""
        allowed = files_allowed()
        if len(self._open_files) >= allowed and self._unused_now:
            self._unused_now = False
            self._close_unused()
        return len(self._open_files) < allowed

    def _open(self, identity: Identity, mapping: Mapping) -> MappedFile | None:
        """The file as far as it can be read, None where it cannot.  Raises ProcessGone, ProcessOverBudget."""
        with contextlib.ExitStack() as opened:
            try:
                file = opened.enter_context(self._open_mapped(identity, mapping))
                image = ElfImage(file)
                if image.identity in self._open_files:  # mapped by another path
                    return self._open_files[image.identity]
                with self._budgets.setdefault(identity, SharedBudget()).file() as budget, image.within(budget):
                    code = self._code_of(image)
                image.forget_sections()
            except (ProcessGone, ProcessOverBudget):
                raise
            except OverBudget:
                self._over_budget(ascii(mapping.path))
                return None
            except (BadElf, PyflameError, OSError):
                return None
            opened.pop_all()
        self._open_files[image.identity] = MappedFile(image.identity, file, code)
        return self._open_files[image.identity]

    def _close_unused(self) -> None:
        """Closes the files that no process has mapped any more, and drops their pages; their functions stay unnamed."""
        used = set().union(*self._used.values())
        used |= {self._open_files[identity].code.image.identity for identity in used}
        unused = {identity: file for identity, file in self._open_files.items() if identity not in used}
        for identity, file in unused.items():
            del self._open_files[identity]
            file.file.close()
        self._by_place = {
            place: file for place, file in self._by_place.items() if file is None or file.identity not in unused
        }
        self._drop([code for code in self._codes.values() if code.image.identity in unused])

    # ---- contents ----

    def _code_of(self, image: ElfImage) -> CodeFile:
        """What a file shares with those that have its contents.  Raises BadElf, OSError."""
        same, digest = self._same.same_as(image)
        if same is not None:
            return same
        table = UnwindTable(image)
        kept = sum(code.table.size for code in self._codes.values() if code.table) if table.size else 0
        if kept + table.size > INDEXES_MAX:
            raise OverBudget("the indexes of unwind data of all files take too much memory: over their budget")
        self._last_number += 1
        code = CodeFile(self._last_number, image, None if table.empty else table)
        self._codes[code.number] = code
        self._same.add(image, code, digest, lambda: contextlib.nullcontext(image))
        return code

    def _hold_rows(self, image: ElfImage) -> Digest:
        if sum(code.image.held for code in self._codes.values()) > HELD_MAX:
            raise BadElf("too much is in memory already")
        return hold_rows(image)

    def _joined(self, code: CodeFile, image: ElfImage, _digest: Digest) -> None:
        """Another file is to have this one's rows: those of before may have been made of other contents."""
        self._pages.drop(code)
        table = UnwindTable(image)
        code.table = None if table.empty else table

    def _drop(self, codes: Iterable[CodeFile]) -> None:
        codes = list(codes)
        for code in codes:
            del self._codes[code.number]
            self._pages.drop(code)
        self._same.drop(codes)
