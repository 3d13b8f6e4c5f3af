"""The line on standard error that shows a recording's progress."""

from __future__ import annotations

import contextlib
import os
import sys

from pyflame_ebpf.recording.recorder import Progress

_COLUMNS = 80  # for a terminal that does not know its width
_CLEAR_LINE = "\r\x1b[K"


def progress_text(progress: Progress) -> str:
    """Format a recording's progress on one line."""
    minutes, seconds = divmod(int(progress.elapsed), 60)
    return (
        f"{minutes}:{seconds:02}  samples {progress.samples:,}  "
        f"processes {progress.processes:,}, Python {progress.python_processes:,}  lost {progress.lost:,}"
    )


def _overwrite(text: str) -> None:
    sys.stderr.write(_CLEAR_LINE + text)
    sys.stderr.flush()


class ProgressLine:
    """One line on standard error that is written over again and again; nothing unless that is a terminal."""

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
