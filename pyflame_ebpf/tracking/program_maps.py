"""What the BPF programs are told of processes, of their code and of their interpreters."""

from __future__ import annotations

from typing import Protocol

from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.sampling.abi import ExecutableEntry, ProcessEntry, UnwindPage, UnwindPageKey

FileKey = tuple[int, int, int]  # inode, device, lower half of the size: struct file_key


class ProcessMaps(Protocol):
    """The maps of processes and interpreters."""

    def set_process(self, entry: ProcessEntry, /) -> None:
        """What is known of a process from now on."""

    def add_layout(self, layout: CPythonLayout, /) -> int:
        """The index by which entries name this layout.  Raises PyflameError when there is no room for another."""

    def add_executable(self, key: FileKey, entry: ExecutableEntry, /) -> None:
        """How the programs find the interpreter in processes that run this file."""


class CodeMaps(Protocol):
    """The maps of executable memory and its unwind rows."""

    def set_mappings(self, slot: int, mappings: bytes, /) -> None:
        """The executable memory of the process that has this slot: a ``struct process_mappings``."""

    def set_unwind_chunk(self, index: int, rows: bytes, /) -> None:
        """A chunk of unwind rows."""

    def set_unwind_page(self, key: UnwindPageKey, page: UnwindPage, /) -> None:
        """Where the rows of a page are, whose chunks were set before."""

    def drop_unwind_page(self, key: UnwindPageKey, /) -> None:
        """Forgets a page."""


class TrackedMaps(ProcessMaps, CodeMaps, Protocol):
    """All that tracking tells the programs."""
