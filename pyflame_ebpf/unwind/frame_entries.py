"""The entries of .eh_frame: common entries (CIEs), and the entries of functions (FDEs), which refer to them.

Source: Linux Standard Base Core 5.0, 10.6.1 (the layout of .eh_frame).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pyflame_ebpf.elf.image import BadElf
from pyflame_ebpf.unwind.call_frame_information import CommonEntry, Machine
from pyflame_ebpf.unwind.dwarf_numbers import POINTER_ABSOLUTE, Reader
from pyflame_ebpf.unwind.rules import NOTHING_SAID, Rules

_U32 = struct.Struct("<I")
_CIE_VERSIONS = (1, 3)
_NEAR, _NEAR_ADDRESSES = 0x1B, struct.Struct("<ii")  # DW_EH_PE_pcrel | DW_EH_PE_sdata4
_INSTRUCTIONS = 17  # where they begin in an entry with such addresses and no augmentation data
_ADDRESS_MASK = (1 << 64) - 1


class FrameEntry(NamedTuple):
    """An FDE of the code addresses [start, end), whose instructions are still encoded."""

    common: CommonEntry
    vaddr: int  # of the entry itself
    start: int
    end: int
    data: bytes  # the whole entry, its length included
    instructions: int  # where they begin in ``data``


def parse_common(data: bytes, vaddr: int) -> CommonEntry:
    """Parse a whole CIE, its length included.  Raises BadElf."""
    try:
        return _parse_common(Reader(data, vaddr, 4))
    except (IndexError, struct.error) as error:
        raise BadElf("a common entry of .eh_frame is cut short") from error


def _parse_common(reader: Reader) -> CommonEntry:
    if reader.fixed(_U32) or reader.byte() not in _CIE_VERSIONS:
        raise BadElf("not a common entry of .eh_frame")
    version = reader.data[8]
    name_end = reader.data.index(0, 9) if 0 in reader.data[9:] else -1
    augmentation = reader.data[9:name_end]
    if name_end < 0 or (augmentation and augmentation[0] != ord("z")):
        raise BadElf(f"augmentation {augmentation[:8]!r} of .eh_frame is not supported")
    reader.position = name_end + 1
    code_alignment, data_alignment = reader.uleb(), reader.sleb()
    return_register = reader.byte() if version == 1 else reader.uleb()
    encoding = _parse_augmentation(reader, augmentation) if augmentation else POINTER_ABSOLUTE
    unready = CommonEntry(
        code_alignment=code_alignment,
        data_alignment=data_alignment,
        return_register=return_register,
        pointer_encoding=encoding,
        augmented=bool(augmentation),
        is_signal_frame=b"S" in augmentation,
        initial=NOTHING_SAID,
    )
    machine = Machine(reader.data, reader.vaddr, reader.position, unready)
    machine.run(1)
    return unready._replace(initial=machine.rules)


def _parse_augmentation(reader: Reader, augmentation: bytes) -> int:
    """Read the encoding of the FDEs' addresses, and leave the reader behind the augmentation data."""
    size = reader.uleb()
    end = reader.position + size
    encoding = POINTER_ABSOLUTE
    for letter in augmentation[1:].decode("latin-1"):
        if letter == "R":
            encoding = reader.byte()
        elif letter == "L":
            reader.byte()
        elif letter == "P":  # the personality routine, which is not called here
            reader.number(reader.byte())
        elif letter != "S":
            raise BadElf(f"augmentation {augmentation[:8]!r} of .eh_frame is not supported")
    reader.position = end
    return encoding


def common_entry_vaddr(data: bytes, vaddr: int) -> int:
    """The address of the CIE that an FDE refers to.  Raises BadElf for bytes that are not an FDE."""
    distance = int.from_bytes(data[4:8], "little")
    if len(data) < 8 or not distance:  # noqa: PLR2004
        raise BadElf("not a frame entry of .eh_frame")
    return vaddr + 4 - distance


def parse_frame(data: bytes, vaddr: int, common: CommonEntry) -> FrameEntry:
    """Parse the head of a whole FDE, its length included.  Raises BadElf."""
    if common.pointer_encoding == _NEAR and common.augmented and len(data) > _INSTRUCTIONS and not data[16]:
        distance, size = _NEAR_ADDRESSES.unpack_from(data, 8)  # the form that compilers write for C
        start = vaddr + 8 + distance & _ADDRESS_MASK
        return FrameEntry(common, vaddr, start, start + size, data, _INSTRUCTIONS)
    reader = Reader(data, vaddr, 8)
    try:
        start = reader.pointer(common.pointer_encoding)
        end = start + reader.number(common.pointer_encoding)
        if common.augmented:
            reader.block()
    except (IndexError, struct.error) as error:
        raise BadElf("a frame entry of .eh_frame is cut short") from error
    return FrameEntry(common, vaddr, start, end, data, reader.position)


def frame_rules(frame: FrameEntry, begin: int, stop: int) -> list[tuple[int, Rules]]:
    """Decode (address, rules from there on) for the addresses in [begin, stop).

    The first address is at or before ``begin``.  Raises BadElf.
    """
    stop = min(stop, frame.end)
    machine = Machine(frame.data, frame.vaddr, frame.instructions, frame.common)
    machine.location = frame.start
    machine.wanted_from = begin
    try:
        machine.run(stop)
    except (IndexError, struct.error) as error:
        raise BadElf("a frame entry of .eh_frame is cut short") from error
    machine.go_to(max(machine.location, stop))
    return machine.found
