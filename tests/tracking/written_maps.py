"""The maps of the BPF programs, as far as tracking writes them: what the programs would find there."""

from __future__ import annotations

import struct
from typing import NamedTuple

from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.abi import (
    PROCESS_ANNOUNCED,
    ExecutableEntry,
    ProcessEntry,
    UnwindPage,
    UnwindPageKey,
    read_identity,
)
from pyflame_ebpf.tracking.program_maps import FileKey


class ToldMapping(NamedTuple):
    """One ``struct mapping``."""

    start: int
    bias: int
    pages: int
    file: int


class WrittenMaps:
    """Keeps what it is told.  Rows must be where the programs have room, and a page's rows must be told before it."""

    def __init__(self) -> None:
        self.layouts: list[CPythonLayout] = []
        self.processes: list[ProcessEntry] = []
        self.executables: dict[FileKey, ExecutableEntry] = {}
        self.mappings: dict[int, list[ToldMapping]] = {}
        self.chunks: dict[int, bytes] = {}
        self.pages: dict[tuple[int, int], tuple[int, int]] = {}  # file and page → first chunk, number of chunks

    def add_layout(self, layout: CPythonLayout) -> int:
        if layout not in self.layouts:
            self.layouts.append(layout)
        return self.layouts.index(layout)

    def set_process(self, entry: ProcessEntry) -> None:
        self.processes.append(entry)

    def add_executable(self, key: FileKey, entry: ExecutableEntry) -> None:
        self.executables[key] = entry

    def set_mappings(self, slot: int, packed: bytes) -> None:
        assert slot in range(abi.MAPPED_PROCESSES)
        self.mappings[slot] = [ToldMapping(*fields) for fields in struct.iter_unpack("<QQII", packed)]

    def set_unwind_chunk(self, index: int, rows: bytes) -> None:
        assert len(rows) == abi.UNWIND_CHUNK_ROWS * abi.UNWIND_ROW_SIZE
        assert index in range(abi.UNWIND_CHUNKS_IN_ALL)
        self.chunks[index] = rows

    def set_unwind_page(self, key: UnwindPageKey, page: UnwindPage) -> None:
        used = sum(start != 0xFFFF for start in page.first)
        assert all(page.chunk + index in self.chunks for index in range(used))
        self.pages[key.file, key.page] = page.chunk, used

    def drop_unwind_page(self, key: UnwindPageKey) -> None:
        del self.pages[key.file, key.page]

    def rows(self, key: tuple[int, int]) -> bytes:
        """The rows of a page of a file, without those that fill its last chunk."""
        first, used = self.pages[key]
        rows = b"".join(self.chunks[first + index] for index in range(used))
        return b"".join(rows[at : at + 8] for at in range(0, len(rows), 8) if rows[at : at + 2] != b"\xff\xff")

    def states_of(self, identity: Identity) -> list[int]:
        """What was said of a process, besides where its code is."""
        entries = [entry for entry in self.processes if read_identity(entry.identity) == identity]
        return [entry.state for entry in entries if entry.state != PROCESS_ANNOUNCED]
