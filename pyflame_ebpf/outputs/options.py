"""The user's choices about the content of the outputs."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = ("host", "interpreter", "command", "process", "thread")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Options of all writers; each writer uses those that mean something to it.

    ``lines`` puts the executing line into Python labels instead of the function's first line.  ``group_by`` names what
    stands above the frames, outermost first, some of GROUPS.  Frames are hidden, and their samples kept: kernel frames
    if not ``kernel``, native frames if not ``native``, both if ``python_only``.  ``all_frames`` shows the native frames
    that only carry calls of the interpreter.
    """

    lines: bool = False
    group_by: tuple[str, ...] = ("process",)
    kernel: bool = True
    native: bool = True
    python_only: bool = False
    all_frames: bool = False


DEFAULT_OPTIONS = OutputOptions()
