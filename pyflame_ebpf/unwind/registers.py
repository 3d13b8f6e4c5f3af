"""The registers of a frame, from which its caller is found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Registers:
    """The registers of one frame.

    ``exact``: ``ip`` is the instruction that was interrupted, not a return address.  ``callee_exact``: the same of the
    frame that this one called.  ``interrupted`` holds the other registers of the frame that was interrupted, in the
    order of the architecture's ``OtherRegister``.
    """

    ip: int
    sp: int
    bp: int
    interrupted: tuple[int, ...]
    exact: bool
    callee_exact: bool = False
