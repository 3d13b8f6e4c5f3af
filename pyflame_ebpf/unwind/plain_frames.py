"""The rows of ordinary functions, decoded several times faster than by the machine that knows every instruction.

Compilers describe nearly all functions by a CFA at rsp or rbp + offset and by registers saved below it.  An entry
that says anything else, or is damaged, is left to ``frame_rules``: both give the same rows for what both decode.
"""

from __future__ import annotations

from pyflame_ebpf.unwind.call_frame_information import RBP, RETURN_ADDRESS, RSP, CommonEntry, How, Rules
from pyflame_ebpf.unwind.frame_entries import FrameEntry

NOT_SAVED = 1  # as rbp's place: no distance from the CFA that is a multiple of 8
Row = tuple[int, int, int, int]  # address, register of the CFA, its offset, rbp's place from the CFA or NOT_SAVED

_SAVED_RETURN_ADDRESS = (How.OFFSET, -8, b"")
_SAME = (How.SAME, 0, b"")
_STATES_MAX = 64
_LEB_BYTES_MAX = 5


def is_plain(common: CommonEntry) -> bool:
    """Whether a CIE begins as those of compilers do."""
    initial = common.initial
    return (
        common.return_register == RETURN_ADDRESS
        and not common.is_signal_frame
        and initial.cfa_expression is None
        and (initial.cfa_register, initial.cfa_offset) == (RSP, 8)
        and initial.rbp == _SAME
        and initial.return_address == _SAVED_RETURN_ADDRESS
        and common.data_alignment == -8  # noqa: PLR2004
    )


def rules_of(register: int, offset: int, place: int) -> Rules:
    """What a row says."""
    rbp = _SAME if place == NOT_SAVED else (How.OFFSET, place, b"")
    return Rules(register, offset, None, rbp, _SAVED_RETURN_ADDRESS)


def _long(data: bytes, position: int, value: int) -> tuple[int, int]:
    """(number, position behind it) of an unsigned LEB128 whose first byte was read; ValueError for a very long one."""
    value &= 0x7F
    for index in range(1, _LEB_BYTES_MAX):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004
            return value, position
    raise ValueError


def plain_rows(frame: FrameEntry, begin: int, stop: int) -> list[Row] | None:  # noqa: C901, PLR0911, PLR0912, PLR0915
    """The rows of a function that hold somewhere in [begin, stop); None: ask ``frame_rules``.

    One loop over bytes: a call for each of them is what it saves.
    """
    data, position, location, scale = frame.data, frame.instructions, frame.start, frame.common.code_alignment
    end = len(data.rstrip(b"\0"))  # without the nops that pad it; a last operand of 0 is still read from data
    rows: list[Row] = []
    register, offset, place = RSP, 8, NOT_SAVED
    states: list[tuple[int, int, int]] = []
    try:
        while position < end and location < stop:
            opcode = data[position]
            position += 1
            if 0x40 <= opcode < 0x80 or 2 <= opcode <= 4:  # noqa: PLR2004 - DW_CFA_advance_loc, 1, 2, 4
                if opcode >= 0x40:  # noqa: PLR2004
                    step = opcode & 63
                else:
                    size = 1 << (opcode - 2)
                    if position + size > len(data):
                        return None
                    step = int.from_bytes(data[position : position + size], "little")
                    position += size
                following = location + step * scale
                if following > begin and following > location:
                    rows.append((location, register, offset, place))
                location = following
            elif opcode >= 0xC0:  # noqa: PLR2004 - DW_CFA_restore
                if opcode & 63 == RBP:
                    place = NOT_SAVED
            elif opcode >= 0x80:  # noqa: PLR2004 - DW_CFA_offset
                value = data[position]
                position += 1
                if value > 0x7F:  # noqa: PLR2004
                    value, position = _long(data, position, value)
                saved = opcode & 63
                if saved == RBP:
                    place = -8 * value
                elif saved == RETURN_ADDRESS:
                    return None
            elif opcode == 0x0E:  # noqa: PLR2004 - DW_CFA_def_cfa_offset
                offset = data[position]
                position += 1
                if offset > 0x7F:  # noqa: PLR2004
                    offset, position = _long(data, position, offset)
            elif opcode == 0x0A:  # noqa: PLR2004 - DW_CFA_remember_state
                states.append((register, offset, place))
                if len(states) == _STATES_MAX:
                    return None
            elif opcode == 0x0B:  # noqa: PLR2004 - DW_CFA_restore_state
                register, offset, place = states.pop()
            elif opcode == 0x0C:  # noqa: PLR2004 - DW_CFA_def_cfa
                register, offset = data[position], data[position + 1]
                position += 2
                if register > 0x7F:  # noqa: PLR2004
                    return None
                if offset > 0x7F:  # noqa: PLR2004
                    offset, position = _long(data, position, offset)
            elif opcode == 0x0D:  # noqa: PLR2004 - DW_CFA_def_cfa_register
                register = data[position]
                position += 1
                if register > 0x7F:  # noqa: PLR2004
                    return None
            elif opcode == 0x2E:  # noqa: PLR2004 - DW_CFA_GNU_args_size
                value = data[position]
                position += 1
                if value > 0x7F:  # noqa: PLR2004
                    _, position = _long(data, position, value)
            elif opcode:  # 0: DW_CFA_nop
                return None
    except (IndexError, ValueError):
        return None
    if stop > begin and stop > location:
        rows.append((location, register, offset, place))
    return rows
