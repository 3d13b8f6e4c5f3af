"""What the user may choose about the content of the outputs."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = ("host", "interpreter", "command", "process", "thread")


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Shared by all writers; each takes the ones that mean something to it.

    ``lines`` puts the executing line into Python labels instead of the function's first line.  ``group_by`` says what
    stands above the frames, outermost first, some of GROUPS.  ``kernel`` False leaves kernel frames out, ``native``
    False those of libraries and the interpreter, ``python_only`` both, though never the samples.  ``all_frames`` shows
    the native frames that only carry calls of the interpreter.
    """

    lines: bool = False
    group_by: tuple[str, ...] = ("process",)
    kernel: bool = True
    native: bool = True
    python_only: bool = False
    all_frames: bool = False


DEFAULT_OPTIONS = OutputOptions()
