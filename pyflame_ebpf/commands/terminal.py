"""Messages of commands on standard error: notes, warnings and errors."""

from __future__ import annotations

import contextlib
import os
import sys

from pyflame_ebpf.profile.labels import visible

_YELLOW, _RED, _DIM, _PLAIN = "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


def coloured() -> bool:
    """True if standard error is a terminal that wants colours (https://no-color.org)."""
    return sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def say(text: str, label: str = "", colour: str = "") -> None:
    """Print a message on standard error, escaped but for our own colours; a closed standard error is ignored."""
    if sys.stderr is None:  # to print(), that would mean standard output
        return
    shown = "\n".join(visible(line) for line in text.split("\n"))
    if label:
        shown = f"{colour}{label}:{_PLAIN} {shown}" if coloured() and colour else f"{label}: {shown}"
    with contextlib.suppress(OSError):
        print(shown, file=sys.stderr, flush=True)  # noqa: T201 - the one place that does


def say_waiting(holder: str) -> None:
    """Say whose recording is waited for."""
    say(f"waiting for another recording to end: {holder}; Ctrl-C gives up")


def say_error(message: str, hint: str) -> None:
    """Print an error, and a hint on what to do next."""
    say(message, "error", _RED)
    if hint:
        say(hint, "hint", _DIM)


def warn(text: str) -> None:
    """Print a warning."""
    say(text, "warning", _YELLOW)
