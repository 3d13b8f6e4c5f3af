"""The targets of a recording: the whole host, running processes, or a program that is started."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Sequence
from typing import Protocol

from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.commands.terminal import say, warn
from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.interpreter import UnsupportedInterpreter, interpreter_of
from pyflame_ebpf.errors import Interrupted, PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.launch import HeldProgram
from pyflame_ebpf.host.process_directory import ProcessGone


class Targets(Protocol):
    """What is sampled: ``pids``, or all processes if there are none.

    ``text`` describes the targets for messages, ``ending`` says that they have ended.
    """

    pids: tuple[int, ...]
    text: str
    ending: str

    def sampling_began(self) -> None:
        """Do the work that had to wait for the first tick."""

    def have_ended(self) -> bool:
        """True if nothing is left to sample."""

    def recording_ended(self, signals: StopSignals) -> None:
        """Do the work that had to wait until the outputs are written."""


class WholeHost(contextlib.ExitStack):
    """Every process."""

    pids: tuple[int, ...] = ()
    text = "all processes"
    ending = ""

    def sampling_began(self) -> None:
        """Do nothing."""

    def have_ended(self) -> bool:
        """False: a host does not end."""
        return False

    def recording_ended(self, signals: StopSignals) -> None:
        """Do nothing."""


class RunningProcesses(contextlib.ExitStack):
    """Processes that run already.  Raises ProcessGone, ProcessDenied."""

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__()
        self.pids = tuple(dict.fromkeys(pids))
        self.text = f"process {self.pids[0]}" if len(self.pids) == 1 else f"{len(self.pids)} processes"
        self.ending = f"{self.text} ended"
        self._running = select.poll()
        self._left = 0
        try:
            for pid in self.pids:
                self._watch(pid)
        except BaseException:
            self.close()
            raise

    def _watch(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except OverflowError as error:  # more than the kernel's type for it holds
            raise ProcessGone(pid) from error
        except OSError as error:
            raise _not_a_process(pid, error) from error
        self.callback(os.close, descriptor)
        if not proc.is_alive(pid):
            raise ProcessGone(pid)
        self._running.register(descriptor, select.POLLIN)  # readable once the process has ended; pidfd_open(2)
        self._left += 1

    def sampling_began(self) -> None:
        """Warn of processes whose Python frames will not be seen."""
        cache = FileFactsCache()
        for pid in self.pids:
            reason = why_not_python(pid, cache)
            if reason:
                warn(f"process {pid}: {reason}")

    def have_ended(self) -> bool:
        """True if all of them have ended."""
        for descriptor, _ in self._running.poll(0):
            self._running.unregister(descriptor)
            self._left -= 1
        return not self._left

    def recording_ended(self, signals: StopSignals) -> None:
        """Do nothing."""


def _not_a_process(pid: int, error: OSError) -> PyflameError:
    if error.errno != errno.ESRCH and os.path.exists(f"/proc/{pid}"):  # noqa: PTH110 - EINVAL or, from 6.9, ENOENT
        gone = ProcessGone(pid)
        gone.message = f"{pid} is the number of a thread, not of a process"
        gone.hint = f"grep Tgid /proc/{pid}/status shows the process that it is in."
        return gone
    return ProcessGone(pid)


def why_not_python(pid: int, cache: FileFactsCache) -> str:
    """Say why no Python frames of a process will be seen; "" if they will be, or if the process has just ended."""
    try:
        stat = proc.process_stat(pid)
        if stat.kernel_thread:
            return f"{stat.name} is a thread of the kernel: only kernel frames will be seen"
        found = interpreter_of(pid, cache)
    except ProcessGone:
        return ""
    except (PyflameError, OSError) as error:
        return f"what it runs cannot be read ({error}): Python frames may be missing"
    if isinstance(found, UnsupportedInterpreter):
        return f"{found.name} ({found.file}): {found.reason}; only native and kernel frames will be seen"
    if found is None:
        return f"{stat.name} has no CPython mapped: only native and kernel frames will be seen"
    return ""


class StartedProgram(HeldProgram):
    """A program that is started, with its children."""

    def __init__(self, command: Sequence[str], output: int | None) -> None:
        super().__init__(command, output)
        self.pids: tuple[int, ...] = (self.pid,)
        self.text = f"{command[0]} (PID {self.pid}) and its children"
        self.ending = "the program ended"

    def __enter__(self) -> StartedProgram:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        """Do nothing: the program is held already."""
        return self

    def sampling_began(self) -> None:
        """Let the program start."""
        self.release()

    def have_ended(self) -> bool:
        """True if the program has ended, even if children of it live on."""
        return self.has_ended()

    def recording_ended(self, signals: StopSignals) -> None:
        """Send the program the signals that ended the recording, wait for it, and say how it ended."""
        for number in signals.noted:
            self.send(number)
        if not self.has_ended():
            say(f"waiting for the program (PID {self.pid}) to end")
        try:
            with signals.raising(len(signals.noted)):
                fate = self.fate()
        except Interrupted as again:
            self.send(again.signal_number)
            say(f"the program (PID {self.pid}) is left running")
        else:
            say(fate)
