"""Which interpreter each process runs, and when to look again in one that has none yet."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.interpreter import Interpreter, UnsupportedInterpreter, interpreter_of
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.elf.budget import SharedBudget
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.process_directory import ProcessDirectory
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.abi import PROCESS_ANNOUNCED, PROCESS_OTHER, PROCESS_PYTHON, ProcessEntry
from pyflame_ebpf.sampling.events import ProcessEvent
from pyflame_ebpf.tracking.directories import Directories
from pyflame_ebpf.tracking.mishaps import Mishaps
from pyflame_ebpf.tracking.processes import Processes, file_key
from pyflame_ebpf.tracking.program_maps import FileKey
from pyflame_ebpf.tracking.recipes import Recipes

# A program has no libraries at its exec; the dynamic linker maps the interpreter some milliseconds later, and a
# program that embeds Python may load it at any time.  Seconds after the first look.
LOOK_AGAIN = (0.002, 0.006, 0.02, 0.06, 0.2, 0.6, 2.0, 5.0)
LOOK_AGAIN_EVERY = 10.0
OTHER_AFTER = 0.06  # seconds after which a process without an interpreter counts as not Python until one is found


@dataclass(order=True, slots=True)
class _Look:
    """A look at a process that is due at a time; ``tries`` looks have found no interpreter."""

    due: float
    tries: int
    identity: Identity = field(compare=False)


class Interpreters:
    """The interpreters of processes; ``tell`` is called when the programs must be told something new of one."""

    def __init__(
        self,
        recipes: Recipes,
        processes: Processes,
        directories: Directories,
        tell: Callable[[Identity], None],
        mishaps: Mishaps,
    ) -> None:
        self._recipes = recipes
        self._processes = processes
        self._directories = directories
        self._tell = tell
        self._mishaps = mishaps
        self._cache = FileFactsCache()
        self._looks: list[_Look] = []
        self._found: dict[Identity, Interpreter] = {}
        self._other: set[Identity] = set()  # processes that count as not Python
        self._forgotten = 0
        self._budgets: dict[Identity, SharedBudget] = {}  # what looks at the files of a process may take

    def examine(self, directory: ProcessDirectory, seen: set[FileKey]) -> bool:
        """Makes a recipe of a process's interpreter before the recording.  Returns whether its file has a recipe.

        ``seen`` has the executable files that were examined.  Raises ProcessGone, ProcessDenied, OSError.
        """
        executable = file_key(directory)
        if executable not in seen:
            found = interpreter_of(directory, self._cache)
            if isinstance(found, Interpreter):
                self._recipes.add(executable, found)
        seen.add(executable)
        return executable in self._recipes

    def met(self, event: ProcessEvent) -> None:
        """Takes over the interpreter that the programs have found by themselves."""
        found = self._recipes.followed(event) if event.state == PROCESS_PYTHON else None
        if found is not None:
            self._found[event.identity] = found

    def look(self, identity: Identity) -> None:
        """Looks for an interpreter in a process now, and later again if there is none."""
        self._look(_Look(time.monotonic(), 0, identity))

    def look_again(self, now: float) -> None:
        """Does the looks that are due."""
        while self._looks and self._looks[0].due <= now:
            look = heapq.heappop(self._looks)
            try:
                self._look(look)
            except Exception as error:  # noqa: BLE001 - one process's defect costs that process alone
                self._mishaps.defect(error, look.identity)

    def next_look(self) -> float | None:
        """When the next look is due, in monotonic seconds."""
        return self._looks[0].due if self._looks else None

    def _look(self, look: _Look) -> None:
        identity = look.identity
        met = self._processes.get(identity)
        if met is None or met.ended or identity in self._found or not self._directories.is_running(identity):
            return
        found = self._interpreter_in(identity)
        if not self._directories.is_running(identity):
            return
        if found is not None:
            self._keep(identity, met.executable, found)
            return
        if time.monotonic() - met.first_seen >= OTHER_AFTER or self._processes.ran_before(identity):
            self._other.add(identity)  # one that ran before the recording has long loaded its libraries
            self._tell(identity)
        wait = LOOK_AGAIN[look.tries] if look.tries < len(LOOK_AGAIN) else LOOK_AGAIN_EVERY
        heapq.heappush(self._looks, _Look(time.monotonic() + wait, look.tries + 1, identity))

    def _interpreter_in(self, identity: Identity) -> Interpreter | None:
        found: Interpreter | UnsupportedInterpreter | None = None
        budget = self._budgets.setdefault(identity, SharedBudget())
        try:
            over_budget = self._cache.over_budget
            found = interpreter_of(self._directories.of(identity), self._cache, budget)
            if self._cache.over_budget > over_budget:
                self._mishaps.over_budget(f"a file of process {identity.tgid}")
        except (PyflameError, OSError):
            return None
        except Exception as error:  # noqa: BLE001 - one process's defect costs that process alone
            self._mishaps.defect(error, identity)
        return found if isinstance(found, Interpreter) and self._recipes.has_room_for(found) else None

    def _keep(self, identity: Identity, executable: FileKey, interpreter: Interpreter) -> None:
        self._found[identity] = interpreter
        self._budgets.pop(identity, None)
        self._processes.read_missing_names(identity)
        self._recipes.add(executable, interpreter)
        self._tell(identity)

    def describe(self, identity: Identity, entry: ProcessEntry) -> None:
        """Puts a process's interpreter into its entry."""
        interpreter = self._found.get(identity)
        if interpreter is None:
            entry.state = PROCESS_OTHER if identity in self._other else PROCESS_ANNOUNCED
            return
        entry.state = PROCESS_PYTHON
        entry.interpreters_head = interpreter.interpreters_head
        entry.tstate_current = interpreter.tstate_current
        entry.layout = self._recipes.layout_index(interpreter)

    def get(self, identity: Identity) -> Interpreter | None:
        """A process's interpreter."""
        return self._found.get(identity)

    def layout_of(self, identity: Identity) -> CPythonLayout | None:
        """The layout of a process's interpreter."""
        interpreter = self._found.get(identity)
        return interpreter.layout if interpreter else None

    def file_of(self, identity: Identity) -> str:
        """The file that holds a process's interpreter, "" for none."""
        interpreter = self._found.get(identity)
        return interpreter.file if interpreter else ""

    def forget(self, gone: Collection[Identity]) -> None:
        """Forgets processes that nobody will ask about."""
        self._other.difference_update(gone)
        for identity in gone:
            self._budgets.pop(identity, None)
            self._forgotten += self._found.pop(identity, None) is not None

    @property
    def count(self) -> int:
        """How many processes had an interpreter, those forgotten included."""
        return self._forgotten + len(self._found)
