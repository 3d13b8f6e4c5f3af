"""Who was met: every program that a process ran, with its name, its command line and its CPU time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.process_directory import PidOrDirectory, ProcessDirectory, directory_of
from pyflame_ebpf.host.process_stat import ProcessStat
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.events import ExitEvent, ProcessEvent
from pyflame_ebpf.tracking.directories import Directories, same_start
from pyflame_ebpf.tracking.program_maps import FileKey

COMMAND_MAX = 4096  # characters of a command line; linkers have a million, and a build starts many


@dataclass(slots=True, kw_only=True)
class MetProcess:
    """One program that a process ran."""

    name: str
    executable: FileKey
    first_seen: float  # monotonic seconds
    kernel_thread: bool
    command: str = ""
    cpu_before: float = 0.0  # seconds charged to the process before the recording, or before its exec
    cpu_after: float | None = None  # ... until it ended, or until the recording did
    ended: bool = False

    @property
    def scheduler_cpu(self) -> float | None:
        """Seconds that the scheduler charged to it during the recording, None if that is not known."""
        return None if self.cpu_after is None else max(0.0, self.cpu_after - self.cpu_before)


def file_key(process: PidOrDirectory) -> FileKey:
    """A process's executable as the kernel's inode has it.  Raises ProcessGone, ProcessDenied."""
    status = directory_of(process).status("exe")
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return status.st_ino, device, status.st_size & 0xFFFFFFFF


class Processes:
    """The processes met, by identity."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._met: dict[Identity, MetProcess] = {}
        self._cpu_before: dict[int, tuple[int, float]] = {}  # by PID: start in clock ticks, seconds charged
        self._forgotten = 0

    def note_cpu(self, directory: ProcessDirectory) -> ProcessStat:
        """Notes the CPU time of a process before the recording.  Raises ProcessGone."""
        stat = proc.process_stat(directory)
        self._cpu_before[directory.pid] = stat.start_ticks, proc.cpu_seconds(directory)
        return stat

    def meet(self, event: ProcessEvent) -> Identity | None:
        """A program was met for the first time.  Returns the one that its PID ran before, None if it was not known."""
        identity = event.identity
        met = self._met[identity] = MetProcess(
            name=event.name,
            executable=event.executable,
            first_seen=time.monotonic(),
            kernel_thread=not event.start_code,
        )
        before = self._directories.begin(identity)
        self._begin_cpu(identity, met, before)
        if not met.kernel_thread:
            self.read_names(identity)
        return before

    def _begin_cpu(self, identity: Identity, met: MetProcess, before: Identity | None) -> None:
        if before is not None and before.start == identity.start and before in self._met:  # another program by exec
            with contextlib.suppress(PyflameError, OSError):
                met.cpu_before = self._met[before].cpu_after = proc.cpu_seconds(self._directories.of(identity))
            return
        start_ticks, seconds = self._cpu_before.get(identity.tgid, (0, 0.0))
        if same_start(identity, start_ticks):
            met.cpu_before = seconds

    def read_names(self, identity: Identity) -> None:
        """Reads a process's command line and name, as far as it still runs."""
        met = self._met[identity]
        with contextlib.suppress(PyflameError, OSError):
            directory = self._directories.of(identity)
            command, name = proc.command_line(directory), proc.name(directory)
            met.command = _cut(command) or met.command
            met.name = name or met.name

    def read_missing_names(self, identity: Identity) -> None:
        """Reads the names of a process that had no command line when it was met."""
        if not self._met[identity].command:
            self.read_names(identity)

    def ran_before(self, identity: Identity) -> bool:
        """Whether a process that runs did so before the recording."""
        start_ticks, _ = self._cpu_before.get(identity.tgid, (0, 0.0))
        return same_start(identity, start_ticks) and self._directories.is_current(identity)

    def end(self, event: ExitEvent) -> bool:
        """A process has ended; its CPU time is final.  Returns whether it was met."""
        self._directories.end(event.identity)
        met = self._met.get(event.identity)
        if met is None:
            return False
        met.ended, met.cpu_after, met.name = True, event.cpu / 1e9, event.name
        return True

    def finish(self) -> None:
        """Takes the CPU time of every process that still runs."""
        for identity, met in self._met.items():
            if met.cpu_after is None:
                with contextlib.suppress(PyflameError, OSError):
                    met.cpu_after = proc.cpu_seconds(self._directories.of(identity))

    def ended(self, kept: Collection[Identity]) -> set[Identity]:
        """The processes that have ended, without those that are to be kept."""
        return {identity for identity in self._met.keys() - kept if not self._directories.is_running(identity)}

    def forget(self, gone: Collection[Identity]) -> None:
        """Forgets processes that nobody will ask about."""
        for identity in gone:
            self._forgotten += self._met.pop(identity, None) is not None

    def __getitem__(self, identity: Identity) -> MetProcess:
        """What is known of a program that was met."""
        return self._met[identity]

    def get(self, identity: Identity) -> MetProcess | None:
        """What is known of a program, None for one that was not met."""
        return self._met.get(identity)

    def items(self) -> Iterable[tuple[Identity, MetProcess]]:
        """Every program that was met and is not forgotten."""
        return self._met.items()

    @property
    def count(self) -> int:
        """How many programs were met, those forgotten included."""
        return self._forgotten + len(self._met)


def _cut(command: str) -> str:
    return command if len(command) <= COMMAND_MAX else f"{command[: COMMAND_MAX - 1]}…"
