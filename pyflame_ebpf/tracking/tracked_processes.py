"""Every process that was met, and what the BPF programs are told of it.

Stands between the sampler's events and the host: reads /proc, tells the programs, and keeps what the profile wants of
every process, also of those that have ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from typing import BinaryIO

from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.mapped_files import open_code
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.host.memory import read_memory
from pyflame_ebpf.host.process_directory import ProcessDirectory
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome, Process
from pyflame_ebpf.sampling.abi import PROCESS_PYTHON, ProcessEntry, raw_identity
from pyflame_ebpf.sampling.events import ExitEvent, MissEvent, ProcessEvent
from pyflame_ebpf.tracking.directories import Directories
from pyflame_ebpf.tracking.interpreters import Interpreters
from pyflame_ebpf.tracking.mapped_code import MappedCode
from pyflame_ebpf.tracking.mappings import Mappings
from pyflame_ebpf.tracking.mishaps import Mishaps
from pyflame_ebpf.tracking.processes import MetProcess, Processes
from pyflame_ebpf.tracking.program_maps import FileKey, TrackedMaps
from pyflame_ebpf.tracking.recipes import Recipes
from pyflame_ebpf.unwind.row import UnwindRow
from pyflame_ebpf.unwind.walk import RowAt, WalkStopped

SCAN_BUDGET = 0.4  # seconds for looking through the processes that run before the first tick


class ProcessTable:
    """The processes, their interpreters, their mappings and their code, kept in step.

    ``directories`` are those of the processes that run.
    """

    def __init__(self, maps: TrackedMaps, mishaps: Mishaps | None = None) -> None:
        self._maps = maps
        self._mishaps = mishaps or Mishaps()
        self.directories = Directories()
        self._processes = Processes(self.directories)
        self._recipes = Recipes(maps)
        self._interpreters = Interpreters(self._recipes, self._processes, self.directories, self._tell, self._mishaps)
        self._mappings = Mappings(self.directories)
        self._code = MappedCode(maps, self._open_mapped, self._mishaps.over_budget)
        self._without_copies: set[Identity] = set()

    def scan(self) -> int:
        """Notes the CPU time of every process before the first tick, and tells the programs of their interpreters.

        Returns how many processes run Python, as far as SCAN_BUDGET sufficed.
        """
        deadline = time.monotonic() + SCAN_BUDGET
        python = 0
        seen: set[FileKey] = set()
        for pid in proc.pids():
            with contextlib.suppress(PyflameError, OSError), contextlib.closing(ProcessDirectory.held(pid)) as each:
                stat = self._processes.note_cpu(each)
                if not stat.kernel_thread and time.monotonic() <= deadline:
                    python += self._examine(each, seen)
        return python

    def _examine(self, process: ProcessDirectory, seen: set[FileKey]) -> bool:
        """Whether a process that runs already is known to run Python.  Raises ProcessGone, ProcessDenied, OSError."""
        try:
            return self._interpreters.examine(process, seen)
        except (PyflameError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - one process's defect costs that process alone
            self._mishaps.defect(error, process.pid)
            return False

    # ---- what the programs report ----

    def process_met(self, event: ProcessEvent) -> None:
        """A process, or a program that it has begun to run, was met for the first time, or its entry was lost."""
        identity = event.identity
        met = self._processes.get(identity) or self._meet(event)
        self._interpreters.met(event)
        if not met.kernel_thread:
            self._map(identity)
            if event.state != PROCESS_PYTHON:
                self._interpreters.look(identity)

    def _meet(self, event: ProcessEvent) -> MetProcess:
        before = self._processes.meet(event)
        self._mappings.met(event.identity)
        if before is not None:  # replaced by exec, or its end was not heard of
            self._code.process_ended(before)
        return self._processes[event.identity]

    def code_missed(self, event: MissEvent) -> None:
        """The native walk lacked a mapping or the rows of a page."""
        if event.file:
            self._code.send_page(event.file, event.address)
            return
        met = self._processes.get(event.identity)
        if met is None or met.ended or not self._mappings.may_have_changed(event.identity, event.address):
            return
        self._mappings.were_read_again(event.identity, changed=self._map(event.identity))

    def process_ended(self, event: ExitEvent) -> None:
        """A process has ended; its CPU time is final."""
        if self._processes.end(event):
            self._code.process_ended(event.identity)

    def look_again(self, now: float) -> None:
        """Does the looks for interpreters that are due at a monotonic time."""
        self._interpreters.look_again(now)

    def next_look(self) -> float | None:
        """When the next look for an interpreter is due, in monotonic seconds."""
        return self._interpreters.next_look()

    def without_copies(self, identity: Identity) -> None:
        """Copies of this process's stacks did not help to walk them: no more of them are sent."""
        met = self._processes.get(identity)
        if met is not None and not met.ended:
            self._without_copies.add(identity)
            self._tell(identity)

    # ---- what the programs are told ----

    def _map(self, identity: Identity) -> bool:
        """Reads where code is mapped and tells the programs.  Returns whether anything has changed."""
        code = self._mappings.read(identity)
        if not code:
            return False
        changed = self._mappings.replace(identity, code)
        if changed:
            loser = self._code.map_process(identity, code)
            if loser is not None:
                self._mappings.unmap(loser)
                self._tell(loser)
        self._tell(identity)  # where nothing has changed, the programs may have begun its entry anew
        return changed

    def _tell(self, identity: Identity) -> None:
        if not self.directories.is_current(identity):
            return  # the entry is another program's by now
        entry = ProcessEntry(
            raw_identity(identity),
            mappings=self._code.entry_of(identity),
            known=self._processes[identity].executable in self._recipes,
            no_copies=identity in self._without_copies,
        )
        self._interpreters.describe(identity, entry)
        self._maps.set_process(entry)

    def _open_mapped(self, identity: Identity, mapping: Mapping) -> BinaryIO:
        return open_code(self.directories.of(identity), mapping)

    # ---- the end ----

    def finish(self) -> None:
        """Takes the CPU time of every process that still runs."""
        self._processes.finish()

    def ended(self, kept: Collection[Identity]) -> set[Identity]:
        """The processes that have ended, without those that are to be kept."""
        return self._processes.ended(kept)

    def forget(self, gone: Gone) -> None:
        """Drop the processes that are gone."""
        over = gone.processes
        for identity in over:
            self._code.process_ended(identity)
        self.directories.forget(over)
        self._processes.forget(over)
        self._interpreters.forget(over)
        self._mappings.forget(over)
        self._without_copies.difference_update(over)

    def close(self) -> None:
        """Lets go of the processes: all count as gone."""
        self.directories.close()

    # ---- what others ask ----

    def layout(self, index: int) -> CPythonLayout:
        """The layout with this index.  Raises KeyError for one that was never given to the programs."""
        return self._recipes.layout(index)

    def layout_of(self, identity: Identity) -> CPythonLayout | None:
        """The layout of a process's interpreter."""
        return self._interpreters.layout_of(identity)

    def interpreter_file(self, identity: Identity) -> str:
        """The file that holds a process's interpreter, "" for none."""
        return self._interpreters.file_of(identity)

    def read_memory(self, identity: Identity, address: int, size: int) -> bytes:
        """Memory of a process, b"" when it cannot be had any more."""
        try:
            return read_memory(self.directories.of(identity), address, size)
        except (PyflameError, OSError):
            return b""

    def mapping_of(self, identity: Identity, address: int) -> Mapping | None:
        """The executable mapping that held an address of a process, the newest one if there were several."""
        return self._mappings.at(identity, address)

    def mappings_of(self, identity: Identity) -> list[Mapping]:
        """The executable mappings of a process, as last read."""
        return self._mappings.now(identity)

    def open_again(self, mapping: Mapping) -> BinaryIO:
        """The file behind a mapping, also when its process is gone.  Raises OSError when it never was opened."""
        return self._code.files.open_again(mapping)

    def rows_of(self, identity: Identity) -> RowAt:
        """The unwind rows of a process by address; each page that is asked for is sent to the programs, too."""

        def row_at(address: int) -> UnwindRow | None:
            mapping = self._mappings.at(identity, address)
            if mapping is None:
                raise WalkStopped(NativeOutcome.NO_MAPPING)
            return self._code.row_at(identity, mapping, address)

        return row_at

    def counts(self) -> tuple[int, int]:
        """Processes met, and how many of them run Python."""
        return self._processes.count, self._interpreters.count

    def profile_processes(self) -> dict[Identity, Process]:
        """Every process met, as the profile has it."""
        return {identity: self._profile_process(identity, met) for identity, met in self._processes.items()}

    def _profile_process(self, identity: Identity, met: MetProcess) -> Process:
        interpreter = self._interpreters.get(identity)
        return Process(
            pid=identity.tgid,
            name=met.name,
            command=met.command,
            interpreter=interpreter.name if interpreter else "",
            interpreter_file=interpreter.file if interpreter else "",
            scheduler_cpu=met.scheduler_cpu,
        )
