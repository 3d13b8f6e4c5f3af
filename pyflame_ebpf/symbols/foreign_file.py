"""For which machine an ELF file is made that cannot be read here, in readelf's words.

``doctor`` asks this of single files, so pyelftools, which knows 250 machines, may take a tenth of a second to import.
It is given the file's header alone, 64 bytes in memory, since a hostile file makes it read whatever the file says.
"""

from __future__ import annotations

import contextlib
import io
import os

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.symbols.mapped_file import MappedFile

_HEADER_MAX = 64  # bytes: the header of a 64-bit file
_BITS = {1: 32, 2: 64}  # by EI_CLASS
_LITTLE_ENDIAN = {1: True, 2: False}  # by EI_DATA


def machine_of(file: MappedFile) -> str:
    """``Intel 80386, 32-bit little-endian``, "" if the file is not ELF or cannot be read."""
    with contextlib.suppress(OSError, PyflameError), file.open() as opened:
        return machine_in(os.pread(opened.fileno(), _HEADER_MAX, 0))
    return ""


def machine_in(header: bytes) -> str:
    """The machine that an ELF header names, "" for other bytes."""
    if header[:4] != b"\x7fELF" or len(header) < _HEADER_MAX:
        return ""
    bits, little_endian = _BITS.get(header[4]), _LITTLE_ENDIAN.get(header[5])
    if bits is None or little_endian is None:
        return ""
    from elftools.common.utils import struct_parse  # noqa: PLC0415 - 7 MB, and hardly a process needs them
    from elftools.elf.descriptions import describe_e_machine  # noqa: PLC0415
    from elftools.elf.structs import ELFStructs  # noqa: PLC0415

    structs = ELFStructs(little_endian=little_endian, elfclass=bits)
    structs.create_basic_structs()
    machine = describe_e_machine(struct_parse(structs.Elf_Ehdr, io.BytesIO(header))["e_machine"])
    return f"{machine}, {bits}-bit {'little' if little_endian else 'big'}-endian"
