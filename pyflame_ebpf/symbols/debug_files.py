"""The symbols that were stripped from a file: in its section .gnu_debugdata, or in a separate debug file.

Both are hostile input.  Compressed symbols are unpacked into at most 32 MB of memory.  A separate file counts only if
it has the wanted build id or, where one of the two files has no build id, the wanted checksum.

Sources: GDB's manual, "Debugging Information in Separate Files" and "MiniDebugInfo".
"""

from __future__ import annotations

import contextlib
import lzma
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from pyflame_ebpf.elf.bad_elf import OverBudget
from pyflame_ebpf.elf.budget import Budget
from pyflame_ebpf.elf.file import FileIdentity, identity_of
from pyflame_ebpf.elf.function_table import string_at
from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.target_files import open_below, root_of

UNPACKED_MAX = 32 << 20  # bytes; Fedora's largest is 10 MB
_LZMA_MEMORY_MAX = 20 << 20  # bytes; Fedora's xz -6 needs 9 MB, xz -7 17 MB
_PACKED_MAX = 8 << 20  # bytes
_LINK_MAX = 4096  # bytes
_CHECKSUM_MAX = 1 << 30  # bytes of one file whose checksum is computed
_CHECKSUMS_MAX = 4 << 30  # bytes of all such files: anybody can make huge files that take no room on the disk
_REMEMBERED_MAX = 1 << 16  # files
_STEP = 1 << 18  # bytes that are unpacked or read at once: 3 ms of unpacking
_DEBUG_ROOT = "/usr/lib/debug"


def unpack_debug_data(image: ElfImage) -> BinaryIO | None:
    """The ELF file in .gnu_debugdata, in memory, None without one.  Raises BadElf if it cannot be unpacked."""
    section = image.section(".gnu_debugdata")
    if section is None:
        return None
    packed = image.section_data(section, _PACKED_MAX)
    file = os.fdopen(os.memfd_create("debugdata"), "r+b", buffering=0)
    try:
        _unpack(packed, file, image.budget)
    except (lzma.LZMAError, MemoryError, EOFError) as error:
        file.close()
        raise BadElf("its .gnu_debugdata cannot be unpacked") from error
    except BadElf:
        file.close()
        raise
    return file


def _unpack(packed: bytes, file: BinaryIO, budget: Budget | None) -> None:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_MAX)
    size = 0
    while not unpacker.eof:
        if budget is not None:
            budget.check(".gnu_debugdata")
        part = unpacker.decompress(packed, _STEP)
        if not part and (unpacker.needs_input or not packed):
            if not unpacker.eof:
                raise BadElf("its .gnu_debugdata is cut short")
            return
        packed = b""
        size += len(part)
        if size > UNPACKED_MAX:
            raise BadElf("its .gnu_debugdata unpacks to too much")
        file.write(part)


def debug_link(image: ElfImage) -> tuple[str, int] | None:
    """(file name, CRC-32 of the file) from .gnu_debuglink; None without one, or if the name is not a plain name."""
    section = image.section(".gnu_debuglink")
    if section is None:
        return None
    try:
        data = image.section_data(section, _LINK_MAX)
    except BadElf:
        return None
    name = string_at(data, 0)
    place = (data.find(b"\0") + 4) // 4 * 4
    if not name or "/" in name or name in (".", "..") or place + 4 > len(data):
        return None
    return name, int.from_bytes(data[place : place + 4], "little")


class Wanted(NamedTuple):
    """What identifies the debug file of a stripped file."""

    machine: int
    build_id: bytes
    link: tuple[str, int] | None  # file name, CRC-32


def wanted_by(symbols: ElfSymbols) -> Wanted | None:
    """What identifies the debug file of a file, None for a file with all its symbols.  Raises BadElf."""
    image = symbols.image
    return Wanted(image.machine, image.build_id, debug_link(image)) if symbols.stripped else None


def debug_paths(wanted: Wanted, path: str) -> Iterator[str]:
    """The paths at which the debug file of the file at ``path`` may be, the surest first."""
    identity = wanted.build_id.hex()
    if len(identity) > 2:  # noqa: PLR2004 - the first byte is the directory
        yield f"{_DEBUG_ROOT}/.build-id/{identity[:2]}/{identity[2:]}.debug"
    if wanted.link and path.startswith("/"):
        folder = str(PurePosixPath(path).parent).rstrip("/")
        name = wanted.link[0]
        yield from (f"{folder}/{name}", f"{folder}/.debug/{name}", f"{_DEBUG_ROOT}{folder}/{name}")


def _candidates(wanted: Wanted, path: str, pid: int) -> Generator[BinaryIO, None, None]:
    """The files at those paths in a process's root, then in ours; each is open until the next one is asked for."""
    for root_pid in (pid, None) if pid else (None,):
        whose = f"process {root_pid}" if root_pid else "this host"
        with contextlib.suppress(OSError, PyflameError), root_of(root_pid) as root:
            for place in debug_paths(wanted, path):
                with contextlib.suppress(OSError), open_below(root, place, whose=whose) as file:
                    yield file


@contextlib.contextmanager
def open_debug_file(symbols: ElfSymbols, path: str, pid: int, identity: FileIdentity) -> Iterator[ElfSymbols | None]:
    """The debug file that ``DebugFiles.find`` returned, None if the process no longer has it.  Raises BadElf."""
    wanted = wanted_by(symbols)
    if wanted is None:
        yield None
        return
    with contextlib.ExitStack() as opened:
        with contextlib.closing(_candidates(wanted, path, pid)) as files:
            found = next((file for file in files if identity_of(file) == identity), None)
            copy = opened.enter_context(os.fdopen(os.dup(found.fileno()), "rb", buffering=0)) if found else None
        # The folders on the way, the process's root among them, are closed by now: the caller may keep the file.
        yield ElfSymbols(ElfImage(copy)) if copy else None


class DebugFiles:
    """Finds the installed debug files of files.

    A process's root and its mounts are the process's own, so each search looks there anew.  Whether a file that was
    found matches is remembered as long as the file is unchanged.
    """

    def __init__(self) -> None:
        self._wanted: dict[FileIdentity, Wanted | None] = {}
        self._matching: dict[tuple[FileIdentity, Wanted], bool] = {}
        self._checksums: dict[FileIdentity, int] = {}
        self._checksummed = 0  # bytes

    def find(self, symbols: ElfSymbols, path: str, pid: int) -> FileIdentity | None:
        """The debug file of the file that a process sees at ``path``; ``pid`` is 0 for a process that is gone.

        Raises BadElf and OSError.
        """
        identity = symbols.image.identity
        if identity not in self._wanted:
            _make_room(self._wanted)
            self._wanted[identity] = wanted_by(symbols)
        wanted = self._wanted[identity]
        if wanted is None:
            return None
        budget = symbols.image.budget
        with contextlib.closing(_candidates(wanted, path, pid)) as files:
            return next((identity_of(file) for file in files if self._matches(file, wanted, budget)), None)

    def _matches(self, file: BinaryIO, wanted: Wanted, budget: Budget | None) -> bool:
        key = identity_of(file), wanted
        if key not in self._matching:
            _make_room(self._matching)
            self._matching[key] = False
            try:
                found = ElfSymbols(ElfImage(file, budget))
                self._matching[key] = is_debug_file_of(found, wanted, lambda: self._checksum(file, budget))
            except OverBudget:  # another process may have more left
                del self._matching[key]
                return False
            except (BadElf, OSError):
                pass
        return self._matching[key]

    def _checksum(self, file: BinaryIO, budget: Budget | None) -> int:
        """The CRC-32 of a file, -1 if it is too large.  Raises OSError, OverBudget."""
        identity = identity_of(file)
        if identity not in self._checksums:
            size = identity[-1]
            if size > _CHECKSUM_MAX or self._checksummed + size > _CHECKSUMS_MAX:
                return -1
            _make_room(self._checksums)
            self._checksummed += size
            self._checksums[identity] = checksum(file, size, budget)
        return self._checksums[identity]


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= _REMEMBERED_MAX:
        remembered.clear()


def is_debug_file_of(found: ElfSymbols, wanted: Wanted, checksum_of_found: Callable[[], int]) -> bool:
    """True if the build ids are equal or, where one of the files has none, if the link's checksum is the file's.

    Raises BadElf and OSError.
    """
    if found.image.machine != wanted.machine or found.stripped:
        return False
    if found.build_id and wanted.build_id:
        return found.build_id == wanted.build_id
    return wanted.link is not None and wanted.link[1] == checksum_of_found()


def checksum(file: BinaryIO, size: int, budget: Budget | None = None) -> int:
    """The CRC-32 of the first ``size`` bytes of a file.  Raises OSError, OverBudget."""
    value = 0
    for offset in range(0, size, _STEP):
        if budget is not None:
            budget.check("checksum")
        value = zlib.crc32(os.pread(file.fileno(), min(_STEP, size - offset), offset), value)
    return value
