"""Runs the call frame instructions of .eh_frame, which make the rules of each address.

The bytes come from files that anybody may have written.  Whatever cannot be decoded raises BadElf, and an entry takes
time in proportion to its size, which the caller bounds.  Rules of registers other than the frame pointer and the return
address are read and forgotten.

Sources: DWARF 5, 6.4 (call frame instructions) and 7.24 (their encoding); libgcc's unwind-dw2.c for the GNU opcodes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from pyflame_ebpf.elf.image import BadElf
from pyflame_ebpf.unwind.architecture import FRAME_POINTER, RETURN_ADDRESS
from pyflame_ebpf.unwind.dwarf_numbers import Reader
from pyflame_ebpf.unwind.rules import OTHER, SAME, UNDEFINED, How, Rule, Rules

_SAVED_STATES_MAX = 64  # compilers nest one or two
_EXPRESSION_KEPT = 64  # bytes; a longer expression is none of those that are understood, which take 20 at the most
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_OPERAND = 0x3F  # the low six bits of an opcode whose high two bits say what it is


class CommonEntry(NamedTuple):
    """What a CIE says for its FDEs."""

    code_alignment: int
    data_alignment: int
    return_register: int  # DWARF's number
    pointer_encoding: int  # DW_EH_PE_* of the FDEs' addresses
    augmented: bool  # FDEs carry a length of augmentation data
    is_signal_frame: bool
    initial: Rules


class Machine(Reader):
    """Runs call frame instructions and collects the rules of each address that it passes.

    ``found`` holds (address, rules from there on) for the addresses from ``wanted_from`` on; the first address may lie
    before it.
    """

    __slots__ = ("cfa", "common", "found", "frame_pointer", "location", "return_address", "saved", "wanted_from")

    def __init__(self, data: bytes, vaddr: int, position: int, common: CommonEntry) -> None:
        super().__init__(data, vaddr, position)
        self.common = common
        self.cfa, self.frame_pointer, self.return_address = common.initial
        self.saved: list[Rules] = []
        self.found: list[tuple[int, Rules]] = []
        self.location = 0
        self.wanted_from = 0

    def run(self, stop: int) -> None:
        """Run the instructions for addresses before ``stop``.

        Raises BadElf, or IndexError or struct.error for an instruction that is cut short.
        """
        data, end, operations = self.data, len(self.data), _OPERATIONS
        while self.position < end and self.location < stop:
            opcode = data[self.position]
            self.position += 1
            operations[opcode](self, opcode)

    @property
    def rules(self) -> Rules:
        """The rules that hold at ``location``."""
        return self.cfa, self.frame_pointer, self.return_address

    def go_to(self, location: int) -> None:
        """Move to an address, and note the rules that held up to it.  Raises BadElf for an earlier address."""
        before = self.location
        if location > before:
            if location > self.wanted_from:
                self.found.append((before, (self.cfa, self.frame_pointer, self.return_address)))
            self.location = location
        elif location < before:
            raise BadElf("addresses in .eh_frame go backwards")

    def advance(self, factored: int) -> None:
        """Move on by a distance in units of the code alignment."""
        self.go_to(self.location + factored * self.common.code_alignment)

    def set_rule(self, register: int, rule: Rule) -> None:
        """Set the rule of a register, if it is one of the two that matter."""
        if register == FRAME_POINTER:
            self.frame_pointer = rule
        elif register == RETURN_ADDRESS:
            self.return_address = rule

    def set_offset(self, register: int, factored: int) -> None:
        """Let a register be saved at a distance from the CFA, in units of the data alignment."""
        self.set_rule(register, (How.OFFSET, factored * self.common.data_alignment, b""))

    def restore(self, register: int) -> None:
        """Go back to the CIE's rule of a register."""
        _, frame_pointer, return_address = self.common.initial
        self.set_rule(register, frame_pointer if register == FRAME_POINTER else return_address)

    def remember(self) -> None:
        """Save all rules.  Raises BadElf when too many are saved."""
        if len(self.saved) == _SAVED_STATES_MAX:
            raise BadElf("too many states are remembered in .eh_frame")
        self.saved.append(self.rules)

    def recall(self) -> None:
        """Take back the rules that were saved last, the CFA's too.  Raises BadElf when none are saved."""
        if not self.saved:
            raise BadElf("a state is restored in .eh_frame that was never remembered")
        self.cfa, self.frame_pointer, self.return_address = self.saved.pop()


_Operation = Callable[[Machine, int], None]


def _advance(machine: Machine, opcode: int) -> None:
    machine.go_to(machine.location + (opcode & _OPERAND) * machine.common.code_alignment)


def _offset(machine: Machine, opcode: int) -> None:
    machine.set_offset(opcode & _OPERAND, machine.uleb())


def _restore(machine: Machine, opcode: int) -> None:
    machine.restore(opcode & _OPERAND)


def _set_cfa(machine: Machine, register: int, offset: int) -> None:
    machine.cfa = (register, offset, None)


def _set_cfa_register(machine: Machine, _: int) -> None:
    machine.cfa = (machine.uleb(), machine.cfa[1], None)  # the last offset counts, as in libgcc


def _set_cfa_offset(machine: Machine, _: int) -> None:
    register, _, expression = machine.cfa  # an expression stays in force, as in libgcc
    machine.cfa = (register, machine.uleb(), expression)


def _set_cfa_offset_signed(machine: Machine, _: int) -> None:
    register, _, expression = machine.cfa
    machine.cfa = (register, machine.sleb() * machine.common.data_alignment, expression)


def _set_cfa_expression(machine: Machine, _: int) -> None:
    machine.cfa = (machine.cfa[0], machine.cfa[1], machine.block()[:_EXPRESSION_KEPT])


def _set_expression(machine: Machine, _: int) -> None:
    machine.set_rule(machine.uleb(), (How.EXPRESSION, 0, machine.block()[:_EXPRESSION_KEPT]))


def _set_value_expression(machine: Machine, _: int) -> None:
    machine.set_rule(machine.uleb(), OTHER)
    machine.block()


def _set_other(machine: Machine, _: int) -> None:
    machine.set_rule(machine.uleb(), OTHER)
    machine.uleb()  # an unsigned and a signed number take the same bytes


def _skip(machine: Machine, _: int) -> None:
    machine.uleb()


def _unknown(_: Machine, opcode: int) -> None:
    raise BadElf(f"unknown instruction {opcode:#x} in .eh_frame")


_EXTENDED: dict[int, _Operation] = {
    0x00: lambda _machine, _: None,  # DW_CFA_nop
    0x01: lambda machine, _: machine.go_to(machine.pointer(machine.common.pointer_encoding)),  # DW_CFA_set_loc
    0x02: lambda machine, _: machine.advance(machine.byte()),  # DW_CFA_advance_loc1
    0x03: lambda machine, _: machine.advance(machine.fixed(_U16)),  # DW_CFA_advance_loc2
    0x04: lambda machine, _: machine.advance(machine.fixed(_U32)),  # DW_CFA_advance_loc4
    0x05: lambda machine, _: machine.set_offset(machine.uleb(), machine.uleb()),  # DW_CFA_offset_extended
    0x06: lambda machine, _: machine.restore(machine.uleb()),  # DW_CFA_restore_extended
    0x07: lambda machine, _: machine.set_rule(machine.uleb(), UNDEFINED),  # DW_CFA_undefined
    0x08: lambda machine, _: machine.set_rule(machine.uleb(), SAME),  # DW_CFA_same_value
    0x09: _set_other,  # DW_CFA_register
    0x0A: lambda machine, _: machine.remember(),  # DW_CFA_remember_state
    0x0B: lambda machine, _: machine.recall(),  # DW_CFA_restore_state
    0x0C: lambda machine, _: _set_cfa(machine, machine.uleb(), machine.uleb()),  # DW_CFA_def_cfa
    0x0D: _set_cfa_register,  # DW_CFA_def_cfa_register
    0x0E: _set_cfa_offset,  # DW_CFA_def_cfa_offset
    0x0F: _set_cfa_expression,  # DW_CFA_def_cfa_expression
    0x10: _set_expression,  # DW_CFA_expression
    0x11: lambda machine, _: machine.set_offset(machine.uleb(), machine.sleb()),  # DW_CFA_offset_extended_sf
    0x12: lambda machine, _: _set_cfa(  # DW_CFA_def_cfa_sf
        machine, machine.uleb(), machine.sleb() * machine.common.data_alignment
    ),
    0x13: _set_cfa_offset_signed,  # DW_CFA_def_cfa_offset_sf
    0x14: _set_other,  # DW_CFA_val_offset
    0x15: _set_other,  # DW_CFA_val_offset_sf
    0x16: _set_value_expression,  # DW_CFA_val_expression
    0x1D: lambda machine, _: machine.advance(machine.fixed(_U64)),  # DW_CFA_MIPS_advance_loc8
    0x2E: _skip,  # DW_CFA_GNU_args_size: of no interest when nothing is caught
    0x2F: lambda machine, _: machine.set_offset(machine.uleb(), -machine.uleb()),  # DW_CFA_GNU_negative_offset_extended
}


def _operation(opcode: int) -> _Operation:
    """What an opcode does: its high two bits alone say so, or where they are 0 its low six."""
    if opcode >> 6 == 1:  # DW_CFA_advance_loc
        return _advance
    if opcode >> 6 == 2:  # DW_CFA_offset  # noqa: PLR2004
        return _offset if opcode & _OPERAND in (FRAME_POINTER, RETURN_ADDRESS) else _skip
    if opcode >> 6:  # DW_CFA_restore
        return _restore
    return _EXTENDED.get(opcode, _unknown)


_OPERATIONS = tuple(_operation(opcode) for opcode in range(256))
