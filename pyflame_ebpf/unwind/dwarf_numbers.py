"""Numbers as DWARF and .eh_frame encode them.

Sources: DWARF 5, 7.6 (LEB128); Linux Standard Base Core 5.0, 10.5 (DW_EH_PE_* pointers).
"""

from __future__ import annotations

import struct

from pyflame_ebpf.elf.image import BadElf

POINTER_ABSOLUTE, _POINTER_PC_RELATIVE, _POINTER_DATA_RELATIVE = 0x00, 0x10, 0x30
_POINTER_FORMATS = {
    0x0: struct.Struct("<Q"),
    0x2: struct.Struct("<H"),
    0x3: struct.Struct("<I"),
    0x4: struct.Struct("<Q"),
    0xA: struct.Struct("<h"),
    0xB: struct.Struct("<i"),
    0xC: struct.Struct("<q"),
}
_POINTER_ULEB, _POINTER_SLEB = 0x1, 0x9
_ADDRESS_MASK = (1 << 64) - 1
_LEB_BITS_MAX = 70  # ten bytes: as many as 64 bits need


class Reader:
    """Reads numbers from bytes that are loaded at an address.

    Every method raises IndexError or struct.error past the end of the bytes, and BadElf for an encoding that cannot be.
    """

    __slots__ = ("data", "position", "vaddr")

    def __init__(self, data: bytes, vaddr: int, position: int = 0) -> None:
        self.data = data
        self.vaddr = vaddr
        self.position = position

    def fixed(self, layout: struct.Struct) -> int:
        """Read a number of a fixed size."""
        (value,) = layout.unpack_from(self.data, self.position)
        self.position += layout.size
        return int(value)

    def byte(self) -> int:
        """Read one byte."""
        value = self.data[self.position]
        self.position += 1
        return value

    def uleb(self) -> int:
        """Read an unsigned LEB128 of at most 10 bytes."""
        value = self.data[self.position]
        self.position += 1
        if value < 0x80:  # noqa: PLR2004 - nearly all numbers take one byte
            return value
        value &= 0x7F
        for shift in range(7, _LEB_BITS_MAX, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise BadElf("a number in .eh_frame is too long")

    def sleb(self) -> int:
        """Read a signed LEB128 of at most 10 bytes."""
        begin = self.position
        value = self.uleb()
        bits = 7 * (self.position - begin)
        return value - (1 << bits) if value >> (bits - 1) else value

    def block(self) -> bytes:
        """Read a block: its size as an unsigned LEB128, then its bytes."""
        size = self.uleb()
        begin = self.position
        self.position += size
        if self.position > len(self.data):
            raise BadElf("an expression in .eh_frame does not fit")
        return self.data[begin : self.position]

    def pointer(self, encoding: int, data_vaddr: int | None = None) -> int:
        """Read an address by its DW_EH_PE encoding; a data-relative address is relative to ``data_vaddr``."""
        origin = {
            POINTER_ABSOLUTE: 0,
            _POINTER_PC_RELATIVE: self.vaddr + self.position,
            _POINTER_DATA_RELATIVE: data_vaddr,
        }.get(encoding & 0xF0)
        if origin is None:
            raise BadElf(f"pointers of encoding {encoding:#x} are not supported")
        return (self.number(encoding) + origin) & _ADDRESS_MASK

    def number(self, encoding: int) -> int:
        """Read a number in the format of a DW_EH_PE encoding, relative to nothing."""
        form = encoding & 0x0F
        if form == _POINTER_ULEB:
            return self.uleb()
        if form == _POINTER_SLEB:
            return self.sleb()
        if form not in _POINTER_FORMATS:
            raise BadElf(f"pointers of encoding {encoding:#x} do not exist")
        return self.fixed(_POINTER_FORMATS[form])
