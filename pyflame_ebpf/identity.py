"""What tells one run of one program from every other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """One run of one program: a PID that is used again, or that executes another program, is another identity.

    ``start`` is the process's start in nanoseconds since the host started, ``tgid`` its PID in the root namespace,
    ``exec_id`` counts its calls of execve.
    """

    start: int
    tgid: int
    exec_id: int
