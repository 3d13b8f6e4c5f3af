"""Which share of the CPU the recording gets on a busy host."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

NICENESS = -10  # nine times the share of what computes; the recording needs little CPU itself
AUTOGROUP = Path("/proc/self/autogroup")  # sched(7)


@contextlib.contextmanager
def urgent(*, with_session: bool) -> Iterator[None]:
    """Give this process precedence, and take it back in the end.

    Without it, short-lived processes are met too late on a busy host, and records are lost.  Where the scheduler shares
    the CPU between sessions first (autogroups), a process's niceness counts only inside its session, so
    ``with_session`` raises the session's too.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    usual_of_session = _session_niceness() if with_session else None
    _set(min(usual, NICENESS), None if usual_of_session is None else min(usual_of_session, NICENESS))
    try:
        yield
    finally:
        _set(usual, usual_of_session)


def _session_niceness() -> int | None:
    """The niceness of this session's autogroup, None if the kernel has no autogroups."""
    try:
        found = re.search(r" nice (-?\d+)$", AUTOGROUP.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _set(own: int, session: int | None) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, own)
    if session is not None:
        with contextlib.suppress(OSError):
            AUTOGROUP.write_text(f"{session}\n", encoding="ascii")
