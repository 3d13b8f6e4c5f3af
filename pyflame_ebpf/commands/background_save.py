"""Saving a recording while it goes on: a forked copy of this process names and writes what was sampled."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyflame_ebpf.commands.defect_report import EXIT_CODE as DEFECT
from pyflame_ebpf.commands.defect_report import save_defect_report
from pyflame_ebpf.commands.stop_signals import STOPPING
from pyflame_ebpf.commands.written_outputs import View, write_recorded
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.output_directory import OutputDirectory, write_error
from pyflame_ebpf.profile.model import Profile

_SAID_MAX = select.PIPE_BUF  # bytes; a pipe delivers no more in one piece


@dataclass(frozen=True, slots=True)
class SaveOutcome:
    """The message of a saving that has ended, and its error if it failed."""

    message: str
    failure: PyflameError | None = None


def _failed(failure: PyflameError) -> SaveOutcome:
    return SaveOutcome(failure.message, failure)


class BackgroundSave:
    """A recording that is being written to a new directory.  Raises OutputExists, OutputUnwritable, DiskFull.

    ``profile`` is called in the copy, which shares only open files with this process.
    """

    def __init__(self, path: Path, profile: Callable[[], Profile]) -> None:
        with contextlib.ExitStack() as undo:
            self._directory = undo.enter_context(OutputDirectory(path))
            try:
                self._reader, writer = os.pipe()
                with os.fdopen(writer, "wb"):
                    undo.callback(os.close, self._reader)
                    self._pid = os.fork()
                    if not self._pid:
                        _write_and_exit(self._directory, profile, writer)
            except OSError as error:  # no room for another process, or no more open files
                raise write_error(str(path), error) from error
            undo.pop_all()

    @property
    def path(self) -> Path:
        """The directory of the outputs."""
        return self._directory.path

    def outcome(self, timeout: float | None = 0.0) -> SaveOutcome | None:
        """Wait ``timeout`` seconds, None until the end.  Returns the outcome; None while the saving goes on."""
        readable = select.poll()  # select() takes no descriptor from 1024 on, and a recording has many files open
        readable.register(self._reader, select.POLLIN)
        if not readable.poll(None if timeout is None else timeout * 1000):
            return None
        said = os.read(self._reader, _SAID_MAX)
        os.close(self._reader)
        os.waitpid(self._pid, 0)
        self._directory.close()
        return _heard(said) if said else _failed(PyflameError(f"saving to {self.path} was broken off"))


def _write_and_exit(directory: OutputDirectory, profile: Callable[[], Profile], writer: int) -> None:
    """Write, send the outcome, and end the copy without the cleaning-up that it inherited."""
    try:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # Ctrl-C ends the view, not what it was asked to save
        _leave_terminal()
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        os.write(writer, _told(_write(directory, profile)))
    finally:
        os._exit(0)


def _leave_terminal() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)


def _write(directory: OutputDirectory, profile: Callable[[], Profile]) -> SaveOutcome:
    try:
        failure = write_recorded(directory, profile(), View()).failure
    except Exception as error:  # noqa: BLE001 - no traceback reaches the screen
        failure = error
    if failure is None:
        return SaveOutcome(f"saved in {directory.path}")
    return _failed(failure if isinstance(failure, PyflameError) else _defect(failure))


def _defect(error: Exception) -> PyflameError:
    report = save_defect_report(error)
    failure = PyflameError(f"a defect in pyflame-ebpf: {type(error).__name__}: {error}; its report is {report}")
    failure.exit_code = DEFECT
    return failure


def _told(outcome: SaveOutcome) -> bytes:
    """Pack an outcome for the process that shows it: exit code, hint and message, cut to ``_SAID_MAX`` bytes."""
    failure = outcome.failure
    code, hint = (failure.exit_code, failure.hint) if failure else (0, "")
    return "\0".join((str(code), hint, outcome.message)).encode(errors="replace")[:_SAID_MAX]


def _heard(said: bytes) -> SaveOutcome:
    code, hint, message = said.decode(errors="replace").split("\0", 2)
    if code == "0":
        return SaveOutcome(message)
    failure = PyflameError(message, hint)
    failure.exit_code = int(code)
    return _failed(failure)
