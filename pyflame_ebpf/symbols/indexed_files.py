"""The files whose functions a live view keeps indexed, within bounds of symbols and memory."""

from __future__ import annotations

from pyflame_ebpf.symbols.file_functions import FileFunctions
from pyflame_ebpf.symbols.file_names import FileNames

SYMBOLS_MAX = 200_000  # of one file; an index of them takes 30 MB
SYMBOLS_IN_ALL = 1_000_000
HELD_MAX = 64 << 20  # bytes that the files hold in memory besides their indexes


class IndexedFiles:
    """The open files with an index, each by the names that come from it."""

    def __init__(self) -> None:
        self._files: dict[FileNames, FileFunctions] = {}

    def get(self, names: FileNames) -> FileFunctions | None:
        """The indexed file of these names, None without one."""
        return self._files.get(names)

    def keep(self, names: FileNames, functions: FileFunctions) -> bool:
        """Index a file and keep it open if there is room.  Returns whether it is kept.  Raises any of DAMAGE."""
        if not self._has_room_for(functions):
            return False
        functions.build_index()
        self._files[names] = functions
        return True

    def _has_room_for(self, functions: FileFunctions) -> bool:
        symbols = functions.symbols
        return (
            symbols <= SYMBOLS_MAX
            and symbols + sum(kept.symbols for kept in self._files.values()) <= SYMBOLS_IN_ALL
            and functions.held + self.held <= HELD_MAX
        )

    @property
    def held(self) -> int:
        """Bytes that the files hold in memory besides their indexes."""
        return sum(kept.held for kept in self._files.values())

    def drop(self, names: FileNames) -> None:
        """Close the file of these names, if it is kept."""
        if (functions := self._files.pop(names, None)) is not None:
            functions.close()

    def close(self) -> None:
        """Close all files."""
        for names in list(self._files):
            self.drop(names)
