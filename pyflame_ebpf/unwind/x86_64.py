"""x86-64's own: DWARF's register numbers, which rules a row can hold, signal frames, PLT entries, entry points.

Sources: System V ABI, AMD64 supplement, 3.4.1 (process start), figure 3.36 (DWARF register numbers), "lazy binding"
(PLT entries); <sys/ucontext.h> (gregs[]).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum

from pyflame_ebpf.unwind.dwarf_numbers import Reader
from pyflame_ebpf.unwind.row import ROOT_BODY, UNSUPPORTED_BODY, CfaKind, RbpKind, body
from pyflame_ebpf.unwind.rules import Cfa, How, Rule, Rules, at_cfa

ELF_MACHINE = 62  # EM_X86_64
RETURN_ADDRESS_PLACE = -8  # bytes from the CFA on: the call instruction pushes the return address
PLT_ENTRY_SIZE = 16  # bytes
ENTRY_POINT = re.compile(rb"\x31\xed|\x48\x89\xe7")  # xor %ebp,%ebp: there is no caller; mov %rsp,%rdi: arguments

_RAX, _RDX, _RCX, _RBX, _RSI, _RDI, _RBP, _RSP = range(8)
_R8_TO_R15 = range(8, 16)
FRAME_POINTER, RETURN_ADDRESS = _RBP, 16  # DWARF's numbers


class OtherRegister(IntEnum):
    """A register other than rsp that a REGISTER or INDEXED row can name, in the order of gregs[]."""

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


OTHER_REGISTERS = len(OtherRegister)
# Registers that no function saves: no unwind data says what they were in the caller, so their values now are taken.
SCRATCH_REGISTERS = frozenset(OtherRegister) - {
    OtherRegister.R12,
    OtherRegister.R13,
    OtherRegister.R14,
    OtherRegister.R15,
    OtherRegister.RBP,
    OtherRegister.RBX,
}
_OTHER_BY_NUMBER = {
    **{number: OtherRegister(number - 8) for number in _R8_TO_R15},
    _RDI: OtherRegister.RDI,
    _RSI: OtherRegister.RSI,
    _RBP: OtherRegister.RBP,
    _RBX: OtherRegister.RBX,
    _RDX: OtherRegister.RDX,
    _RAX: OtherRegister.RAX,
    _RCX: OtherRegister.RCX,
}

_DISTANCE_MAX = 1 << 31  # of a CFA from its register: an s32
_PLACE_MAX = 1 << 15  # of an offset that shares the s32 with another number
_INDEXED_PLACE_MAX = 1 << 12
_WORDS_MAX = 1 << 7  # of the frame pointer's place: an s8
_BELOW_CFA_LAST = -2  # words: above that lies the return address
_REGISTER_BITS = 4  # of an s32 that begins with a register
_SIGNAL_RIP, _SIGNAL_RBP = 8, -40  # bytes from the saved rsp in gregs[]

_BREG0, _OP_RBP, _OP_RSP = 0x70, b"\x76", b"\x77"  # DW_OP_breg0, breg6, breg7
# DW_OP_breg7 8; breg16 0; lit15; and; litN; ge; lit3; shl; plus: rsp + 8 + ((rip & 15) >= N) * 8
_PLT = re.compile(rb"\x77\x08\x80\x00\x3f\x1a([\x30-\x3f])\x2a\x33\x24\x22", re.DOTALL)
_SLEB = rb"([\x80-\xff]{0,4}[\x00-\x7f])"
_AT_REGISTER = re.compile(rb"([\x76\x77])" + _SLEB, re.DOTALL)  # DW_OP_breg6 or breg7
_INDEXED = re.compile(  # DW_OP_breg7, breg8 to breg15 0, lit8, mul, plus, deref, plus_uconst
    rb"\x77" + _SLEB + rb"([\x78-\x7f])\x00\x38\x1e\x22\x06\x23" + _SLEB, re.DOTALL
)
_DEREFERENCED = re.compile(  # DW_OP_breg6 or breg7, deref, perhaps plus_uconst
    rb"([\x76\x77])" + _SLEB + rb"\x06(?:\x23" + _SLEB + rb")?", re.DOTALL
)


def row_body(rules: Rules, is_signal_frame: bool) -> bytes:
    """The row that says what the rules say, without its start; UNSUPPORTED_BODY where no row can."""
    cfa, frame_pointer, return_address = rules
    if return_address[0] == How.UNDEFINED:
        return ROOT_BODY
    if is_signal_frame and (place := _signal_place(rules)) is not None:
        return body(CfaKind.SIGNAL, place)
    if return_address != at_cfa(RETURN_ADDRESS_PLACE):
        return UNSUPPORTED_BODY
    kind, offset = _cfa(cfa)
    if kind == CfaKind.UNSUPPORTED or not -_DISTANCE_MAX <= offset < _DISTANCE_MAX:
        return UNSUPPORTED_BODY
    return body(kind, offset, *_frame_pointer(frame_pointer))


def _cfa(cfa: Cfa) -> tuple[CfaKind, int]:
    """The kind of the CFA and its offset, which may be too large for a row."""
    register, offset, expression = cfa
    if expression is not None:
        return _cfa_of_expression(expression)
    if register == _RSP:
        return CfaKind.RSP, offset
    if register == _RBP:
        return CfaKind.RBP, offset
    other = _OTHER_BY_NUMBER.get(register)
    if other is None:
        return CfaKind.UNSUPPORTED, 0
    return CfaKind.REGISTER, offset << _REGISTER_BITS | other


def _cfa_of_expression(expression: bytes) -> tuple[CfaKind, int]:
    """The kind and offset of the few expressions that compilers, linkers and OpenSSL write."""
    if plt := _PLT.fullmatch(expression):
        return CfaKind.PLT, plt[1][0] - 0x30
    if indexed := _INDEXED.fullmatch(expression):
        return _cfa_indexed(indexed)
    match = _DEREFERENCED.fullmatch(expression)
    if not match:
        return CfaKind.UNSUPPORTED, 0
    of_rbp, place = match[1] == _OP_RBP, Reader(match[2], 0).sleb()
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
    return CfaKind.INDEXED, addend << 16 | place << _REGISTER_BITS | match[2][0] - (_BREG0 + 8)


def _frame_pointer(rule: Rule) -> tuple[RbpKind, int]:
    """The kind of rbp's place and its distance in words; UNKNOWN where no row can say it."""
    how, offset, expression = rule
    if how == How.SAME:
        return RbpKind.SAME, 0
    kind = RbpKind.AT_CFA
    if how == How.EXPRESSION:
        kind, place = RbpKind.AT_RBP, _place(expression, _RBP)
        if place is None:
            kind, place = RbpKind.AT_RSP, _place(expression, _RSP)
        if place is None:
            return RbpKind.UNKNOWN, 0
        offset = place
    words, rest = divmod(offset, 8)
    if how not in (How.OFFSET, How.EXPRESSION) or rest or not -_WORDS_MAX <= words < _WORDS_MAX:
        return RbpKind.UNKNOWN, 0
    if kind is RbpKind.AT_CFA and -_WORDS_MAX < words <= _BELOW_CFA_LAST:
        kind = RbpKind.BELOW_CFA
    return kind, words


def _place(expression: bytes, register: int) -> int | None:
    """The offset in an expression that is register + offset, None for any other expression."""
    match = _AT_REGISTER.fullmatch(expression)
    return Reader(match[2], 0).sleb() if match and match[1][0] == _BREG0 + register else None


def _signal_place(rules: Rules) -> int | None:
    """Where a signal frame keeps the rsp that it interrupted, in bytes from rsp on; None if it isn't Linux's layout."""
    (_, _, cfa_expression), frame_pointer, return_address = rules
    match = _DEREFERENCED.fullmatch(cfa_expression or b"")
    if not match or match[1] != _OP_RSP or match[3]:
        return None
    place = Reader(match[2], 0).sleb()
    saved = (_place(return_address[2], _RSP), _place(frame_pointer[2], _RSP))
    is_linux = saved == (place + _SIGNAL_RIP, place + _SIGNAL_RBP)
    return place if is_linux and -_DISTANCE_MAX <= place < _DISTANCE_MAX else None


def interrupted(word: Callable[[int], int], place: int) -> tuple[int, int, int, tuple[int, ...]]:
    """Read (rip, rsp, rbp, others by OtherRegister) of what a signal interrupted; its rsp is saved at ``place``.

    ``word`` reads 8 bytes at an address.
    """
    others = tuple(word(place - (OTHER_REGISTERS - register) * 8) for register in OtherRegister)
    return word(place + _SIGNAL_RIP), word(place), others[OtherRegister.RBP], others
