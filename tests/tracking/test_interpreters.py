"""When an interpreter is looked for in a process, and what the programs are told of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from pyflame_ebpf.cpython.interpreter import Interpreter, UnsupportedInterpreter
from pyflame_ebpf.host.process_directory import ProcessDirectory
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.abi import PROCESS_ANNOUNCED, PROCESS_OTHER, PROCESS_PYTHON, ProcessEntry
from pyflame_ebpf.sampling.events import ExitEvent
from pyflame_ebpf.tracking import interpreters as interpreters_module
from pyflame_ebpf.tracking.directories import Directories
from pyflame_ebpf.tracking.interpreters import Interpreters
from pyflame_ebpf.tracking.mishaps import Mishaps
from pyflame_ebpf.tracking.processes import Processes, file_key
from pyflame_ebpf.tracking.recipes import Recipes
from tests.tracking.live_processes import NO_PID, identity_of, met
from tests.tracking.test_recipes import OLD, PYTHON
from tests.tracking.written_maps import WrittenMaps

Found = Interpreter | UnsupportedInterpreter | None


class Watched:
    """Interpreters of this process, with a clock and with searches of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.searches: list[float] = []  # when they were, in seconds since the first
        self.found: Found = None
        self.told: list[tuple[float, int]] = []  # when, and the state
        self.directories = Directories()
        self.processes = Processes(self.directories)
        self.recipes = Recipes(WrittenMaps())
        self.interpreters = Interpreters(self.recipes, self.processes, self.directories, self._tell, Mishaps())
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(interpreters_module, "interpreter_of", self._search)
        self.event = met(os.getpid())
        self.identity = self.event.identity

    def _search(self, directory: ProcessDirectory, _cache: object, _budget: object = None) -> Found:
        directory.confirm()
        self.searches.append(round(self.now - 1000, 3))
        return self.found

    def _tell(self, identity: Identity) -> None:
        self.told.append((round(self.now - 1000, 3), self.entry(identity).state))

    def entry(self, identity: Identity) -> ProcessEntry:
        entry = ProcessEntry()
        self.interpreters.describe(identity, entry)
        return entry

    def meet(self) -> None:
        self.processes.meet(self.event)
        self.interpreters.look(self.identity)

    def pass_seconds(self, seconds: float) -> None:
        """Does every look in its time."""
        end = self.now + seconds
        while (due := self.interpreters.next_look()) is not None and due <= end:
            self.now = due
            self.interpreters.look_again(self.now)
        self.now = end


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched(monkeypatch)
    with contextlib.closing(watched.directories):
        yield watched


SEARCHES = [0, 0.002, 0.008, 0.028, 0.088, 0.288, 0.888, 2.888, 7.888, 17.888, 27.888]


def test_a_process_without_an_interpreter_is_searched_ever_more_rarely_and_is_other_after_a_while(
    watched: Watched,
) -> None:
    watched.meet()
    watched.pass_seconds(30)
    assert watched.searches == SEARCHES
    assert watched.told == [(at, PROCESS_OTHER) for at in SEARCHES if at >= 0.06]


def test_what_is_found_later_is_told_once(watched: Watched) -> None:
    watched.meet()
    watched.pass_seconds(0.01)
    watched.found = PYTHON
    watched.pass_seconds(30)
    assert watched.told == [(0.028, PROCESS_PYTHON)]
    assert watched.interpreters.next_look() is None
    entry = watched.entry(watched.identity)
    assert (entry.interpreters_head, entry.tstate_current, entry.layout) == (0x7005000, 0x7006000, 0)
    assert watched.event.executable in watched.recipes


def test_an_interpreter_that_cannot_be_read_is_none(watched: Watched) -> None:
    watched.found = UnsupportedInterpreter("2.7", "/usr/bin/python2", "too old")
    watched.meet()
    watched.pass_seconds(0.1)
    assert watched.told == [(0.088, PROCESS_OTHER)]
    assert watched.interpreters.count == 0


@pytest.mark.parametrize("end", [True, False])
def test_a_process_that_has_ended_is_not_searched(watched: Watched, end: bool) -> None:
    watched.meet()
    if end:
        watched.processes.end(ExitEvent(watched.identity, 1, "x"))
    else:
        watched.directories.of(watched.identity).close()
    watched.pass_seconds(30)
    assert watched.searches == [0]
    assert watched.interpreters.next_look() is None


def test_a_process_that_ends_while_it_is_searched_is_told_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(directory: ProcessDirectory, _cache: object, _budget: object = None) -> Found:
        directory.close()
        return PYTHON

    monkeypatch.setattr(interpreters_module, "interpreter_of", search)
    watched.meet()
    assert (watched.told, watched.interpreters.get(watched.identity)) == ([], None)


def test_what_was_never_met_is_not_searched(watched: Watched) -> None:
    watched.interpreters.look(Identity(1, NO_PID, 1))
    assert watched.searches == []


def test_before_the_recording_each_executable_is_searched_once(watched: Watched) -> None:
    with contextlib.closing(ProcessDirectory.held(os.getpid())) as directory:
        seen: set[tuple[int, int, int]] = set()
        assert [watched.interpreters.examine(directory, seen) for _ in range(2)] == [False, False]
        assert (watched.searches, seen) == ([0], {file_key(os.getpid())})
        watched.found = OLD
        assert watched.interpreters.examine(directory, set())
        assert watched.interpreters.examine(directory, seen)
        assert len(watched.searches) == 2


def test_what_the_programs_found_counts_where_its_recipe_is_known(watched: Watched) -> None:
    event = met(os.getpid(), state=PROCESS_PYTHON, interpreters_head=0x9005000, tstate_current=0x9006000)
    watched.processes.meet(event)
    watched.interpreters.met(event)
    assert watched.entry(event.identity).state == PROCESS_ANNOUNCED
    watched.recipes.add(event.executable, PYTHON)
    watched.interpreters.met(met(os.getpid()))
    assert watched.interpreters.get(event.identity) is None
    watched.interpreters.met(event)
    found = watched.interpreters.get(event.identity)
    assert found is not None
    assert found.bias == 0x9000000
    assert watched.interpreters.layout_of(event.identity) == PYTHON.layout
    assert watched.interpreters.file_of(event.identity) == PYTHON.file


def test_what_is_forgotten_is_counted_still(watched: Watched) -> None:
    watched.found = PYTHON
    watched.meet()
    watched.interpreters.forget({watched.identity, identity_of(os.getpid(), 9)})
    assert watched.interpreters.count == 1
    assert watched.entry(watched.identity).state == PROCESS_ANNOUNCED
    assert watched.interpreters.layout_of(watched.identity) is None
    assert watched.interpreters.file_of(watched.identity) == ""


def test_a_process_that_was_forgotten_is_not_other_any_more(watched: Watched) -> None:
    watched.meet()
    watched.pass_seconds(1)
    assert watched.entry(watched.identity).state == PROCESS_OTHER
    watched.interpreters.forget({watched.identity})
    assert watched.entry(watched.identity).state == PROCESS_ANNOUNCED
