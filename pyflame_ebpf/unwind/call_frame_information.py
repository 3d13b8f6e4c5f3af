"""Call frame instructions of .eh_frame: the rules for the CFA, rbp and the return address they make; x86-64.

The bytes come from files that anybody may have written: whatever cannot be decoded ends in BadElf, and an entry takes
time in proportion to its size, which the caller bounds.  Registers other than rbp and the return address are skipped.

Sources: DWARF 5, 6.4 (call frame instructions) and 7.24 (their encoding); libgcc's unwind-dw2.c for the GNU opcodes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from pyflame_ebpf.elf.image import BadElf
from pyflame_ebpf.unwind.dwarf_numbers import Reader

RBP, RSP, RETURN_ADDRESS = 6, 7, 16  # DWARF's numbers on x86-64 (psABI, figure 3.36)
NO_REGISTER = -1

_SAVED_STATES_MAX = 64  # compilers nest one or two


class How(IntEnum):
    """How a register of the caller is found."""

    SAME = 0  # it was not changed, or nothing is said
    OFFSET = 1  # at CFA + value
    EXPRESSION = 2  # at the address that an expression computes
    UNDEFINED = 3  # lost; for the return address: there is no caller
    OTHER = 4  # it is a value, or in another register


Rule = tuple[How, int, bytes]  # how, offset in bytes, expression

_SAME: Rule = (How.SAME, 0, b"")
_UNDEFINED: Rule = (How.UNDEFINED, 0, b"")
_OTHER: Rule = (How.OTHER, 0, b"")


class Rules(NamedTuple):
    """All that holds from one address on: the CFA is an expression, or without one a register + offset."""

    cfa_register: int
    cfa_offset: int
    cfa_expression: bytes | None
    rbp: Rule
    return_address: Rule


NOTHING_SAID = Rules(NO_REGISTER, 0, None, _SAME, _SAME)


class CommonEntry(NamedTuple):
    """What a CIE says for its FDEs."""

    code_alignment: int
    data_alignment: int
    return_register: int
    pointer_encoding: int
    augmented: bool  # FDEs carry a length of augmentation data
    is_signal_frame: bool
    initial: Rules


class Machine(Reader):
    """Runs call frame instructions and notes the rules of each address it passes."""

    __slots__ = ("cfa", "common", "found", "location", "rbp", "return_address", "saved", "wanted_from")

    def __init__(self, data: bytes, vaddr: int, position: int, common: CommonEntry) -> None:
        super().__init__(data, vaddr, position)
        self.common = common
        self.cfa = common.initial[:3]
        self.rbp = common.initial.rbp
        self.return_address = common.initial.return_address
        self.saved: list[tuple[tuple[int, int, bytes | None], Rule, Rule]] = []
        self.found: list[tuple[int, Rules]] = []
        self.location = 0
        self.wanted_from = 0

    def run(self, stop: int) -> None:
        """Run all instructions, or those before address ``stop``."""
        data, end = self.data, len(self.data)
        while self.position < end and self.location < stop:
            opcode = data[self.position]
            self.position += 1
            _OPERATIONS[opcode](self, opcode)

    @property
    def rules(self) -> Rules:
        """What holds now."""
        return Rules(*self.cfa, self.rbp, self.return_address)

    def go_to(self, location: int) -> None:
        """Advance; what held up to here is noted if any of it was asked for."""
        if location < self.location:
            raise BadElf("addresses in .eh_frame go backwards")
        if location > self.wanted_from and location > self.location:
            self.found.append((self.location, self.rules))
        self.location = location

    def set_rule(self, register: int, rule: Rule) -> None:
        """Set the rule of a register, if it is one that matters."""
        if register == RBP:
            self.rbp = rule
        elif register == RETURN_ADDRESS:
            self.return_address = rule

    def set_offset(self, register: int, factored: int) -> None:
        """Set that a register is saved at a distance from the CFA."""
        if register in (RBP, RETURN_ADDRESS):
            self.set_rule(register, (How.OFFSET, factored * self.common.data_alignment, b""))

    def restore(self, register: int) -> None:
        """Go back to the CIE's rule for a register."""
        if register == RBP:
            self.rbp = self.common.initial.rbp
        elif register == RETURN_ADDRESS:
            self.return_address = self.common.initial.return_address

    def set_cfa_offset(self, offset: int) -> None:
        """Change the offset alone; an expression stays in force, as in libgcc."""
        self.cfa = (self.cfa[0], offset, self.cfa[2])

    def set_cfa_register(self, register: int) -> None:
        """Change the register alone; the last offset counts, as in libgcc."""
        self.cfa = (register, self.cfa[1], None)

    def remember(self) -> None:
        """Save all rules."""
        if len(self.saved) == _SAVED_STATES_MAX:
            raise BadElf("too many states are remembered in .eh_frame")
        self.saved.append((self.cfa, self.rbp, self.return_address))

    def recall(self) -> None:
        """Take back the rules that were saved last, the CFA's too."""
        if not self.saved:
            raise BadElf("a state is restored in .eh_frame that was never remembered")
        self.cfa, self.rbp, self.return_address = self.saved.pop()


_Operation = Callable[[Machine, int], None]
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")


def _advance(machine: Machine, factored: int) -> None:
    machine.go_to(machine.location + factored * machine.common.code_alignment)


def _offset(machine: Machine, opcode: int) -> None:
    machine.set_offset(opcode & 63, machine.uleb())


def _set_cfa(machine: Machine, register: int, offset: int) -> None:
    machine.cfa = (register, offset, None)


def _set_cfa_expression(machine: Machine, _: int) -> None:
    machine.cfa = (machine.cfa[0], machine.cfa[1], machine.block())


def _set_expression(machine: Machine, _: int) -> None:
    machine.set_rule(machine.uleb(), (How.EXPRESSION, 0, machine.block()))


def _set_value_expression(machine: Machine, _: int) -> None:
    machine.set_rule(machine.uleb(), _OTHER)
    machine.block()


def _set_other(machine: Machine, _: int) -> None:
    machine.set_rule(machine.uleb(), _OTHER)
    machine.uleb()  # an unsigned and a signed number take the same bytes


def _skip(machine: Machine, _: int) -> None:
    machine.uleb()


def _unknown(_: Machine, opcode: int) -> None:
    raise BadElf(f"unknown instruction {opcode:#x} in .eh_frame")


_EXTENDED: dict[int, _Operation] = {
    0x00: lambda _machine, _opcode: None,  # DW_CFA_nop
    0x01: lambda machine, _: machine.go_to(machine.pointer(machine.common.pointer_encoding)),  # DW_CFA_set_loc
    0x02: lambda machine, _: _advance(machine, machine.byte()),  # DW_CFA_advance_loc1
    0x03: lambda machine, _: _advance(machine, machine.fixed(_U16)),  # DW_CFA_advance_loc2
    0x04: lambda machine, _: _advance(machine, machine.fixed(_U32)),  # DW_CFA_advance_loc4
    0x05: lambda machine, _: machine.set_offset(machine.uleb(), machine.uleb()),  # DW_CFA_offset_extended
    0x06: lambda machine, _: machine.restore(machine.uleb()),  # DW_CFA_restore_extended
    0x07: lambda machine, _: machine.set_rule(machine.uleb(), _UNDEFINED),  # DW_CFA_undefined
    0x08: lambda machine, _: machine.set_rule(machine.uleb(), _SAME),  # DW_CFA_same_value
    0x09: _set_other,  # DW_CFA_register
    0x0A: lambda machine, _: machine.remember(),  # DW_CFA_remember_state
    0x0B: lambda machine, _: machine.recall(),  # DW_CFA_restore_state
    0x0C: lambda machine, _: _set_cfa(machine, machine.uleb(), machine.uleb()),  # DW_CFA_def_cfa
    0x0D: lambda machine, _: machine.set_cfa_register(machine.uleb()),  # DW_CFA_def_cfa_register
    0x0E: lambda machine, _: machine.set_cfa_offset(machine.uleb()),  # DW_CFA_def_cfa_offset
    0x0F: _set_cfa_expression,  # DW_CFA_def_cfa_expression
    0x10: _set_expression,  # DW_CFA_expression
    0x11: lambda machine, _: machine.set_offset(machine.uleb(), machine.sleb()),  # DW_CFA_offset_extended_sf
    0x12: lambda machine, _: _set_cfa(  # DW_CFA_def_cfa_sf
        machine, machine.uleb(), machine.sleb() * machine.common.data_alignment
    ),
    0x13: lambda machine, _: machine.set_cfa_offset(  # DW_CFA_def_cfa_offset_sf
        machine.sleb() * machine.common.data_alignment
    ),
    0x14: _set_other,  # DW_CFA_val_offset
    0x15: _set_other,  # DW_CFA_val_offset_sf
    0x16: _set_value_expression,  # DW_CFA_val_expression
    0x1D: lambda machine, _: _advance(machine, machine.fixed(_U64)),  # DW_CFA_MIPS_advance_loc8
    0x2E: _skip,  # DW_CFA_GNU_args_size: of no interest when nothing is caught
    0x2F: lambda machine, _: machine.set_offset(machine.uleb(), -machine.uleb()),  # DW_CFA_GNU_negative_offset_extended
}


def _operation(opcode: int) -> _Operation:
    """The high two bits alone say what the instruction is, or the low six do."""
    if opcode >> 6 == 1:  # DW_CFA_advance_loc
        return lambda machine, opcode: _advance(machine, opcode & 63)
    if opcode >> 6 == 2:  # DW_CFA_offset  # noqa: PLR2004
        return _offset if opcode & 63 in (RBP, RETURN_ADDRESS) else _skip
    if opcode >> 6:  # DW_CFA_restore
        return lambda machine, opcode: machine.restore(opcode & 63)
    return _EXTENDED.get(opcode, _unknown)


_OPERATIONS = tuple(_operation(opcode) for opcode in range(256))
