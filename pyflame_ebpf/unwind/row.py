"""One unwind row: how an address finds its caller, as BPF reads it and as the rules of ``.eh_frame`` say; x86-64.

A row is 8 bytes: where it starts in its page, and a body of kind and offsets.  The return address is at CFA - 8, except
in SIGNAL rows, and rsp in the caller is the CFA.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from typing import NamedTuple

from pyflame_ebpf.unwind.call_frame_information import RBP, RSP, How, Rule, Rules
from pyflame_ebpf.unwind.dwarf_numbers import Reader

ROW = struct.Struct("<HBbi")

_BODY = struct.Struct("<Bbi")
_PLACE_MAX = 1 << 15  # offsets that share the s32 with another number
_DISTANCE_MAX = 1 << 31
_INDEXED_PLACE_MAX = 1 << 12
_WORDS_MAX = 1 << 7  # in an s8
_RETURN_ADDRESS_AND_RBP = -2  # words from the CFA on
_REGISTER_SHIFT = 4
_SIGNAL_RIP, _SIGNAL_RBP = 8, -40  # from the saved rsp: gregs[] of ucontext_t in <sys/ucontext.h>

# x86-64 psABI, "lazy binding": DW_OP_breg7 8; breg16 0; lit15; and; litN; ge; lit3; shl; plus
_PLT = re.compile(rb"\x77\x08\x80\x00\x3f\x1a([\x30-\x3f])\x2a\x33\x24\x22", re.DOTALL)
_SLEB = rb"([\x80-\xff]{0,4}[\x00-\x7f])"
_AT_REGISTER = re.compile(rb"([\x76\x77])" + _SLEB, re.DOTALL)  # DW_OP_breg6 or breg7
_INDEXED = re.compile(  # DW_OP_breg7, breg8 to breg15 0, lit8, mul, plus, deref, plus_uconst
    rb"\x77" + _SLEB + rb"([\x78-\x7f])\x00\x38\x1e\x22\x06\x23" + _SLEB, re.DOTALL
)
_DEREFERENCED = re.compile(  # then DW_OP_deref and perhaps DW_OP_plus_uconst
    rb"([\x76\x77])" + _SLEB + rb"\x06(?:\x23" + _SLEB + rb")?", re.DOTALL
)


class CfaKind(IntEnum):
    """How the CFA is found: the low four bits of a row's kind; "offset" is its cfa_offset."""

    NONE = 0  # no entry covers the address
    RSP = 1  # rsp + offset
    RBP = 2  # rbp + offset
    PLT = 3  # rsp + 8, and 8 more when rip & 15 is at least offset
    RBP_DEREF = 4  # *(rbp + offset): a function that realigned its stack
    ROOT = 5  # there is no caller: _start, and where threads start
    SIGNAL = 6  # CFA = *(rsp + offset), rip in *(rsp + offset + 8), rbp in *(rsp + offset - 40)
    REGISTER = 7  # OtherRegister(offset & 15) + (offset >> 4); known in the innermost frame and sometimes its caller's
    UNSUPPORTED = 8
    RSP_DEREF_PLUS = 9  # *(rsp + (s16)offset) + (offset >> 16): OpenSSL's assembly
    RBP_DEREF_PLUS = 10  # *(rbp + (s16)offset) + (offset >> 16)
    INDEXED = 11  # *(rsp + 8 * OtherRegister(offset & 15) + (offset >> 4 & 0xfff)) + (offset >> 16): OpenSSL again


class OtherRegister(IntEnum):
    """The register of a REGISTER row."""

    R8 = 0
    R9 = 1
    R10 = 2
    R11 = 3
    R12 = 4
    R13 = 5
    R14 = 6
    R15 = 7
    RDI = 8
    RSI = 9
    RBP = 10
    RBX = 11
    RDX = 12
    RAX = 13
    RCX = 14


_BY_NUMBER = ("RAX", "RDX", "RCX", "RBX", "RSI", "RDI", "RBP", "", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15")
_OTHER_REGISTERS = {number: OtherRegister[name] for number, name in enumerate(_BY_NUMBER) if name}


class RbpKind(IntEnum):
    """How the caller's rbp is found: the high four bits of a row's kind; offsets are in units of 8 bytes."""

    SAME = 0
    BELOW_CFA = 1  # *(CFA + 8 * rbp_offset), which is -2 to -127
    AT_RBP = 2  # *(rbp + 8 * rbp_offset)
    UNKNOWN = 3
    AT_RSP = 4  # *(rsp + 8 * rbp_offset)
    AT_CFA = 5  # *(CFA + 8 * rbp_offset)


class UnwindRow(NamedTuple):
    """A row, unpacked."""

    start: int  # offset in the page
    cfa: CfaKind
    cfa_offset: int
    rbp: RbpKind
    rbp_offset: int


def unpack_rows(rows: bytes) -> tuple[UnwindRow, ...]:
    """The rows of a page as values."""
    return tuple(unpack_row(rows, index) for index in range(len(rows) // ROW.size))


def unpack_row(rows: bytes, index: int) -> UnwindRow:
    """One row of a page as values."""
    start, kind, rbp_offset, cfa_offset = ROW.unpack_from(rows, index * ROW.size)
    return UnwindRow(start, CfaKind(kind & 15), cfa_offset, RbpKind(kind >> 4), rbp_offset)


def _body(cfa: CfaKind, cfa_offset: int = 0, rbp: RbpKind = RbpKind.SAME, rbp_offset: int = 0) -> bytes:
    """A row without its start."""
    return _BODY.pack(cfa | rbp << 4, rbp_offset, cfa_offset)


NONE_BODY = _body(CfaKind.NONE)
FRAME_POINTER_BODY = _body(CfaKind.RBP, 16, RbpKind.BELOW_CFA, _RETURN_ADDRESS_AND_RBP)
ROOT_BODY = _body(CfaKind.ROOT)
UNSUPPORTED_BODY = _body(CfaKind.UNSUPPORTED)


def row_body(rules: Rules, is_signal_frame: bool) -> bytes:
    """A row without its start: kind, rbp_offset, cfa_offset."""
    if rules.return_address[0] == How.UNDEFINED:
        return ROOT_BODY
    if is_signal_frame and (place := _signal_place(rules)) is not None:
        return _body(CfaKind.SIGNAL, place)
    if rules.return_address != (How.OFFSET, -8, b""):
        return UNSUPPORTED_BODY
    kind, offset = _cfa(rules)
    if kind == CfaKind.UNSUPPORTED or not -_DISTANCE_MAX <= offset < _DISTANCE_MAX:
        return UNSUPPORTED_BODY
    return _body(kind, offset, *_rbp(rules.rbp))


def _cfa(rules: Rules) -> tuple[CfaKind, int]:
    if rules.cfa_expression is not None:
        return _cfa_of_expression(rules.cfa_expression)
    register, offset = rules.cfa_register, rules.cfa_offset
    kind = {RSP: CfaKind.RSP, RBP: CfaKind.RBP}.get(register)
    if kind is not None:
        return kind, offset
    other = _OTHER_REGISTERS.get(register)
    if other is not None:
        return CfaKind.REGISTER, offset << _REGISTER_SHIFT | other
    return CfaKind.UNSUPPORTED, 0


def _cfa_of_expression(expression: bytes) -> tuple[CfaKind, int]:
    """The few expressions that compilers, linkers and OpenSSL write."""
    if plt := _PLT.fullmatch(expression):
        return CfaKind.PLT, plt[1][0] - 0x30
    if indexed := _INDEXED.fullmatch(expression):
        return _cfa_indexed(indexed)
    match = _DEREFERENCED.fullmatch(expression)
    if not match:
        return CfaKind.UNSUPPORTED, 0
    of_rbp, place = match[1] == b"\x76", Reader(match[2], 0).sleb()
    addend = Reader(match[3], 0).uleb() if match[3] else 0
    if of_rbp and not addend:
        return CfaKind.RBP_DEREF, place
    if addend >= _PLACE_MAX or not -_PLACE_MAX <= place < _PLACE_MAX:
        return CfaKind.UNSUPPORTED, 0
    return CfaKind.RBP_DEREF_PLUS if of_rbp else CfaKind.RSP_DEREF_PLUS, addend << 16 | place & 0xFFFF


def _cfa_indexed(match: re.Match[bytes]) -> tuple[CfaKind, int]:
    place, addend = Reader(match[1], 0).sleb(), Reader(match[3], 0).uleb()
    if not 0 <= place < _INDEXED_PLACE_MAX or addend >= _PLACE_MAX:
        return CfaKind.UNSUPPORTED, 0
    return CfaKind.INDEXED, addend << 16 | place << _REGISTER_SHIFT | match[2][0] - 0x78


def _rbp(rule: Rule) -> tuple[RbpKind, int]:
    how, offset, expression = rule
    if how == How.SAME:
        return RbpKind.SAME, 0
    kind = RbpKind.AT_CFA
    if how == How.EXPRESSION:
        kind, place = RbpKind.AT_RBP, _place(expression, RBP)
        if place is None:
            kind, place = RbpKind.AT_RSP, _place(expression, RSP)
        if place is None:
            return RbpKind.UNKNOWN, 0
        offset = place
    words, rest = divmod(offset, 8)
    if how not in (How.OFFSET, How.EXPRESSION) or rest or not -_WORDS_MAX <= words < _WORDS_MAX:
        return RbpKind.UNKNOWN, 0
    if kind is RbpKind.AT_CFA and -_WORDS_MAX < words <= _RETURN_ADDRESS_AND_RBP:
        kind = RbpKind.BELOW_CFA
    return kind, words


def _place(expression: bytes, register: int) -> int | None:
    """The offset in an expression that is a register + offset."""
    match = _AT_REGISTER.fullmatch(expression)
    return Reader(match[2], 0).sleb() if match and match[1][0] == 0x70 + register else None


def _signal_place(rules: Rules) -> int | None:
    """Where a signal frame keeps the rsp of what it interrupted, from rsp on; None if it isn't Linux's layout."""
    match = _DEREFERENCED.fullmatch(rules.cfa_expression or b"")
    if not match or match[1] != b"\x77" or match[3]:
        return None
    place = Reader(match[2], 0).sleb()
    saved = (_place(rules.return_address[2], RSP), _place(rules.rbp[2], RSP))
    return place if saved == (place + _SIGNAL_RIP, place + _SIGNAL_RBP) else None
