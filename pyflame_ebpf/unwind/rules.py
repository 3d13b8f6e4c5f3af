"""What call frame information says of one address: how the CFA and two of the caller's registers are found.

The CFA (canonical frame address) is where a frame ends: the stack pointer before the call.  Of the caller's registers
only the frame pointer and the return address matter; the stack pointer in the caller is the CFA.
"""

from __future__ import annotations

from enum import IntEnum

NO_REGISTER = -1


class How(IntEnum):
    """How a register of the caller is found."""

    SAME = 0  # it was not changed, or nothing is said about it
    OFFSET = 1  # in memory at CFA + offset
    EXPRESSION = 2  # in memory at the address that an expression computes
    UNDEFINED = 3  # lost; for the return address: there is no caller
    OTHER = 4  # it is a value, or in another register


Cfa = tuple[int, int, bytes | None]  # DWARF register, offset in bytes; or an expression, which then counts alone
Rule = tuple[How, int, bytes]  # how, offset in bytes, expression
Rules = tuple[Cfa, Rule, Rule]  # of the CFA, the caller's frame pointer, the return address

SAME: Rule = (How.SAME, 0, b"")
UNDEFINED: Rule = (How.UNDEFINED, 0, b"")
OTHER: Rule = (How.OTHER, 0, b"")
NOTHING_SAID: Rules = ((NO_REGISTER, 0, None), SAME, SAME)


def at_cfa(offset: int) -> Rule:
    """The rule of a register that is saved ``offset`` bytes from the CFA."""
    return How.OFFSET, offset, b""
