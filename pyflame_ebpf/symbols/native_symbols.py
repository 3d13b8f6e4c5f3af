"""Names of native addresses: (file as a process has it mapped, address) → (path, function).

A look-up never raises.  An address without a name becomes ``file+0xoffset``, as other profilers write it, and
``why_unnamed`` gives the reason.  A file is read once for all addresses that were expected before its first look-up,
and what was read is not kept, so announce addresses with ``expect``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import PurePosixPath

from pyflame_ebpf.elf.bad_elf import ProcessOverBudget
from pyflame_ebpf.elf.function_table import Hit
from pyflame_ebpf.elf.image import OTHER_MACHINE
from pyflame_ebpf.symbols.demangle import Demangler
from pyflame_ebpf.symbols.file_functions import DAMAGE, ContentsChanged, FileFunctions
from pyflame_ebpf.symbols.file_names import FileNames
from pyflame_ebpf.symbols.foreign_file import machine_of
from pyflame_ebpf.symbols.indexed_files import IndexedFiles
from pyflame_ebpf.symbols.known_files import KnownFiles, said
from pyflame_ebpf.symbols.mapped_file import MappedFile
from pyflame_ebpf.symbols.naming_budgets import NamingBudgets

ANONYMOUS = "[anonymous]"  # stands for the path of code that no file holds
JIT = "[jit]"  # stands for the path of code that a perf map names
KEPT_MAX = 64 << 20  # characters of the names of all files
REST = 50  # a live view reads a large file again after 50 times as long as the last read took


class NativeSymbols:
    """The functions of all mapped files; one object serves all processes.

    A ``live`` one is asked all the time: it keeps an index of each file within bounds and seldom reads larger files.
    """

    def __init__(self, *, live: bool = False) -> None:
        self._live = live
        self._budgets = NamingBudgets()
        self._known = KnownFiles(self._forget, self._budgets)
        self._indexed = IndexedFiles()
        self._demangler = Demangler()
        self._kept = 0  # characters of names

    @property
    def build_ids(self) -> dict[str, str]:
        """Build ids in hex, by path, of the files that were opened."""
        return self._known.build_ids

    def lookup(self, file: MappedFile, address: int) -> tuple[str, str]:
        """(path, function or ``file+0xoffset``) of an address in the file's mapping."""
        offset, path = file.offset_of(address), file.mapping.path
        name = self._function(file, offset) or f"{PurePosixPath(path).name or ANONYMOUS}+{offset:#x}"
        return path or ANONYMOUS, name

    def expect(self, file: MappedFile, addresses: Iterable[int]) -> None:
        """Note addresses of a mapping that will be looked up: together they cost as much as one."""
        self._known.names_of(file).expect(map(file.offset_of, addresses))

    def why_unnamed(self, file: MappedFile) -> str:
        """Why some or all functions of a mapping have no names, "" if they have."""
        names = self._known.names_of(file)
        if names.readable and not names.asked:
            self._read(file, names, {0})
        if names.lack == OTHER_MACHINE and (machine := machine_of(file)):
            return f"{names.lack}: it is for {machine}"
        return names.lack

    def close(self) -> None:
        """End the process that demangles, and close files."""
        self._demangler.close()
        self._indexed.close()

    def _function(self, file: MappedFile, offset: int) -> str:
        """The demangled function at a file offset, "" without a name."""
        names = self._known.names_of(file)
        vaddr = names.vaddr_of(offset)
        if vaddr is None or not names.readable:
            return ""
        name = names.name_at(vaddr)
        if name is None:
            self._read(file, names, names.expected | {vaddr})
            name = names.name_at(vaddr) or ""
        plain, at, suffix = name.partition("@")
        return self._demangler.demangle(plain) + at + suffix

    def _read(self, file: MappedFile, names: FileNames, vaddrs: set[int]) -> None:
        """Add what the file calls these addresses, unless a large file rests."""
        if self._live and time.monotonic() < names.rests_until:
            return
        found: dict[int, Hit] = {}
        if self._kept > KEPT_MAX:
            names.lack = f"the names of all files take more than {KEPT_MAX >> 20} MB"
        else:
            try:
                found = self._found(file, names, vaddrs)
            except ContentsChanged:
                self._known.refuse(file, "it was changed while it was mapped")
                return
            except ProcessOverBudget as error:  # for what came before: other processes may have names of this file
                self._known.refuse(file, error.message)
                return
            except DAMAGE as error:
                names.lack = said(error)
        self._kept += names.add(vaddrs, found)

    def _found(self, file: MappedFile, names: FileNames, vaddrs: set[int]) -> dict[int, Hit]:
        """What the file says now.  Raises ContentsChanged and any of DAMAGE."""
        if (indexed := self._indexed.get(names)) is not None:
            return indexed.at(vaddrs)
        began = time.monotonic()
        with self._budgets.of(file.pid).file() as budget, contextlib.ExitStack() as opened:
            functions = opened.enter_context(contextlib.closing(FileFunctions(file, names.debug, names.digest, budget)))
            if self._live and self._indexed.keep(names, functions):
                opened.pop_all()
                functions.unlimited()
                return functions.at(vaddrs)
            found = functions.at(vaddrs)
            if functions.over_budget and budget.strained:
                raise ProcessOverBudget(functions.over_budget)
            names.lack = functions.lack
        names.rests_until = time.monotonic() + REST * (time.monotonic() - began)
        return found

    def _forget(self, names: FileNames) -> None:
        """Let go of what was read from a file whose names begin anew."""
        self._indexed.drop(names)
        self._kept -= names.kept
