"""Which files the mappings of processes are: files with the same contents and debug file have their names together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pyflame_ebpf.elf.file import FileIdentity
from pyflame_ebpf.elf.file_contents import Digest, FilesByContents, hold_names
from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.symbols.debug_files import DebugFiles
from pyflame_ebpf.symbols.file_functions import DAMAGE
from pyflame_ebpf.symbols.file_names import FileNames
from pyflame_ebpf.symbols.mapped_file import MappedFile, is_without_file
from pyflame_ebpf.symbols.naming_budgets import NamingBudgets

PERF_MAP = "only a perf map could name it"
PLACES_MAX = 1 << 16  # mappings of processes


class KnownFiles:
    """The names of mapped files.  A mapping is opened once for each process.

    ``forgotten`` is called for names that are about to begin anew, because other files are to share them.
    """

    def __init__(self, forgotten: Callable[[FileNames], None], budgets: NamingBudgets) -> None:
        self._forgotten = forgotten
        self._budgets = budgets
        self._places: dict[tuple[int, Mapping], FileNames] = {}  # by process
        self._files: dict[tuple[FileIdentity, FileIdentity | None], FileNames] = {}  # by file and debug file
        self._same: FilesByContents[FileNames, ElfSymbols] = FilesByContents(hold_names, self._joined)
        self._debug_files = DebugFiles()
        self.build_ids: dict[str, str] = {}  # in hex, by path

    def names_of(self, file: MappedFile) -> FileNames:
        """The names of a mapped file; names that are not readable say what they lack."""
        place = file.pid, file.mapping
        names = self._places.get(place)
        if names is None:
            if len(self._places) >= PLACES_MAX:
                self._places.clear()
            names = self._places[place] = self._open(file)
        return names

    def refuse(self, file: MappedFile, reason: str) -> None:
        """Give a mapping no names from now on; other mappings keep the names that they shared with it."""
        self._places[file.pid, file.mapping] = FileNames(lack=reason)

    def _open(self, file: MappedFile) -> FileNames:
        if is_without_file(file.mapping):
            return FileNames(lack=f"no file holds this code (a JIT compiler's?), and {PERF_MAP}")
        try:
            with self._opened(file) as symbols:
                if symbols.build_id:
                    self.build_ids.setdefault(file.path, symbols.build_id.hex())
                debug = None
                with contextlib.suppress(*DAMAGE):
                    debug = self._debug_files.find(symbols, file.path, file.pid)
                return self._of_contents(symbols, debug, file)
        except DAMAGE as error:
            return FileNames(lack=said(error))

    def _of_contents(self, symbols: ElfSymbols, debug: FileIdentity | None, file: MappedFile) -> FileNames:
        """The names of an open file, shared with a file that has the same contents.  Raises any of DAMAGE."""
        key = symbols.image.identity, debug
        if key not in self._files:
            names, digest = self._same.same_as(symbols, debug)
            if names is None:
                names = FileNames(symbols.image.segments, readable=True, debug=debug, digest=digest)
                self._same.add(symbols, names, digest, lambda: self._opened(file), debug)
            self._files[key] = names
        return self._files[key]

    @contextlib.contextmanager
    def _opened(self, file: MappedFile) -> Iterator[ElfSymbols]:
        with self._budgets.of(file.pid).file() as budget, file.open() as opened:
            yield ElfSymbols(ElfImage(opened, budget))

    def _joined(self, names: FileNames, symbols: ElfSymbols, digest: Digest) -> None:
        """Begin anew: the old names may come from other contents than those that are shared from now on."""
        self._forgotten(names)
        names.begin_anew(symbols.image.segments, digest)


def said(error: BaseException) -> str:
    """What an error says, in words for the user."""
    return getattr(error, "message", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
