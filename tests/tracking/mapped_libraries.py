"""Libraries of this process as other processes might have mapped them, and code that is made of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from pyflame_ebpf.cpython.interpreter import load_bias
from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.host.mapped_files import open_code
from pyflame_ebpf.host.maps import Mapping, mappings
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.tracking.mapped_code import MappedCode
from pyflame_ebpf.unwind.rows import UnwindTable
from tests.tracking.written_maps import WrittenMaps

ME = Identity(1, os.getpid(), 0)
OTHER = Identity(2, os.getpid(), 0)


def code_of_this_process() -> list[Mapping]:
    return [mapping for mapping in mappings(os.getpid()) if mapping.executable]


def libc() -> Mapping:
    return next(mapping for mapping in code_of_this_process() if "/libc.so" in mapping.path)


def opened_path(identity: Identity, mapping: Mapping) -> BinaryIO:
    return Path(mapping.path).open("rb", buffering=0) if mapping.inode else open_code(identity.tgid, mapping)


def table_of(mapping: Mapping) -> tuple[UnwindTable, int]:
    """The rows of a mapped file, and the page of it that is mapped first."""
    image = ElfImage(opened_path(ME, mapping))
    bias = load_bias(mapping, image.segments)
    assert bias is not None
    return UnwindTable(image), mapping.start - bias >> 12


def mapped_copy(path: Path, patch: bytes | None = None) -> Mapping:
    """A file with libc's contents, some of them overwritten, as it would be mapped where libc is."""
    shutil.copyfile(libc().path, path)
    if patch:
        overwrite_frames(path, patch)
    status = path.stat()
    return replace(libc(), path=str(path), inode=status.st_ino, device=status.st_dev)


def overwrite_frames(path: Path, patch: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        section = ElfImage(file).section(".eh_frame")
        assert section is not None
        os.pwrite(file.fileno(), patch * (section.size // len(patch)), section.offset)


def pages_of_this_libc() -> dict[int, bytes]:
    table, first = table_of(libc())
    return {first + index: table.rows(first + index) for index in range(0, 200, 9)}


def sent(code: MappedCode, written: WrittenMaps, number: int) -> dict[int, bytes]:
    for page in pages_of_this_libc():
        code.send_page(number, page)
    return {page: written.rows((number, page)) for page in pages_of_this_libc()}


def number_of(code: MappedCode, written: WrittenMaps, identity: Identity, mapping: Mapping) -> int:
    return written.mappings[slot_of(code, identity, [mapping])][1].file


def slot_of(code: MappedCode, identity: Identity, mapped: Iterable[Mapping]) -> int:
    """Maps a process and gives the number of its slot."""
    code.map_process(identity, mapped)
    return code.entry_of(identity) - 1
