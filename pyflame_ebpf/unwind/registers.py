"""The registers of a frame whose caller is to be found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Registers:
    """Those of a frame whose caller is to be found.

    ``exact`` tells that ``ip`` is the instruction that was interrupted, not a return address, ``callee_exact`` the same
    of the frame that this one called.  ``interrupted`` holds the other registers of the frame that was interrupted, by
    ``row.OtherRegister``.
    """

    ip: int
    sp: int
    bp: int
    interrupted: tuple[int, ...]
    exact: bool
    callee_exact: bool = False
