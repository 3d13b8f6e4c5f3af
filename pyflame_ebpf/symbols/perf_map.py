"""perf-PID.map, in which JIT compilers list the functions they made, a line each: ``START SIZE name``, in hexadecimal.

The profiled program writes the file, so it is hostile input: it must be a regular file that belongs to the program's
user or to root and is reached through no link.  64 MB of it are read, and 128 MB of all programs' maps.  It is opened
when the program is first seen to run code of no file, and read when names are asked for, when the program may have
ended.

Source: Linux, tools/perf/Documentation/jit-interface.txt.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from array import array
from bisect import bisect_right
from typing import BinaryIO

from pyflame_ebpf.elf.budget import Budget
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.process_directory import PidOrDirectory, directory_of
from pyflame_ebpf.host.target_files import find_below, root_of

BYTES_MAX = 64 << 20  # of one file
ENTRIES_MAX = 1 << 20  # of one file
OPEN_MAX = 512  # files
KEPT_MAX = 128 << 20  # bytes of all files; one of Node's with 100,000 functions takes 8 MB
SECONDS_MAX = 2.0  # of CPU time for one file; 100,000 lines take 0.2
_ASK_EVERY = 4096  # lines that are read between two looks at the clock
_NAME_MAX = 1024  # bytes
_ADDRESS_END = 1 << 64
_LOOK_BACK = 32  # the nearest entries before an address are asked whether they hold it
_LINE = re.compile(rb"^(?:0[xX])?([0-9a-fA-F]{1,16})[ \t]+(?:0[xX])?([0-9a-fA-F]{1,16})[ \t]+([^\n]+)", re.MULTILINE)


class PerfMap:
    """The functions of a perf map's text.  Of two entries that hold an address, the later line counts."""

    def __init__(self, text: bytes) -> None:
        self._text = text[:BYTES_MAX]
        starts, sizes, names = self._entries()
        order = array("L", sorted(range(len(starts)), key=starts.__getitem__))  # of equal starts the later line is last
        self._starts = array("Q", map(starts.__getitem__, order))
        self._sizes = array("Q", map(sizes.__getitem__, order))
        self._names = array("L", map(names.__getitem__, order))  # offset in the text, which rises from line to line

    def _entries(self) -> tuple[array[int], array[int], array[int]]:
        """(starts, sizes, offsets of names) in the order of the lines, as many as SECONDS_MAX allow."""
        budget = Budget(SECONDS_MAX)
        starts, sizes, names = array("Q"), array("Q"), array("L")
        for number, match in enumerate(_LINE.finditer(self._text)):
            start, size = int(match[1], 16), int(match[2], 16)
            if size and start + size <= _ADDRESS_END:
                starts.append(start)
                sizes.append(size)
                names.append(match.start(3))
            if len(starts) == ENTRIES_MAX or (number % _ASK_EVERY == 0 and budget.spent > budget.seconds):
                break
        return starts, sizes, names

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return len(self._text) + 3 * 8 * len(self._starts)

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._starts)

    def at(self, address: int) -> str:
        """The function that was put last at an address, "" for none."""
        end = bisect_right(self._starts, address)
        holders = [
            self._names[index]
            for index in range(end - 1, max(end - 1 - _LOOK_BACK, -1), -1)
            if address - self._starts[index] < self._sizes[index]
        ]
        return self._name(max(holders)) if holders else ""

    def _name(self, start: int) -> str:
        end = self._text.find(b"\n", start, start + _NAME_MAX)
        name = self._text[start : end if end >= 0 else start + _NAME_MAX]
        return name.decode("utf-8", "replace").strip()


def open_perf_map(process: PidOrDirectory) -> BinaryIO:
    """Open a process's perf map, whose name has the process's PID in its innermost namespace.

    Raises OSError and ProcessGone.
    """
    path = f"/tmp/perf-{proc.namespace_pids(process)[-1]}.map"  # noqa: S108 - the interface says so
    with root_of(process) as root:
        file, status = find_below(root, path, links=False, whose=f"process {directory_of(process).pid}")
    if status.st_uid not in (0, proc.user_id(process)):
        file.close()
        raise OSError(errno.EPERM, "it belongs to another user", path)
    return file


def has_perf_map(pid: int) -> bool:
    """True if a process has a perf map that will be read."""
    try:
        with open_perf_map(pid):
            return True
    except (OSError, PyflameError):
        return False


def read_perf_map(file: BinaryIO, limit: int = BYTES_MAX) -> PerfMap:
    """The functions that an open perf map lists by now, in so many bytes.  Raises OSError."""
    text = bytearray()
    while len(text) < limit and (part := os.pread(file.fileno(), min(1 << 20, limit - len(text)), len(text))):
        text += part
    return PerfMap(bytes(text))


class PerfMaps:
    """The perf maps of processes.  A key stands for a process and for no later one with the same PID."""

    def __init__(self) -> None:
        self._open: dict[object, BinaryIO] = {}
        self._read: dict[object, PerfMap] = {}

    def watch(self, key: object, process: PidOrDirectory) -> None:
        """Keep the perf map of a running process open from now on, if it has one.  At most OPEN_MAX are open."""
        if key not in self._open and len(self._open) < OPEN_MAX:
            with contextlib.suppress(OSError, PyflameError):
                self._open[key] = open_perf_map(process)

    def at(self, key: object, address: int) -> str:
        """The function of a process at an address, "" for none.  The first question reads the file."""
        if key not in self._open:
            return ""
        if key not in self._read:
            try:
                left = KEPT_MAX - sum(read.size for read in self._read.values())
                self._read[key] = read_perf_map(self._open[key], max(min(BYTES_MAX, left), 0))
            except OSError:
                self._read[key] = PerfMap(b"")
        return self._read[key].at(address)

    def forget(self, key: object) -> None:
        """Close the map of a process that nobody will ask about."""
        self._read.pop(key, None)
        if (file := self._open.pop(key, None)) is not None:
            file.close()

    def read_again(self) -> None:
        """Read the files anew at the next question, since programs go on writing them."""
        self._read.clear()

    def close(self) -> None:
        """Close the files."""
        for file in self._open.values():
            file.close()
        self._open.clear()
