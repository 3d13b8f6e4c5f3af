"""A terminal that a test types into and looks at: a window of a tmux server of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Sequence

from tests.command_line import environment

TIMEOUT = 60.0  # seconds; a stuck program, not a slow machine, takes longer
LOOK = 0.1  # seconds between two looks


class Terminal:
    """A shell in a window of ``columns`` by ``lines``; ended at the end of the ``with``."""

    def __init__(self, columns: int = 120, lines: int = 40) -> None:
        self._server = f"pyflame-test-{uuid.uuid4().hex[:12]}"
        # It ends with the tests, however they do: a top that stayed would keep this host from being recorded.
        in_foreground = ["setpriv", "--pdeathsig", "KILL", "tmux", "-D", "-L", self._server, "-f", os.devnull]
        self._process = subprocess.Popen(in_foreground, env=environment())
        try:
            self._wait_for_server()
            self._tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), "env PS1='$ ' sh")
            self._tmux("set-option", "-g", "window-size", "manual")
            self.wait_for(r"^\$")
        except BaseException:
            self.close()
            raise

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        asked = ["tmux", "-N", "-L", self._server, "list-sessions"]
        while b"no server" in (said := subprocess.run(asked, capture_output=True, check=False).stderr) or (
            b"error connecting" in said
        ):
            assert time.monotonic() < deadline, said
            time.sleep(LOOK)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._server, *arguments]
        run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=True)
        return run.stdout

    def run(self, command: Sequence[str]) -> None:
        """Type a command and Enter."""
        self.type(shlex.join(command))
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names of them."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type characters."""
        self._tmux("send-keys", "-l", text)

    def resize(self, columns: int, lines: int) -> None:
        """Make the window as large as this."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    @property
    def pid(self) -> int:
        """The shell's PID."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def screen(self) -> str:
        """What is on the screen."""
        return self._tmux("capture-pane", "-p")

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> str:
        """The screen once it matches; fails with what it shows instead."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, screen := self.screen(), re.MULTILINE):
            assert time.monotonic() < deadline, f"never showed {pattern!r}:\n{screen}"
            time.sleep(LOOK)
        return screen

    def __enter__(self) -> Terminal:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def close(self) -> None:
        """End the shell and what runs in it."""
        subprocess.run(["tmux", "-L", self._server, "kill-server"], capture_output=True, timeout=TIMEOUT, check=False)
        self._process.wait(TIMEOUT)

    def __exit__(self, *_: object) -> None:
        self.close()
