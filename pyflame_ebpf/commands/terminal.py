"""What commands say on standard error: the progress line, notes and warnings."""

from __future__ import annotations

import contextlib
import os
import sys

from pyflame_ebpf.labels import visible
from pyflame_ebpf.recording import Progress

_YELLOW, _RED, _DIM, _PLAIN = "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
_COLUMNS = 80  # where a terminal does not know its own
_CLEAR_LINE = "\r\x1b[K"


def coloured() -> bool:
    """Whether standard error is a terminal that wants colours (https://no-color.org)."""
    return sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def say(text: str, label: str = "", colour: str = "") -> None:
    """Print a line on standard error, on which nothing but our own colours can act; a closed one is let be."""
    shown = "\n".join(visible(line) for line in text.split("\n"))
    if label:
        shown = f"{colour}{label}:{_PLAIN} {shown}" if coloured() and colour else f"{label}: {shown}"
    with contextlib.suppress(OSError, AttributeError):
        print(shown, file=sys.stderr, flush=True)  # noqa: T201 - the one place that does


def say_error(message: str, hint: str) -> None:
    """Print an error and what to do next."""
    say(message, "error", _RED)
    if hint:
        say(hint, "hint", _DIM)


def warn(text: str) -> None:
    """Print a warning."""
    say(text, "warning", _YELLOW)


def progress_text(progress: Progress) -> str:
    """Where a recording stands, on one line."""
    minutes, seconds = divmod(int(progress.elapsed), 60)
    return (
        f"{minutes}:{seconds:02}  samples {progress.samples:,}  "
        f"processes {progress.processes:,}, Python {progress.python_processes:,}  lost {progress.lost:,}"
    )


def _overwrite(text: str) -> None:
    sys.stderr.write(_CLEAR_LINE + text)
    sys.stderr.flush()


class ProgressLine:
    """One line on a terminal's standard error that is written over; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Write the line anew."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        with contextlib.suppress(OSError):
            width = os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
            _overwrite(progress_text(progress)[: max(width - 1, 1)])
            self._shown = True

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            with contextlib.suppress(OSError):
                _overwrite("")
            self._shown = False
