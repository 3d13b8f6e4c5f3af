"""What user space tells the programs: maps that it writes and they read.

Decides nothing about processes; whoever knows of them writes here.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterable
from typing import Any, Protocol

from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.abi import ExecutableEntry, ProcessEntry, UnwindPage, UnwindPageKey
from pyflame_ebpf.unwind.row import FRAME_POINTER_BODY


class Tables(Protocol):
    """The maps of compiled programs, as ``bcc.BPF`` has them."""

    def get_table(self, name: bytes, keytype: Any, leaftype: Any) -> Any:
        """A map by its name, with keys and values of these ctypes."""


_ANY_SIZE = 4  # bytes of the values of a map that entries are only deleted from


class ByteTables:
    """Maps from bytes to bytes; bcc's own description of large values cannot be parsed."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._opened: dict[bytes, Any] = {}

    def put(self, name: bytes, key: bytes, value: bytes) -> None:
        """Set one entry.  Raises Exception, as bcc does, if there is no room."""
        table = self._table(name, len(key), len(value))
        table[table.Key.from_buffer_copy(key)] = table.Leaf.from_buffer_copy(value)

    def delete(self, name: bytes, keys: Iterable[bytes]) -> None:
        """Delete the entries of these keys; unknown keys are ignored."""
        for key in keys:
            table = self._table(name, len(key), _ANY_SIZE)
            with contextlib.suppress(KeyError):
                del table[table.Key.from_buffer_copy(key)]

    def _table(self, name: bytes, key_size: int, value_size: int) -> Any:
        if name not in self._opened:
            key = ctypes.c_uint32 if key_size == ctypes.sizeof(ctypes.c_uint32) else ctypes.c_uint8 * key_size
            self._opened[name] = self._tables.get_table(name, key, ctypes.c_uint8 * value_size)
        return self._opened[name]


class ProgramMaps:
    """The maps that tell the programs what to sample and how to read and unwind it."""

    def __init__(self, tables: Tables) -> None:
        self._tables = ByteTables(tables)
        self._layouts: dict[bytes, int] = {}
        self._write_frame_pointer_rows()

    def _write_frame_pointer_rows(self) -> None:
        """Code without unwind data is walked by one row, the first of page 0 of file 0."""
        unused = b"\xff" * abi.UNWIND_ROW_SIZE * (abi.UNWIND_CHUNK_ROWS - 1)
        self.set_unwind_chunk(abi.UNWIND_CHUNKS_IN_ALL, bytes(2) + FRAME_POINTER_BODY + unused)
        starts = (ctypes.c_uint16 * abi.UNWIND_CHUNKS)(0, *[0xFFFF] * (abi.UNWIND_CHUNKS - 1))
        self.set_unwind_page(UnwindPageKey(0, 0), UnwindPage(abi.UNWIND_CHUNKS_IN_ALL, first=starts))

    def add_target(self, tgid: int, start_ticks: int) -> None:
        """Sample this process too, where only targets are sampled; not another one that gets its number later.

        ``start_ticks`` is when the process started, in clock ticks since the host did, as /proc/PID/stat has it.
        """
        start = start_ticks * abi.START_RESOLUTION
        self._tables.put(b"targets", struct.pack("<I", tgid), struct.pack("<Q", start))

    def add_layout(self, layout: CPythonLayout) -> int:
        """The index by which entries name this layout; equal layouts share one.

        Raises PyflameError if there are more than MAX_LAYOUTS.
        """
        packed = bytes(abi.pack_layout(layout))
        if packed not in self._layouts:
            index = len(self._layouts)
            if index >= abi.MAX_LAYOUTS:
                raise PyflameError("more kinds of interpreter than there is room for", "Restart the recording.")
            self._tables.put(b"layouts", struct.pack("<I", index), packed)
            self._layouts[packed] = index
        return self._layouts[packed]

    def set_process(self, entry: ProcessEntry) -> None:
        """Replace all that the programs know of a process."""
        self._tables.put(b"processes", struct.pack("<I", entry.identity.tgid), bytes(entry))

    def add_executable(self, key: tuple[int, int, int], entry: ExecutableEntry) -> None:
        """Tell how to find the interpreter in processes that run the file (inode, device, size).

        Dropped if there is no room: then user space identifies those processes.
        """
        with contextlib.suppress(Exception):  # bcc raises plain Exception
            self._tables.put(b"executables", struct.pack("<QII", *key), bytes(entry))

    def set_mappings(self, slot: int, mappings: bytes) -> None:
        """Set the executable memory of the process that has this slot, a ``struct process_mappings``."""
        self._tables.put(b"mappings", struct.pack("<I", slot), mappings)

    def set_unwind_chunk(self, index: int, rows: bytes) -> None:
        """Set a chunk of UNWIND_CHUNK_ROWS unwind rows."""
        self._tables.put(b"unwind_chunks", struct.pack("<I", index), rows)

    def set_unwind_page(self, key: UnwindPageKey, page: UnwindPage) -> None:
        """Tell which chunks hold the rows of a page; they must have been set before."""
        self._tables.put(b"unwind_pages", bytes(key), bytes(page))

    def drop_unwind_page(self, key: UnwindPageKey) -> None:
        """Forget a page."""
        self._tables.delete(b"unwind_pages", [bytes(key)])

    def forget(self, gone: Gone) -> None:
        """Let stacks, code objects and threads' names be sent again when they are sampled again."""
        self._tables.delete(b"known_stacks", [struct.pack("<Q", stack_id) for stack_id in gone.stacks])
        self._tables.delete(b"known_codes", [struct.pack("<Q", code_id) for code_id in gone.codes])
        self._tables.delete(b"threads", [struct.pack("<II", identity.tgid, tid) for identity, tid in gone.threads])
