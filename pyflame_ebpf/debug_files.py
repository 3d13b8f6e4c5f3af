"""Where the symbols are that were stripped from a file: in its .gnu_debugdata, or in a separate debug file.

All of it is untrusted.  Compressed symbols are unpacked into a bounded amount of memory; a separate file counts only if
its build id, or without one its checksum, is the one that is wanted.

Sources: GDB's manual, "Debugging Information in Separate Files" and "MiniDebugInfo".
"""

from __future__ import annotations

import contextlib
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from pyflame_ebpf.elf_image import BadElf, ElfImage
from pyflame_ebpf.function_table import string_at
from pyflame_ebpf.target_files import open_below, root_of

UNPACKED_MAX = 64 << 20  # bytes; Fedora's largest take 10 MB
_LZMA_MEMORY_MAX = 128 << 20  # what xz -9 needs is 65 MB
_PACKED_MAX = 32 << 20
_LINK_MAX = 4096
_CHECKSUM_MAX = 1 << 30  # bytes of a file whose checksum is computed
_STEP = 1 << 20
_DEBUG_ROOT = "/usr/lib/debug"


def unpack_debug_data(image: ElfImage) -> BinaryIO | None:
    """The ELF file in .gnu_debugdata, None without one; BadElf."""
    section = image.section(".gnu_debugdata")
    if section is None:
        return None
    packed = image.section_data(section, _PACKED_MAX)
    file = os.fdopen(os.memfd_create("debugdata"), "r+b", buffering=0)
    try:
        _unpack(packed, file)
    except (lzma.LZMAError, MemoryError, EOFError) as error:
        file.close()
        raise BadElf("its .gnu_debugdata cannot be unpacked") from error
    except BadElf:
        file.close()
        raise
    return file


def _unpack(packed: bytes, file: BinaryIO) -> None:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_MAX)
    size = 0
    while not unpacker.eof:
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
    """(file name, its CRC-32) of .gnu_debuglink; None without one, or one that names no plain file."""
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


def debug_paths(image: ElfImage, path: str) -> Iterator[str]:
    """Where the debug file of a file may be, the surest place first."""
    identity = image.build_id.hex()
    if len(identity) > 2:  # noqa: PLR2004 - the first byte is the directory
        yield f"{_DEBUG_ROOT}/.build-id/{identity[:2]}/{identity[2:]}.debug"
    link = debug_link(image)
    if link and path.startswith("/"):
        folder = str(PurePosixPath(path).parent).rstrip("/")
        yield from (f"{folder}/{link[0]}", f"{folder}/.debug/{link[0]}", f"{_DEBUG_ROOT}{folder}/{link[0]}")


@contextlib.contextmanager
def separate_debug_file(image: ElfImage, path: str, pid: int | None) -> Iterator[ElfImage | None]:
    """The installed debug file of a file that a process sees at ``path``: in the process's root, then in ours."""
    with contextlib.ExitStack() as opened:
        yield next(_matching(image, path, (pid, None) if pid else (None,), opened), None)


def _matching(
    image: ElfImage, path: str, pids: tuple[int | None, ...], opened: contextlib.ExitStack
) -> Iterator[ElfImage]:
    for pid in pids:
        with contextlib.suppress(OSError), root_of(pid) as root:
            for place in debug_paths(image, path):
                with contextlib.suppress(OSError, BadElf):
                    file = opened.enter_context(open_below(root, place))
                    found = ElfImage(file)
                    if is_debug_file_of(found, image):
                        yield found


def is_debug_file_of(found: ElfImage, image: ElfImage) -> bool:
    """Whether it has the same build id, or where one of the two has none, the checksum of the link; BadElf, OSError."""
    if found.machine != image.machine or found.stripped:
        return False
    if found.build_id and image.build_id:
        return found.build_id == image.build_id
    link = debug_link(image)
    return link is not None and link[1] == _checksum(found)


def _checksum(image: ElfImage) -> int:
    if image.file_size > _CHECKSUM_MAX:
        return -1
    checksum = 0
    with image.duplicate() as file:
        for offset in range(0, image.file_size, _STEP):
            checksum = zlib.crc32(os.pread(file.fileno(), _STEP, offset), checksum)
    return checksum
