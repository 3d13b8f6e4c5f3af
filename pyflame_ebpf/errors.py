"""Every error that a user can meet: what failed, what to do next, and the exit code it ends with."""

from __future__ import annotations


class PyflameError(Exception):
    """An error to be shown as ``message`` and ``hint`` (what to do next); the command ends with ``exit_code``."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
