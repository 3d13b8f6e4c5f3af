"""The functions of one open file, from the best of the places where its symbols may be.

The places are the file's own .symtab, else the installed debug file's, else that of .gnu_debugdata; besides, .dynsym
and the stubs of the PLT.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from pyflame_ebpf.elf.bad_elf import OverBudget
from pyflame_ebpf.elf.budget import Budget
from pyflame_ebpf.elf.file import FileIdentity
from pyflame_ebpf.elf.file_contents import Digest, hold_names
from pyflame_ebpf.elf.function_table import FunctionAt, Hit
from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.elf.plt import PltStubs
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.symbols.debug_files import open_debug_file, unpack_debug_data
from pyflame_ebpf.symbols.mapped_file import VDSO, MappedFile

STRIPPED = "stripped: only exported functions have names without its debug file"
DAMAGE = (PyflameError, OSError, struct.error, OverflowError, MemoryError)  # what a damaged file may raise

Table = Callable[[Iterable[int]], dict[int, Hit]]  # addresses → the functions that hold them


class ContentsChanged(Exception):
    """A file no longer has the contents that it shared with others."""


class FileFunctions:
    """The functions of a mapped file, which stays open until ``close``.

    ``debug`` is the identity of its separate debug file, ``digest`` that of contents which it shares with other files.
    ``budget`` is what one look-up may take, or all until ``unlimited`` is called.
    Raises ContentsChanged if the contents have another digest, and any of DAMAGE.
    """

    def __init__(
        self, file: MappedFile, debug: FileIdentity | None, digest: Digest | None, budget: Budget | None = None
    ) -> None:
        self.over_budget = ""  # what took too much, "" for nothing
        with contextlib.ExitStack() as opened:
            self._own = ElfSymbols(ElfImage(opened.enter_context(file.open()), budget))
            if digest is not None and hold_names(self._own) != digest:
                raise ContentsChanged
            self._open = opened.pop_all()
        self._path = file.path
        self._unpacked = 0  # bytes of .gnu_debugdata
        self._best: ElfSymbols | None = None  # None: stripped, and there is no substitute
        with self._noting_the_budget():
            self._best = self._find_best(file, debug)
        self._tables: list[Table] = [self._own.dynamic_functions]
        if self._best is not None:
            self._tables.insert(0, self._best.static_functions)

    def _find_best(self, file: MappedFile, debug: FileIdentity | None) -> ElfSymbols | None:
        """The file with the .symtab that counts.  Raises any of DAMAGE."""
        if not self._own.stripped:
            return self._own
        if debug is not None:
            with contextlib.suppress(*DAMAGE):
                found = self._open.enter_context(open_debug_file(self._own, file.path, file.pid, debug))
                if found is not None:
                    found.image.limit(self._own.image.budget)
                    return found
        unpacked = unpack_debug_data(self._own.image)
        if unpacked is None:
            return None
        image = ElfImage(self._open.enter_context(unpacked), self._own.image.budget)
        self._unpacked = image.file_size
        return ElfSymbols(image)

    @property
    def lack(self) -> str:
        """Why the file has no better names, "" if it has all."""
        if self.over_budget:
            return self.over_budget
        return "" if self._best is not None or self._path == VDSO else STRIPPED

    @property
    def symbols(self) -> int:
        """How many symbols an index is made from.  Raises any of DAMAGE."""
        if self._best is None or self._best is self._own:
            return self._own.count
        # A substitute's dynamic symbols are not asked for: its headers may promise them, though they were removed.
        return self._own.count + self._best.static_count

    @property
    def held(self) -> int:
        """Bytes in memory besides an index: contents that are compared, and unpacked symbols."""
        return self._own.image.held + self._unpacked

    def build_index(self) -> None:
        """Read all functions into memory, for look-ups of a few addresses again and again."""
        indexes = [self._own.dynamic_index]
        if self._best is not None:
            indexes.insert(0, self._best.static_index)
        self._tables = []
        for index in indexes:
            with self._noting_the_budget():
                self._tables.append(_indexed(index()))

    @contextlib.contextmanager
    def _noting_the_budget(self) -> Iterator[None]:
        """Count a damaged table as empty, and say so of one that is over its budget."""
        try:
            yield
        except OverBudget as error:
            self.over_budget = error.message
        except DAMAGE:
            pass

    def at(self, vaddrs: set[int]) -> dict[int, Hit]:
        """The functions that hold addresses; a damaged table counts as empty."""
        stubs = PltStubs(self._own, vaddrs)
        everything = vaddrs | stubs.choosers
        found: list[dict[int, Hit]] = []
        for table in self._tables:
            with self._noting_the_budget():
                found.append(table(everything))
        return _nearest(vaddrs, stubs, found)

    def unlimited(self) -> None:
        """Let later look-ups take as long as they take: an index answers them."""
        self._own.image.limit(None)
        if self._best is not None:
            self._best.image.limit(None)

    def close(self) -> None:
        """Close the file and its debug file."""
        self._open.close()


def _indexed(function_at: FunctionAt) -> Table:
    return lambda vaddrs: {vaddr: hit for vaddr in vaddrs if (hit := function_at(vaddr))}


def _nearest(vaddrs: set[int], stubs: PltStubs, tables: Sequence[dict[int, Hit]]) -> dict[int, Hit]:
    """For each address, of the functions and stubs that hold it, the one that starts nearest."""
    hits = {}
    for vaddr in vaddrs:
        found = [table[vaddr] for table in tables if vaddr in table]
        if tables and (stub := stubs.at(vaddr, tables[0])):
            found.insert(0, stub)
        if found:
            hits[vaddr] = min(found, key=lambda hit: hit[1])
    return hits
