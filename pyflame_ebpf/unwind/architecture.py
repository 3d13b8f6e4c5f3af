"""The processor architecture that code is unwound for: which file's definitions the rest of the room uses.

A file of one architecture defines the names below.  A second architecture is a second such file and a choice here by
the architecture of the host, for a host runs code of one architecture.
"""

from __future__ import annotations

from pyflame_ebpf.unwind.x86_64 import (
    ELF_MACHINE,
    ENTRY_POINT,
    FRAME_POINTER,
    OTHER_REGISTERS,
    PLT_ENTRY_SIZE,
    RETURN_ADDRESS,
    RETURN_ADDRESS_PLACE,
    SCRATCH_REGISTERS,
    interrupted,
    row_body,
)

__all__ = [
    "ELF_MACHINE",
    "ENTRY_POINT",
    "FRAME_POINTER",
    "OTHER_REGISTERS",
    "PLT_ENTRY_SIZE",
    "RETURN_ADDRESS",
    "RETURN_ADDRESS_PLACE",
    "SCRATCH_REGISTERS",
    "interrupted",
    "row_body",
]
