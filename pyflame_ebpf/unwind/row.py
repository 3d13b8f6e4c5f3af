"""One unwind row, as the BPF programs read it: how an address finds its caller.

A row takes 8 bytes: u16 start in its page, u8 kind, s8 place of the frame pointer, s32 place of the CFA.  Everything
behind the start is the row's body.  Kinds are those of bpf/sample.h, named for x86-64's registers: RSP stands for the
stack pointer, RBP for the frame pointer.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

ROW = struct.Struct("<HBbi")

_BODY = struct.Struct("<Bbi")
_KIND_BITS = 4
_RETURN_ADDRESS_AND_FRAME_POINTER = -2  # words from the CFA on: what a function with a frame pointer pushes first


class CfaKind(IntEnum):
    """How the CFA is found: the low four bits of a row's kind.  "offset" is the row's cfa_offset, in bytes."""

    NONE = 0  # no entry covers the address
    RSP = 1  # rsp + offset
    RBP = 2  # rbp + offset
    PLT = 3  # an entry of the procedure linkage table: rsp + 8, and 8 more when rip & 15 is at least offset
    RBP_DEREF = 4  # *(rbp + offset): a function that realigned its stack
    ROOT = 5  # there is no caller: _start, and where threads start
    SIGNAL = 6  # CFA = *(rsp + offset), rip in *(rsp + offset + 8), rbp in *(rsp + offset - 40)
    REGISTER = 7  # OtherRegister(offset & 15) + (offset >> 4); known in the innermost frame and sometimes its caller's
    UNSUPPORTED = 8
    RSP_DEREF_PLUS = 9  # *(rsp + (s16)offset) + (offset >> 16): OpenSSL's assembly
    RBP_DEREF_PLUS = 10  # *(rbp + (s16)offset) + (offset >> 16)
    INDEXED = 11  # *(rsp + 8 * OtherRegister(offset & 15) + (offset >> 4 & 0xfff)) + (offset >> 16): OpenSSL again


class RbpKind(IntEnum):
    """How the caller's frame pointer is found: the high four bits of a row's kind.  "place" is its rbp_offset."""

    SAME = 0
    BELOW_CFA = 1  # *(CFA + 8 * place), place from -2 to -127
    AT_RBP = 2  # *(rbp + 8 * place)
    UNKNOWN = 3
    AT_RSP = 4  # *(rsp + 8 * place)
    AT_CFA = 5  # *(CFA + 8 * place)


class UnwindRow(NamedTuple):
    """A row, unpacked."""

    start: int  # bytes from the start of its page
    cfa: CfaKind
    cfa_offset: int
    rbp: RbpKind
    rbp_offset: int  # in words of 8 bytes


def unpack_rows(rows: bytes) -> tuple[UnwindRow, ...]:
    """All packed rows of a page."""
    return tuple(unpack_row(rows, index) for index in range(len(rows) // ROW.size))


def unpack_row(rows: bytes, index: int) -> UnwindRow:
    """The packed row at an index of a page's rows."""
    start, kind, rbp_offset, cfa_offset = ROW.unpack_from(rows, index * ROW.size)
    cfa, rbp = CfaKind(kind % (1 << _KIND_BITS)), RbpKind(kind >> _KIND_BITS)
    return UnwindRow(start, cfa, cfa_offset, rbp, rbp_offset)


def body(cfa: CfaKind, cfa_offset: int = 0, rbp: RbpKind = RbpKind.SAME, rbp_offset: int = 0) -> bytes:
    """Pack a row without its start.  Raises struct.error for an offset outside its field."""
    return _BODY.pack(cfa | rbp << _KIND_BITS, rbp_offset, cfa_offset)


NONE_BODY = body(CfaKind.NONE)
FRAME_POINTER_BODY = body(CfaKind.RBP, 16, RbpKind.BELOW_CFA, _RETURN_ADDRESS_AND_FRAME_POINTER)
ROOT_BODY = body(CfaKind.ROOT)
UNSUPPORTED_BODY = body(CfaKind.UNSUPPORTED)
