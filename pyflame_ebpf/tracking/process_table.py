"""Which processes there are, which interpreter each runs, and what the BPF programs are told of them.

Stands between the sampler's process events and the host: reads /proc, tells the sampler, and keeps the facts that the
profile wants of every process, also of those that have ended.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import BinaryIO

from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.interpreter import Interpreter, UnsupportedInterpreter, interpreter_of
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.cpython.recipe import Recipe
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.proc import Mapping
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome, Process
from pyflame_ebpf.sampling.abi import (
    PROCESS_ANNOUNCED,
    PROCESS_OTHER,
    PROCESS_PYTHON,
    ExecutableEntry,
    ProcessEntry,
    raw_identity,
)
from pyflame_ebpf.sampling.events import ExitEvent, MissEvent, ProcessEvent
from pyflame_ebpf.sampling.sampler import Sampler
from pyflame_ebpf.tracking.mapped_code import MappedCode, open_code
from pyflame_ebpf.unwind.row import UnwindRow
from pyflame_ebpf.unwind.walk import RowAt, WalkStopped

# A program has no libraries at its exec; the dynamic linker maps the interpreter some milliseconds later, and a
# program that embeds Python may load it at any time.  Seconds after the first look.
LOOK_AGAIN = (0.002, 0.006, 0.02, 0.06, 0.2, 0.6, 2.0, 5.0)
LOOK_AGAIN_EVERY = 10.0
MAP_AGAIN, MAP_AGAIN_MAX = 0.001, 5.0
COMMAND_MAX = 4096  # characters of a command line; linkers have a million, and a build starts many
MAPPED_MAX = 1 << 16  # mappings of one process, of all times; at one time the kernel allows 65,530 (vm.max_map_count)
OTHER_AFTER = 0.06  # from then on such a process counts as not Python until found otherwise
SCAN_BUDGET = 0.4  # seconds for looking through the processes that run before the first tick


FileKey = tuple[int, int, int]  # inode, device, lower half of the size; as in struct file_key


@dataclass(slots=True)
class Known:
    """What is known of one process."""

    name: str
    command: str = ""
    interpreter: Interpreter | None = None
    cpu_before: float = 0.0  # seconds charged to it before the recording, or before its exec
    cpu_after: float | None = None
    executable: FileKey = (0, 0, 0)
    first_seen: float = 0.0
    kernel_thread: bool = False
    ended: bool = False
    state: int = PROCESS_ANNOUNCED
    slot: int = 0  # as in struct process_entry's mappings
    mappings: list[Mapping] = field(default_factory=list)  # executable, now
    mapped: dict[Mapping, None] = field(default_factory=dict)  # ... and at any time, the newest last
    mapped_at: float = 0.0  # monotonic seconds
    map_again: float = MAP_AGAIN  # seconds that must pass before they are read again
    places: dict[int, Mapping | None] = field(default_factory=dict)  # page of an address → what is mapped there
    no_copies: bool = False  # as in struct process_entry


@dataclass(order=True, slots=True)
class _Look:
    """A look at a process that is due at a time; ``tries`` looks have found no interpreter."""

    due: float
    tries: int
    identity: Identity = field(compare=False)


def executable_entry(recipe: Recipe, layout: int) -> ExecutableEntry:
    """The recipe as the BPF programs read it."""
    return ExecutableEntry(
        text=recipe.first_text_vaddr,
        debug_entry=recipe.debug_entry_vaddr if recipe.in_library else 0,
        library_dynamic=recipe.library_dynamic_vaddr,
        build_id=recipe.library_build_id_vaddr if len(recipe.library_build_id_start) == 8 else 0,  # noqa: PLR2004
        build_id_start=int.from_bytes(recipe.library_build_id_start, "little"),
        interpreters_head=recipe.interpreters_head,
        tstate_current=recipe.tstate_current,
        layout=layout,
    )


def file_key(pid: int) -> FileKey:
    """A process's executable as the kernel's inode has it; OSError when the process is gone."""
    status = proc.executable_status(pid)
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return status.st_ino, device, status.st_size & 0xFFFFFFFF


class ProcessTable:
    """All processes met, by identity."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._cache = FileFactsCache()
        self._known: dict[Identity, Known] = {}
        self._looks: list[_Look] = []
        self._layouts: dict[int, CPythonLayout] = {}
        self._interpreters: dict[FileKey, Interpreter] = {}  # what a file's recipe was made from
        self._cpu_before: dict[int, tuple[int, float]] = {}  # pid: start ticks, seconds charged
        self._pids: dict[int, Identity] = {}  # the program that a pid runs now
        self._forgotten = self._forgotten_python = 0
        self.code = MappedCode(sampler, self._open_mapped)

    # ---- before the first tick ----

    def scan(self) -> int:
        """Notes every process's CPU time, and tells the programs of the interpreters that run; gives their number."""
        deadline = time.monotonic() + SCAN_BUDGET
        python = 0
        seen: set[FileKey] = set()
        for pid in proc.pids():
            with contextlib.suppress(PyflameError, OSError):
                stat = proc.process_stat(pid)
                self._cpu_before[pid] = (stat.start_ticks, proc.cpu_seconds(pid))
                if stat.kernel_thread or time.monotonic() > deadline:
                    continue
                key = file_key(pid)
                if key not in seen and isinstance(interpreter := interpreter_of(pid, self._cache), Interpreter):
                    self._add_recipe(key, interpreter)
                seen.add(key)
                if key in self._interpreters:
                    python += 1
        return python

    def _add_recipe(self, key: FileKey, interpreter: Interpreter) -> None:
        if key in self._interpreters or not interpreter.recipe.usable:
            return
        self._interpreters[key] = interpreter
        layout = self._layout_index(interpreter)
        self._sampler.add_executable(key, executable_entry(interpreter.recipe, layout))

    def _has_room_for(self, interpreter: Interpreter) -> bool:
        """Whether its layout is or becomes known to the programs; processes that make theirs up may use up the room."""
        try:
            self._layout_index(interpreter)
        except PyflameError:
            return False
        return True

    def _layout_index(self, interpreter: Interpreter) -> int:
        index = self._sampler.add_layout(interpreter.layout)
        self._layouts[index] = interpreter.layout
        return index

    # ---- what the programs meet ----

    def process_met(self, event: ProcessEvent) -> None:
        """A process, or a program that it has begun to run, met for the first time."""
        now = time.monotonic()
        identity = event.identity
        known = self._known.get(identity)
        if known is None:
            known = self._known[identity] = Known(event.name, executable=event.executable, first_seen=now)
            known.kernel_thread = not event.start_code
            self._begin_cpu(identity, known)
            if not known.kernel_thread:
                self._read_names(identity, known)
        if event.state == PROCESS_PYTHON:
            self._identified_by_programs(event, known)
        if not known.kernel_thread:
            self._map(identity, known)
        if event.state != PROCESS_PYTHON and not known.kernel_thread:
            self._look(_Look(now, 0, identity))

    def _begin_cpu(self, identity: Identity, known: Known) -> None:
        before = self._pids.get(identity.tgid)
        self._pids[identity.tgid] = identity
        if before is not None:  # replaced by exec, or its end was not heard of
            self.code.forget(before)
        if before is not None and before.start == identity.start and before in self._known:  # another program by exec
            with contextlib.suppress(PyflameError, OSError):
                known.cpu_before = self._known[before].cpu_after = proc.cpu_seconds(identity.tgid)
            return
        start_ticks, seconds = self._cpu_before.get(identity.tgid, (0, 0.0))
        if _same_start(identity, start_ticks):
            known.cpu_before = seconds

    def _read_names(self, identity: Identity, known: Known) -> None:
        with contextlib.suppress(PyflameError, OSError):
            command = proc.command_line(identity.tgid)
            name = proc.name(identity.tgid)
            if self.is_running(identity):
                known.command = _cut(command) or known.command
                known.name = name or known.name

    def _identified_by_programs(self, event: ProcessEvent, known: Known) -> None:
        template = self._interpreters.get(event.executable)
        if template is None:
            return
        root, vaddr = event.interpreters_head, template.recipe.interpreters_head
        if not root:
            root, vaddr = event.tstate_current, template.recipe.tstate_current
        known.state = PROCESS_PYTHON
        known.interpreter = replace(
            template,
            bias=root - vaddr,
            interpreters_head=event.interpreters_head,
            tstate_current=event.tstate_current,
        )

    def is_running(self, identity: Identity) -> bool:
        """Whether the process still runs this program, as far as user space can tell."""
        if self._pids.get(identity.tgid) != identity:
            return False
        try:
            return _same_start(identity, proc.process_stat(identity.tgid).start_ticks)
        except (PyflameError, OSError):
            return False

    # ---- looking for an interpreter ----

    def look_again(self, now: float) -> None:
        """Does the looks that are due."""
        while self._looks and self._looks[0].due <= now:
            self._look(heapq.heappop(self._looks))

    def next_look(self) -> float | None:
        """When the next look is due, monotonic seconds."""
        return self._looks[0].due if self._looks else None

    def _look(self, look: _Look) -> None:
        known = self._known.get(look.identity)
        if known is None or known.ended or known.interpreter or not self.is_running(look.identity):
            return
        found: Interpreter | UnsupportedInterpreter | None = None
        with contextlib.suppress(PyflameError, OSError):
            found = interpreter_of(look.identity.tgid, self._cache)
            if isinstance(found, Interpreter) and not self._has_room_for(found):
                found = None
        if not self.is_running(look.identity):
            return
        if isinstance(found, Interpreter):
            self._found(look.identity, known, found)
            return
        if time.monotonic() - known.first_seen >= OTHER_AFTER or self._is_old(look.identity):
            known.state = PROCESS_OTHER
            self._tell(look.identity, known)
        wait = LOOK_AGAIN[look.tries] if look.tries < len(LOOK_AGAIN) else LOOK_AGAIN_EVERY
        heapq.heappush(self._looks, _Look(time.monotonic() + wait, look.tries + 1, look.identity))

    def _is_old(self, identity: Identity) -> bool:
        """Whether the process ran before the recording; such a program has long loaded its libraries."""
        return _same_start(identity, self._cpu_before.get(identity.tgid, (0, 0.0))[0]) and identity.tgid in self._pids

    def _found(self, identity: Identity, known: Known, interpreter: Interpreter) -> None:
        known.interpreter = interpreter
        if not known.command:
            self._read_names(identity, known)
        self._add_recipe(known.executable, interpreter)
        known.state = PROCESS_PYTHON
        self._tell(identity, known)

    def _tell(self, identity: Identity, known: Known) -> None:
        if self._pids.get(identity.tgid) != identity:
            return  # the entry is another program's by now
        is_known = known.executable in self._interpreters
        entry = ProcessEntry(
            raw_identity(identity), state=known.state, mappings=known.slot, known=is_known, no_copies=known.no_copies
        )
        if known.state == PROCESS_PYTHON and known.interpreter is not None:
            entry.interpreters_head = known.interpreter.interpreters_head
            entry.tstate_current = known.interpreter.tstate_current
            entry.layout = self._layout_index(known.interpreter)
        self._sampler.set_process(entry)

    # ---- executable memory ----

    def _map(self, identity: Identity, known: Known) -> bool:
        """Reads where code is mapped and tells the programs; whether anything has changed."""
        known.mapped_at = time.monotonic()
        try:
            mappings = proc.mappings(identity.tgid) if self.is_running(identity) else []
        except (PyflameError, OSError):
            return False
        code = [mapping for mapping in mappings if mapping.executable]
        if not code:
            return False
        if code == known.mappings:
            self._tell(identity, known)  # the programs may have begun its entry anew
            return False
        known.mappings = code
        _note(known.mapped, code)
        known.places.clear()
        known.slot = self.code.map_process(identity, code)
        while self.code.evicted:
            oldest = self.code.evicted.pop()
            self._known[oldest].slot, self._known[oldest].mappings = 0, []
            self._tell(oldest, self._known[oldest])
        self._tell(identity, known)
        return True

    def code_missed(self, event: MissEvent) -> None:
        """The native walk lacked a mapping or the rows of a page."""
        known = self._known.get(event.identity)
        if event.file:
            self.code.send_page(event.file, event.address)
            return
        if known is None or known.ended or time.monotonic() - known.mapped_at < known.map_again:
            return
        if any(mapping.start <= event.address < mapping.end for mapping in known.mappings):
            return  # it was missed before they were last told
        changed = self._map(event.identity, known)
        known.map_again = MAP_AGAIN if changed else min(2 * known.map_again, MAP_AGAIN_MAX)

    def rows_of(self, identity: Identity) -> RowAt:
        """The unwind rows of a process by address; each page that is asked for is sent to the programs, too."""

        def row_at(address: int) -> UnwindRow | None:
            mapping = self.mapping_of(identity, address)
            if mapping is None:
                raise WalkStopped(NativeOutcome.NO_MAPPING)
            return self.code.row_at(identity, mapping, address)

        return row_at

    def without_copies(self, identity: Identity) -> None:
        """Copies of this process's stacks did not help to walk them: no more of them are sent."""
        known = self._known.get(identity)
        if known is not None and not known.ended:
            known.no_copies = True
            self._tell(identity, known)

    def _open_mapped(self, identity: Identity, mapping: Mapping) -> BinaryIO:
        return open_code(identity.tgid, mapping)

    def mapping_of(self, identity: Identity, address: int) -> Mapping | None:
        """The executable mapping that held an address of a process, the newest one if there were several."""
        known = self._known.get(identity)
        if known is None:
            return None
        page = address >> 12
        if page not in known.places:
            mapped = reversed(known.mapped)
            known.places[page] = next((mapping for mapping in mapped if mapping.start <= address < mapping.end), None)
        return known.places[page]

    def mappings_of(self, identity: Identity) -> list[Mapping]:
        """The executable mappings of a process, as last read."""
        known = self._known.get(identity)
        return known.mappings if known else []

    # ---- the end ----

    def process_ended(self, event: ExitEvent) -> None:
        """A process has ended; its CPU time is final."""
        known = self._known.get(event.identity)
        if known is not None:
            known.ended = True
            known.cpu_after = event.cpu / 1e9
            known.name = event.name
            self.code.forget(event.identity)

    def finish(self) -> None:
        """Takes the CPU time of every process that still runs, and looks once more at those that had no name."""
        for identity, known in self._known.items():
            if known.ended or known.cpu_after is not None:
                continue
            with contextlib.suppress(PyflameError, OSError):
                if self.is_running(identity):
                    known.cpu_after = proc.cpu_seconds(identity.tgid)

    def ended(self, kept: set[Identity]) -> set[Identity]:
        """The processes that have ended, without those that are to be kept."""
        return {identity for identity in self._known.keys() - kept if not self.is_running(identity)}

    def forget(self, gone: Gone) -> None:
        """Drop the processes that are gone."""
        for identity in gone.processes & self._known.keys():
            self.code.forget(identity)
            if self._pids.get(identity.tgid) == identity:
                del self._pids[identity.tgid]
            self._forgotten_python += self._known.pop(identity).interpreter is not None
            self._forgotten += 1

    # ---- what others ask ----

    def layout(self, index: int) -> CPythonLayout:
        """The layout with this index; KeyError when it was never given to the programs."""
        return self._layouts[index]

    def layout_of(self, identity: Identity) -> CPythonLayout | None:
        """The layout of a process's interpreter."""
        known = self._known.get(identity)
        return known.interpreter.layout if known and known.interpreter else None

    def interpreter_file(self, identity: Identity) -> str:
        """The file that holds a process's interpreter, "" for none."""
        known = self._known.get(identity)
        return known.interpreter.file if known and known.interpreter else ""

    def read_memory(self, identity: Identity, address: int, size: int) -> bytes:
        """Memory of a process, b"" when it cannot be had any more."""
        try:
            return proc.read_memory(identity.tgid, address, size) if self.is_running(identity) else b""
        except (PyflameError, OSError):
            return b""

    def counts(self) -> tuple[int, int]:
        """Processes met, and those among them that run Python."""
        python = sum(known.interpreter is not None for known in self._known.values())
        return self._forgotten + len(self._known), self._forgotten_python + python

    def profile_processes(self) -> dict[Identity, Process]:
        """Every process met, as the profile has it."""
        return {identity: _profile_process(identity, known) for identity, known in self._known.items()}


def _cut(command: str) -> str:
    return command if len(command) <= COMMAND_MAX else f"{command[: COMMAND_MAX - 1]}…"


def _note(mapped: dict[Mapping, None], code: Iterable[Mapping]) -> None:
    """Adds what is mapped now; what a process had long ago makes room."""
    for mapping in code:
        mapped.pop(mapping, None)
        mapped[mapping] = None
    for mapping in list(islice(mapped, max(0, len(mapped) - MAPPED_MAX))):
        del mapped[mapping]


def _same_start(identity: Identity, start_ticks: int) -> bool:
    """Whether a start in ns since boot and one in clock ticks, both of the same clock, are the same."""
    return abs(identity.start * os.sysconf("SC_CLK_TCK") // 1_000_000_000 - start_ticks) <= 1


def _profile_process(identity: Identity, known: Known) -> Process:
    interpreter = known.interpreter
    charged = None if known.cpu_after is None else max(0.0, known.cpu_after - known.cpu_before)
    return Process(
        pid=identity.tgid,
        name=known.name,
        command=known.command,
        interpreter=interpreter.name if interpreter else "",
        interpreter_file=interpreter.file if interpreter else "",
        scheduler_cpu=charged,
    )
