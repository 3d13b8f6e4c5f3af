"""The directories in /proc of the processes that run: one descriptor a process, as far as there are descriptors."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.open_files import processes_allowed
from pyflame_ebpf.host.process_directory import ProcessDirectory, ProcessGone
from pyflame_ebpf.identity import Identity

SWEEP_EVERY = 1.0  # seconds between two searches for directories of processes whose end was not heard of


class Directories:
    """Which program each PID runs now, and the directory of its process.

    The start time is compared once, when a directory is opened.  A process for which no descriptor is free is reached
    by its PID, and its start time is compared at every read.
    """

    def __init__(self) -> None:
        self._running: dict[int, Identity] = {}
        self._directories: dict[int, ProcessDirectory] = {}  # by PID
        self._held = 0
        self._swept = 0.0  # monotonic seconds

    def begin(self, identity: Identity) -> Identity | None:
        """A PID runs this program from now on.  Returns the program that it ran before, None if it was not known."""
        before = self._running.get(identity.tgid)
        if before is None or before.start != identity.start or identity.tgid not in self._directories:
            self._close(identity.tgid)
            with contextlib.suppress(PyflameError, OSError):
                if (directory := self._open(identity)) is not None:
                    self._directories[identity.tgid] = directory
        self._running[identity.tgid] = identity
        return before

    def end(self, identity: Identity) -> None:
        """A process has ended, whichever program it ran."""
        running = self._running.get(identity.tgid)
        if running is not None and running.start == identity.start:
            del self._running[identity.tgid]
            self._close(identity.tgid)

    def of(self, identity: Identity) -> ProcessDirectory:
        """The directory of a process that runs this program, as far as user space can tell.  Raises ProcessGone."""
        directory = self._directories.get(identity.tgid)
        if directory is None or self._running.get(identity.tgid) != identity:
            raise ProcessGone(identity.tgid)
        return directory

    def is_current(self, identity: Identity) -> bool:
        """Whether its PID is not known to run another program, or none."""
        return self._running.get(identity.tgid) == identity

    def is_running(self, identity: Identity) -> bool:
        """Whether the process still runs this program, as far as user space can tell."""
        directory = self._directories.get(identity.tgid)
        return directory is not None and self.is_current(identity) and directory.exists()

    def forget(self, gone: Collection[Identity]) -> None:
        """Forgets programs that run no longer."""
        for identity in gone:
            if self.is_current(identity):
                self.end(identity)

    def close(self) -> None:
        """Gives all descriptors back: all processes count as gone."""
        for pid in list(self._directories):
            self._close(pid)

    def _open(self, identity: Identity) -> ProcessDirectory | None:
        """The directory of a process, None if its PID is another's.  Raises ProcessGone, OSError."""
        with contextlib.ExitStack() as opened:
            directory = self._new_directory(identity.tgid)
            opened.callback(directory.close)
            start_ticks = proc.process_stat(directory).start_ticks
            if not same_start(identity, start_ticks):
                return None
            if not directory.is_held:
                return ProcessDirectory(identity.tgid, start_ticks)
            opened.pop_all()
        self._held += 1
        return directory

    def _new_directory(self, pid: int) -> ProcessDirectory:
        """Held if that is allowed, and by PID else."""
        if self._held >= processes_allowed():
            self._sweep()
        if self._held < processes_allowed():
            with contextlib.suppress(OSError):  # no descriptor is free after all
                return ProcessDirectory.held(pid)
        return ProcessDirectory(pid)

    def _sweep(self) -> None:
        """Closes what no process has any more: 0.5 µs a directory."""
        now = time.monotonic()
        if now - self._swept < SWEEP_EVERY:
            return
        self._swept = now
        for pid in [pid for pid, directory in self._directories.items() if not directory.exists()]:
            self._close(pid)

    def _close(self, pid: int) -> None:
        directory = self._directories.pop(pid, None)
        if directory is not None:
            self._held -= directory.is_held
            directory.close()


def same_start(identity: Identity, start_ticks: int) -> bool:
    """Whether a start in ns since boot and one in clock ticks, both of the same clock, are the same."""
    return abs(identity.start * os.sysconf("SC_CLK_TCK") // 1_000_000_000 - start_ticks) <= 1
