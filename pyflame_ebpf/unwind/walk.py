"""The walk through native frames in user space, for stacks that the BPF programs could not walk to their root.

The same steps by the same rows as in ``bpf/native_stack.h``, on a copy of the stack's memory.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.unwind.architecture import (
    OTHER_REGISTERS,
    PLT_ENTRY_SIZE,
    RETURN_ADDRESS_PLACE,
    SCRATCH_REGISTERS,
    interrupted,
)
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import CfaKind, RbpKind, UnwindRow

FRAMES_MAX = 8704  # as PF_MAX_NATIVE_FRAMES
_ADDRESSES = (1 << 64) - 1
_WORD = 8
_REGISTER_BITS = 4
_SIGNALS_MAX = 16  # frames of signal handlers: behind each the stack may begin anew, so also in a circle

RowAt = Callable[[int], UnwindRow | None]
"""The row that holds at an address; None for code without unwind data.  Raises WalkStopped where no code is known."""

NativeFrame = tuple[int, int]  # address, where the frame ends (CFA)


class WalkStopped(Exception):
    """The walk ended before the root, with this outcome."""

    def __init__(self, outcome: NativeOutcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class StackMemory:
    """A copy of a stack's memory from address ``start`` on."""

    start: int
    data: bytes

    def word(self, address: int) -> int:
        """The 8 bytes at an address.  Raises WalkStopped where they were not copied."""
        offset = (address & _ADDRESSES) - self.start
        if not 0 <= offset <= len(self.data) - _WORD:
            raise WalkStopped(NativeOutcome.UNREADABLE)
        return int.from_bytes(self.data[offset : offset + _WORD], "little")


def walk(registers: Registers, memory: StackMemory, row_at: RowAt) -> tuple[list[NativeFrame], NativeOutcome]:
    """The frames from the one with these registers outwards, and how the walk ended."""
    frames: list[NativeFrame] = []
    at: Registers | None = registers
    signals = 0
    try:
        while at is not None:
            signals += at.exact
            if len(frames) >= FRAMES_MAX or signals > _SIGNALS_MAX:
                return frames, NativeOutcome.TOO_DEEP
            address = at.ip if at.exact else at.ip - 1
            frames.append((address, 0))  # until its end is known
            caller = _caller(at, row_at(address), memory)
            frames[-1] = address, caller.sp if caller else at.sp
            at = caller if caller and caller.ip else None
    except WalkStopped as stopped:
        return frames, stopped.outcome
    return frames, NativeOutcome.COMPLETE


def _caller(at: Registers, row: UnwindRow | None, memory: StackMemory) -> Registers | None:
    """The caller's registers; None at an explicit root, ``ip`` 0 where the return address is zero.

    Raises WalkStopped.
    """
    if row is None or row.cfa is CfaKind.NONE:
        return _by_frame_pointer(at, memory)
    if row.cfa is CfaKind.ROOT:
        return None
    if row.cfa is CfaKind.SIGNAL:
        return _interrupted(at, row, memory)
    cfa = _cfa(at, row, memory)
    return _at_end(at, cfa, memory.word(cfa + RETURN_ADDRESS_PLACE), _rbp(at, cfa, row, memory))


def _at_most(a: int, b: int) -> bool:
    """True when a <= b, as pf_at_most finds it: by the sign of their difference, so that -16 is below 0."""
    return (a - b - 1) & _ADDRESSES > _ADDRESSES >> 1


def _no_end(at: Registers, cfa: int) -> bool:
    """True when a frame cannot end at ``cfa``: not above the stack pointer, or not at a whole word."""
    return _at_most(cfa, at.sp) or cfa % _WORD != 0


def _no_return(ip: int) -> bool:
    """True when a return address is not one of user space; 0 is the root's."""
    return ip != 0 and _at_most(ip, 0)


def _at_end(at: Registers, cfa: int, ip: int, bp: int) -> Registers:
    """The caller's registers, checked.  Raises WalkStopped."""
    if _no_end(at, cfa):
        raise WalkStopped(NativeOutcome.NOT_ADVANCING)
    if _no_return(ip):
        raise WalkStopped(NativeOutcome.UNREADABLE)
    return Registers(ip, cfa, bp, at.interrupted, exact=False, callee_exact=at.exact)


def _by_frame_pointer(at: Registers, memory: StackMemory) -> Registers:
    """The caller of code without unwind data, by the frame record that the frame pointer leads to."""
    cfa = at.bp + 2 * _WORD & _ADDRESSES
    if _no_end(at, cfa):
        raise WalkStopped(NativeOutcome.NO_UNWIND_DATA)
    bp, ip = memory.word(at.bp), memory.word(at.bp + _WORD)
    if _no_return(ip):
        raise WalkStopped(NativeOutcome.NO_UNWIND_DATA)
    return _at_end(at, cfa, ip, bp)


def _interrupted(at: Registers, row: UnwindRow, memory: StackMemory) -> Registers:
    """The registers that a signal interrupted; their stack may be another one, and lie lower."""
    ip, sp, bp, others = interrupted(memory.word, at.sp + row.cfa_offset)
    if not ip:
        raise WalkStopped(NativeOutcome.UNREADABLE)
    return Registers(ip, sp, bp, others, exact=True)


def _cfa(at: Registers, row: UnwindRow, memory: StackMemory) -> int:
    """Where a frame ends, not checked.  Raises WalkStopped."""
    kind, offset = row.cfa, row.cfa_offset
    if kind in (CfaKind.RSP, CfaKind.RBP):
        return (at.sp if kind is CfaKind.RSP else at.bp) + offset & _ADDRESSES
    if kind is CfaKind.PLT:
        return at.sp + _WORD + (_WORD if at.ip % PLT_ENTRY_SIZE >= offset else 0) & _ADDRESSES
    if kind is CfaKind.RBP_DEREF:
        return memory.word(at.bp + offset)
    if kind in (CfaKind.RSP_DEREF_PLUS, CfaKind.RBP_DEREF_PLUS):
        register = at.sp if kind is CfaKind.RSP_DEREF_PLUS else at.bp
        place = (offset & 0xFFFF ^ 0x8000) - 0x8000  # the low half is signed
        return memory.word(register + place) + (offset >> 16) & _ADDRESSES
    if kind is CfaKind.REGISTER:
        return _interrupted_register(at, offset) + (offset >> _REGISTER_BITS) & _ADDRESSES
    if kind is CfaKind.INDEXED:
        place = at.sp + _WORD * _interrupted_register(at, offset) + (offset >> _REGISTER_BITS & 0xFFF)
        return memory.word(place) + (offset >> 16) & _ADDRESSES
    raise WalkStopped(NativeOutcome.UNSUPPORTED)


def _interrupted_register(at: Registers, offset: int) -> int:
    """The register that a row names, if it still has its value of when the thread was interrupted.

    Raises WalkStopped if it has not.
    """
    register = offset % (1 << _REGISTER_BITS)
    if register < OTHER_REGISTERS and (at.exact or (at.callee_exact and register in SCRATCH_REGISTERS)):
        return at.interrupted[register]
    raise WalkStopped(NativeOutcome.UNSUPPORTED)


def _rbp(at: Registers, cfa: int, row: UnwindRow, memory: StackMemory) -> int:
    """The caller's frame pointer, 0 where it is not known.  Raises WalkStopped."""
    if row.rbp in (RbpKind.BELOW_CFA, RbpKind.AT_CFA):
        return memory.word(cfa + row.rbp_offset * _WORD)
    if row.rbp is RbpKind.AT_RBP:
        return memory.word(at.bp + row.rbp_offset * _WORD)
    if row.rbp is RbpKind.AT_RSP:
        return memory.word(at.sp + row.rbp_offset * _WORD)
    return at.bp if row.rbp is RbpKind.SAME else 0
