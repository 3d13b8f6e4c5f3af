"""Keys of a terminal, read without waiting; at the end the terminal is in its old mode."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import select
import sys
import termios
import time
import tty
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

_SEQUENCES = {
    "[A": "up",
    "[B": "down",
    "[5~": "page up",
    "[6~": "page down",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
    "OA": "up",
    "OB": "down",
    "OH": "home",
    "OF": "end",
}
_CONTROLS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x15": "clear"}
_CONTROL_CHARACTERS = 6  # index in the result of tcgetattr
_INTRODUCERS = "[O"
_UNFINISHED = re.compile("\x1b(O|\\[[ -?]*)?\\Z")  # ECMA-48 5.4: parameters and intermediates, no final byte yet
_UNFINISHED_MAX = 32  # characters; keys send fewer
_REST_WITHIN = 0.1  # seconds; a sequence that goes on no sooner was the Escape key


def keys_in(text: str) -> list[str]:
    """Split a terminal's text into keys: printable characters, and names of other keys.  Unknown keys are left out."""
    keys = []
    while text:
        if text[0] == "\x1b":
            key, size = _sequence(text[1:])
        else:
            key, size = _CONTROLS.get(text[0], text[0] if text[0].isprintable() else ""), 0
        keys.append(key)
        text = text[1 + size :]
    return [key for key in keys if key]


def _sequence(text: str) -> tuple[str, int]:
    """Return the key after an escape character, and its length in characters."""
    if not text or text[0] not in _INTRODUCERS:
        return "escape", 0
    end = 1  # ECMA-48 5.4: parameters and intermediates up to a final byte from @ to ~
    while end < len(text) and not "@" <= text[end] <= "~":
        end += 1
    return _SEQUENCES.get(text[: end + 1], ""), min(end + 1, len(text))


class Keyboard(AbstractContextManager["Keyboard"]):
    """The terminal of standard input in cbreak mode: keys arrive at once, and are not shown.

    Ctrl-C still interrupts.  Ctrl-Z does not stop the program, which would go on counting unseen and lose samples.
    """

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._before: list[Any] = []
        self._unfinished = ""
        self._read_at = 0.0

    def __enter__(self) -> Keyboard:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        """Put the terminal into cbreak mode."""
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor, termios.TCSADRAIN)
        mode = termios.tcgetattr(self._descriptor)
        mode[_CONTROL_CHARACTERS][termios.VSUSP] = b"\0"
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the terminal's mode; unread keys are dropped."""
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, self._before)

    def pressed(self) -> list[str]:
        """Return the keys pressed since the last call.  Raises OSError once the terminal is gone.

        An unfinished sequence of a key is left to the next call, unless it is older than ``_REST_WITHIN``.
        """
        text, self._unfinished = self._unfinished + self._read(), ""
        unfinished = _UNFINISHED.search(text)
        may_go_on = time.monotonic() - self._read_at < _REST_WITHIN
        if unfinished and may_go_on and len(unfinished[0]) <= _UNFINISHED_MAX:
            text, self._unfinished = text[: unfinished.start()], unfinished[0]
        return keys_in(text)

    def _read(self) -> str:
        """Return the text that has come from the terminal, without waiting."""
        if not select.select([self._descriptor], [], [], 0)[0]:
            return ""
        data = os.read(self._descriptor, 4096)
        if not data:
            raise OSError(errno.EIO, "the terminal is gone")
        self._read_at = time.monotonic()
        return self._decode.decode(data)
