"""Processes that run the tests of one mutant each, forked from one that has imported what tests import."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import resource
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hypothesis
import pytest
from _mutants import Mutant

PACKAGE = "pyflame_ebpf"
PURE = "not walker and not root and not browser and not node"
MEMORY_MAX = 4 << 30  # bytes of address space for each process
CPU_FACTOR, CPU_LEAST = 3, 5  # the tests of a mutant may take so many times their usual CPU time, and seconds more
WALL_FACTOR = 6  # of the CPU time allowed: other work may have most of the machine
RECORDING = 3600.0  # seconds of CPU for all unchanged tests
SURVIVED, KILLED, CANNOT_RUN, NOTHING_RAN = 0, 1, 4, 5  # pytest's exit statuses

Function = tuple[str, int]  # path of the module, first line of the function


@dataclass(slots=True)
class TestRecord:
    """What the unchanged tests do: the package's functions that each calls, its CPU seconds, the imports of all.

    Tests that fail without any change are left out of ``calls``.
    """

    calls: dict[str, set[Function]] = field(default_factory=dict)
    calls_of_fixtures: dict[str, set[Function]] = field(default_factory=dict)  # by test file
    seconds: dict[str, float] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def choose(self, mutant: Mutant, seconds: float) -> list[str]:
        """Return the tests that a mutant meets, those of the changed function first, then the quickest."""
        room = f"tests/{Path(mutant.path).parts[1]}/"
        ranks: dict[str, tuple[int, float]] = {}
        for test, called in self.calls.items():
            called_for_it = called | self.calls_of_fixtures.get(test.partition("::")[0], set())
            if (mutant.path, mutant.function) in called_for_it:
                ranks[test] = (0, self.seconds[test])
            elif any(path == mutant.path for path, _ in called_for_it) and (
                test.startswith(room) or not mutant.function
            ):
                ranks[test] = (1, self.seconds[test])
            elif test.startswith(room) and not mutant.function:
                ranks[test] = (2, self.seconds[test])
        chosen: list[str] = []
        for test in sorted(ranks, key=ranks.__getitem__):
            if chosen and seconds < self.seconds[test]:
                break
            seconds -= self.seconds[test]
            chosen.append(test)
        return chosen


class Recorder:
    """A pytest plugin that fills a TestRecord with the tests that pass."""

    def __init__(self, tree: Path) -> None:
        self.prefix = f"{tree}/{PACKAGE}/"
        self.cut = len(f"{tree}/")
        self.record = TestRecord()

    @contextmanager
    def noting_calls(self, noted: set[Function]) -> Iterator[None]:
        """Note the package's functions that any thread calls meanwhile."""
        before = sys.gettrace()

        def note(frame: FrameType, _event: str, _argument: object) -> None:
            code = frame.f_code
            if code.co_filename.startswith(self.prefix):
                noted.add((code.co_filename[self.cut :], code.co_firstlineno))

        threading.settrace(note)
        sys.settrace(note)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note what a test calls and how long it takes, its processes included."""
        started, noted = sum(os.times()[:4]), set[Function]()
        with self.noting_calls(noted):
            result = yield
        self.record.calls[item.nodeid] = noted
        self.record.seconds[item.nodeid] = sum(os.times()[:4]) - started
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Generator[None, object, object]:
        """Note what a fixture of more than one test calls: every test of its file depends on that."""
        if fixturedef.scope == "function":
            return (yield)
        with self.noting_calls(self.record.calls_of_fixtures.setdefault(request.node.nodeid.partition("::")[0], set())):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test failed."""
        if report.failed:
            self.record.failed.append(report.nodeid)


class Chosen:
    """A pytest plugin that runs some tests of those that were collected, in the order given."""

    def __init__(self, tests: Iterable[str]) -> None:
        self.order = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep and order what was collected."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A process that runs the tests of one mutant."""

    mutant: Mutant
    tree: Path
    pid: int
    deadline: float  # by time.monotonic()


def run_tests(tree: Path, arguments: Sequence[str], plugin: object, cpu_seconds: float) -> NoReturn:
    """Run pytest in a copy of the checkout, as a process that was forked for it; ends with pytest's status."""
    os.setsid()
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if Path(path) != Path(__file__).parent)]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = os.open(f"{tree}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # The same examples in every run, and no search for the smallest one that fails.
    every_check, phases = list(hypothesis.HealthCheck), [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, suppress_health_check=every_check, phases=phases
    )
    hypothesis.settings.load_profile("mutants")
    status = 3
    try:
        fixed = ["-q", "-m", PURE, "-p", "no:cacheprovider", "-W", "ignore", f"--basetemp={tree}.tmp"]
        status = int(pytest.main([*fixed, *arguments], plugins=[plugin]))
        if isinstance(plugin, Recorder):
            plugin.record.modules = [
                name
                for name, module in sys.modules.items()
                if not str(getattr(module, "__file__", None) or tree).startswith(str(tree))
            ]
            Path(f"{tree}.record").write_bytes(pickle.dumps(plugin.record))
    finally:
        os._exit(status)


def record_tests(tree: Path, tests: Sequence[str]) -> TestRecord:
    """Run the unchanged tests, and import what they import, so that processes forked from now on need not."""
    pid = os.fork()
    if not pid:
        run_tests(tree, tests, Recorder(tree), RECORDING)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) not in (SURVIVED, KILLED):
        sys.stdout.write(Path(f"{tree}.log").read_text()[-4000:])
        sys.exit(2)
    record = pickle.loads(Path(f"{tree}.record").read_bytes())
    assert isinstance(record, TestRecord)
    for test in record.failed:
        print(f"left out, for it fails without any change: {test}")
        record.calls.pop(test, None)
    for name in record.modules:
        with suppress(Exception):
            importlib.import_module(name)
    assert PACKAGE not in sys.modules, "every mutant's process imports the package itself"
    gc.freeze()
    return record


def start(mutant: Mutant, tree: Path, tests: Sequence[str], seconds: float) -> Run:
    """Write a mutant into a copy of the checkout and fork the process that tests it."""
    (tree / mutant.path).write_text(mutant.text)
    pid = os.fork()
    if not pid:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        files = sorted({test.partition("::")[0] for test in tests})
        run_tests(tree, ["-x", *files], Chosen(tests), seconds)
    return Run(mutant=mutant, tree=tree, pid=pid, deadline=time.monotonic() + WALL_FACTOR * seconds)


def finish(run: Run, original: Path) -> str:
    """End a mutant's processes and undo its change; returns "killed", "late" or "survived"."""
    status = os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1])
    shutil.copy2(original, run.tree / run.mutant.path)  # with its time, so that its compiled form still counts
    if status is None or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "late"
    if code == CANNOT_RUN:
        sys.exit(f"pytest could not begin, see {run.tree}.log")
    return "survived" if code in (SURVIVED, NOTHING_RAN) else "killed"


def wait_for_any(runs: Sequence[Run]) -> Run:
    """Return a run whose process has ended or whose time is over."""
    descriptors = {os.pidfd_open(run.pid): run for run in runs}
    next_deadline = min(runs, key=lambda run: run.deadline)
    ended, _, _ = select.select(descriptors, [], [], max(0.0, next_deadline.deadline - time.monotonic()))
    for descriptor in descriptors:
        os.close(descriptor)
    return descriptors[ended[0]] if ended else next_deadline


def judge(
    mutants: Iterable[Mutant], record: TestRecord, trees: Sequence[Path], seconds: float
) -> Iterator[tuple[Mutant, str]]:
    """Test all mutants, as many at once as there are trees beside the first, and yield what became of each."""
    original, *free = trees
    running: list[Run] = []
    todo = list(mutants)[::-1]
    while todo or running:
        if todo and free:
            tests = record.choose(todo[-1], seconds)
            usual = sum(record.seconds[test] for test in tests)
            running.append(start(todo.pop(), free.pop(), tests, CPU_FACTOR * usual + CPU_LEAST))
            continue
        run = wait_for_any(running)
        running.remove(run)
        yield run.mutant, finish(run, original / run.mutant.path)
        free.append(run.tree)
