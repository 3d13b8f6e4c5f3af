"""What the user may choose about the content of the outputs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Shared by all writers; each takes the ones that mean something to it.

    ``lines`` puts the executing line into Python labels instead of the function's first line, ``threads`` a thread
    frame under the process frame; ``kernel`` False leaves kernel frames out, though never the samples.
    """

    lines: bool = False
    threads: bool = False
    kernel: bool = True


DEFAULT_OPTIONS = OutputOptions()
