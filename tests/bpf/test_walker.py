"""The BPF walker headers, compiled with gcc, walk live interpreters without root.

Each target says itself what its stacks are (sys._current_frames), and every frame must agree: name, file, first line
and the line that is executing.
"""

from __future__ import annotations

import ctypes
import functools
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.interpreter import Interpreter as CPython
from pyflame_ebpf.cpython.interpreter import interpreter_of
from pyflame_ebpf.cpython.layout import GilKind
from pyflame_ebpf.host import maps
from pyflame_ebpf.profile.model import FrameKind, Gil, Outcome
from pyflame_ebpf.sampling import abi, events
from pyflame_ebpf.stacks.weave import runs
from tests.bpf.live_walker import MAX_FRAMES, LiveWalker, MadeUpMemory, WalkedStack, compile_fuzzer, compile_harness
from tests.interpreters import Interpreter, discover
from tests.profiles import framed_stacks
from tests.target_process import TargetProcess

pytestmark = pytest.mark.walker

GIL_SECONDS = 20.0  # a thread that wants the GIL gets it sooner
FUZZ_ROUNDS = 20_000  # some 3 s with the sanitizers

# Chosen here, not skipped in the test: in this tier nothing may be skipped.
WITH_SUBINTERPRETERS = [interpreter for interpreter in discover() if interpreter.version >= (3, 8)]
WITH_PLACES = [interpreter for interpreter in discover() if interpreter.version >= (3, 12)]
WITH_LIBRARIES = [interpreter for interpreter in discover() if interpreter.shared]

# What tests/targets/walk_target.py blocks in, with the names of 3.11 and later.
KINDS_OF_FRAMES = {
    "<module>",
    "main_nested",
    "Outer.Nested.__getattr__",
    "Outer.Nested.static",
    "Outer.Nested.of_class",
    "Outer.Nested.method",
    "Outer.Nested.method.<locals>.closure",
    "in_class_body.<locals>.Body",
    "in_class_body.<locals>.Body.Inner",
    "by_map.<locals>.<lambda>",
    "by_sort.<locals>.<lambda>",
    "awaiting",
    "coroutine",
    "generator",
    "delegating",
    "decorated.<locals>.wrapper",
    "enter",
    "𠀀.𠀁",
    "名前.<locals>.<lambda>",
    "名前",
    "é",
    "long_" * 600,
    "名" * 1200,
    "table",
    "recursive",
    "leaf",
}


@dataclass(frozen=True)
class Account:
    """A thread by its own account; ``stack`` of [name, file, first line, executing line], outermost first."""

    thread_pointer: int
    stack: list[list[object]]


@dataclass(frozen=True)
class Walked:
    """A target that has announced its stacks, and the walker over its memory."""

    walker: LiveWalker
    threads: dict[str, Account]

    def walk(self, thread: str = "main") -> WalkedStack:
        return self.walker.walk(self.threads[thread].thread_pointer)


StartWalked = Callable[[Interpreter, str], Walked]


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_harness(tmp_path_factory.mktemp("walker"))


@pytest.fixture(scope="session")
def file_facts() -> FileFactsCache:
    return FileFactsCache()


def start_walked(
    harness: ctypes.CDLL, file_facts: FileFactsCache, interpreter: Interpreter, mode: str
) -> tuple[Walked, TargetProcess]:
    """walk_target.py in a mode, its interpreter found as the profiler finds it."""
    target = TargetProcess(interpreter, "walk_target.py", mode)
    try:
        target.wait_until_ready()
        said = json.loads(target.read_line())
        found = interpreter_of(target.pid, file_facts)
        assert isinstance(found, CPython)
    except BaseException:
        target.close()
        raise
    threads = {thread["name"]: Account(thread["thread_pointer"], thread["stack"]) for thread in said["threads"]}
    return Walked(LiveWalker(harness, target.pid, found), threads), target


@pytest.fixture(scope="session")
def walk_target(harness: ctypes.CDLL, file_facts: FileFactsCache) -> Iterator[StartWalked]:
    """A target in a mode, the same one for all tests: it blocks, and nothing that a test does changes it."""
    with ExitStack() as running:

        @functools.cache
        def start(interpreter: Interpreter, mode: str) -> Walked:
            walked, target = start_walked(harness, file_facts, interpreter, mode)
            running.callback(target.close)
            return walked

        yield start


def start_code(pid: int) -> int:
    """mm->start_code, field 26 of /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[26 - 3])


# ---- stacks ----


@pytest.mark.parametrize("thread", ["main", "worker", "raw"])
def test_stack_is_the_one_that_the_interpreter_itself_gives(
    each_interpreter: Interpreter, walk_target: StartWalked, thread: str
) -> None:
    target = walk_target(each_interpreter, "nested")
    stack = target.walk(thread)
    assert stack.outcome is Outcome.COMPLETE
    assert target.walker.named(stack) == target.threads[thread].stack


def test_that_stack_has_every_kind_of_frame(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "nested")
    names = {name for name, *_ in target.walker.named(target.walk())}
    has_qualified_names = each_interpreter.version >= (3, 11)
    wanted = KINDS_OF_FRAMES if has_qualified_names else {name.rpartition(".")[2] for name in KINDS_OF_FRAMES}
    assert wanted <= names
    assert len(target.threads["main"].stack) > 240


def test_non_ascii_names_and_file_names_come_out_right(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "nested")
    frames = [frame for frame in target.walker.named(target.walk()) if frame[1] == "näme😀.py"]
    plain = [str(name).rpartition(".")[2] for name, *_ in frames if name != "<module>"]
    without_inlined = [name for name in plain if name != "<listcomp>"]
    assert without_inlined == ["enter", "𠀁", "名前", "é", "<lambda>"]


def test_outermost_frame_is_the_module_or_the_thread_s_entry(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    target = walk_target(each_interpreter, "nested")
    entries = {thread: target.walker.named(target.walk(thread))[0][0] for thread in target.threads}
    bootstrap = "Thread._bootstrap" if each_interpreter.version >= (3, 11) else "_bootstrap"
    assert entries == {"main": "<module>", "worker": bootstrap, "raw": "recursive"}


def test_too_deep_stack_keeps_its_innermost_frames_and_says_so(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    target = walk_target(each_interpreter, "deep")
    stack = target.walk()
    assert stack.outcome is Outcome.TOO_DEEP
    mark, *frames = target.walker.named(stack)
    assert mark == ["[truncated: too deep]", "", 0, 0]
    assert len(stack.frames) == MAX_FRAMES
    assert len(frames) > MAX_FRAMES - 10  # there are few boundaries in it
    assert frames == target.threads["main"].stack[-len(frames) :]


@pytest.mark.parametrize("interpreter", WITH_SUBINTERPRETERS, ids=str)
def test_innermost_of_a_thread_s_interpreters_is_walked(interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(interpreter, "subinterpreter")
    stack = target.walk()
    frames = target.walker.named(stack)
    assert stack.outcome is Outcome.COMPLETE
    assert [(name, line) for name, _, _, line in frames] == [("<module>", 5), ("leaf", 3)]
    assert target.walker.find_thread(target.threads["main"].thread_pointer).matches == 2


def test_same_stack_has_the_same_id_and_another_thread_s_has_another(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    target = walk_target(each_interpreter, "nested")
    first, again, other = target.walk("raw"), target.walk("raw"), target.walk("main")
    assert first.stack_id == again.stack_id != other.stack_id


def test_code_ids_tell_code_objects_apart(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "nested")
    ids = {frame.address: frame.code_id for frame in target.walk().python}
    assert len(set(ids.values())) == len(ids) > 20


# ---- calls of the evaluation loop ----


def test_each_call_of_the_evaluation_loop_is_told_as_the_release_tells_it(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    stack = walk_target(each_interpreter, "nested").walk()
    kinds = Counter(frame.kind for frame in stack.frames)
    entry = abi.FRAME_PYTHON | abi.FRAME_ENTRY
    if each_interpreter.version < (3, 11):
        assert set(kinds) == {entry}
    elif each_interpreter.version == (3, 11):
        assert set(kinds) == {abi.FRAME_PYTHON, entry}
    else:
        assert set(kinds) == {abi.FRAME_PYTHON, abi.FRAME_BOUNDARY}
    assert stack.frames[-1].kind in (entry, abi.FRAME_BOUNDARY)


def test_recursion_without_calls_of_c_is_one_run_from_3_11_on(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    stack = walk_target(each_interpreter, "deep").walk()
    raw = [(frame.address, frame.code_id, frame.position, frame.kind) for frame in stack.frames]
    longest = max(len(run.frames) for run in runs(raw))
    assert longest > 1500 if each_interpreter.version >= (3, 11) else longest == 1


@pytest.mark.parametrize("interpreter", WITH_PLACES, ids=str)
def test_boundaries_lie_on_the_thread_s_stack_callers_further_up(
    interpreter: Interpreter, walk_target: StartWalked
) -> None:
    target = walk_target(interpreter, "nested")
    places = [frame.address for frame in target.walk().frames if frame.kind == abi.FRAME_BOUNDARY]
    if interpreter.version >= (3, 15):
        places.pop()  # of the thread state's own frame, which is no call
    (stack,) = (mapping for mapping in maps.mappings(target.walker.pid) if mapping.path == "[stack]")
    assert len(places) > 5
    assert places == sorted(set(places))
    assert stack.start <= places[0] < places[-1] < stack.end


# ---- code objects ----


def code_event(target: Walked, frame: abi.StackFrame) -> events.CodeEvent:
    event = events.parse_record(target.walker.code_record(frame))
    assert isinstance(event, events.CodeEvent)
    return event


def test_only_what_is_too_long_is_left_to_user_space(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "nested")
    stack = target.walk()
    missing = {
        name: code_event(target, frame).missing
        for frame, (name, *_) in zip(stack.python, reversed(target.walker.named(stack)), strict=True)
    }
    assert {name: flags for name, flags in missing.items() if flags} == {
        "long_" * 600: abi.CODE_NO_NAME,
        "名" * 1200: abi.CODE_NO_NAME,
        "table": abi.CODE_NO_LINE_TABLE,
    }


def test_code_object_that_cannot_be_read_is_all_missing(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    target = walk_target(each_interpreter, "deep")
    event = code_event(target, abi.StackFrame(address=0xDEAD0000, code_id=5))
    everything = abi.CODE_NO_NAME | abi.CODE_NO_FILE | abi.CODE_NO_LINE_TABLE
    assert (event.missing, event.name, event.file, event.line_table) == (everything, b"", b"", b"")


# ---- threads and the GIL ----


def test_thread_that_runs_no_python_is_not_found(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "nested")
    search = target.walker.find_thread(0x1234)
    assert (search.found, search.matches) == (0, 0)


def test_thread_state_is_known_again_by_its_own_thread_only(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    target = walk_target(each_interpreter, "nested")
    mine, other = target.threads["main"].thread_pointer, target.threads["worker"].thread_pointer
    found = target.walker.find_thread(mine).found
    assert target.walker.is_known(found, mine)
    assert not target.walker.is_known(found, other)
    assert not target.walker.is_known(found + 8, mine)


def test_blocked_threads_do_not_hold_the_gil(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "nested")
    assert target.walker.layout.gil_kind != GilKind.UNKNOWN
    states = {thread: target.walker.gil(account.thread_pointer) for thread, account in target.threads.items()}
    assert states == dict.fromkeys(target.threads, Gil.NOT_HELD)


def test_thread_that_computes_holds_the_gil(
    each_interpreter: Interpreter, harness: ctypes.CDLL, file_facts: FileFactsCache
) -> None:
    target, process = start_walked(harness, file_facts, each_interpreter, "holding")
    with closing(process):
        assert_main_alone_holds_the_gil(target)


def assert_main_alone_holds_the_gil(target: Walked) -> None:
    main = target.threads["main"]
    deadline = time.monotonic() + GIL_SECONDS
    # Having said "ready" it has yet to take the GIL back, and to return to the line that never ends.
    while target.walker.gil(main.thread_pointer) is not Gil.HELD or len(target.walk().python) != len(main.stack):
        assert time.monotonic() < deadline
    assert target.walker.named(target.walk()) == main.stack
    assert target.walker.gil(target.threads["raw"].thread_pointer) is Gil.NOT_HELD


# ---- memory that is not what it should be ----


def test_frame_that_cannot_be_read_ends_the_stack_and_says_so(
    each_interpreter: Interpreter, walk_target: StartWalked
) -> None:
    target = walk_target(each_interpreter, "deep")
    stack = target.walker.walk_from(0xDEAD0000)
    assert (stack.outcome, stack.frames) == (Outcome.UNREADABLE_FRAME, ())
    profile = target.walker.profile(stack)
    ((mark,),) = framed_stacks(profile)
    assert (mark.kind, mark.name) == (FrameKind.MARK, "[truncated: frame unreadable]")


def test_memory_that_is_no_frame_ends_the_walk(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "deep")
    start = target.walker.find_thread(target.threads["main"].thread_pointer).found
    stack = target.walker.walk_from(start)
    assert stack.outcome in (Outcome.COMPLETE, Outcome.UNREADABLE_FRAME, Outcome.UNREADABLE_CODE, Outcome.TOO_DEEP)
    assert len(stack.frames) <= MAX_FRAMES


def test_walk_after_a_failed_one_starts_afresh(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    target = walk_target(each_interpreter, "nested")
    before = target.walk()
    target.walker.walk_from(0xDEAD0000)
    assert target.walk().stack_id == before.stack_id


def test_process_that_has_ended_gives_no_stack(
    each_interpreter: Interpreter, harness: ctypes.CDLL, file_facts: FileFactsCache
) -> None:
    target, process = start_walked(harness, file_facts, each_interpreter, "deep")
    frame = target.walker.find_thread(target.threads["main"].thread_pointer).found
    process.close()
    assert target.walker.walk_from(frame).outcome is Outcome.UNREADABLE_FRAME


@pytest.mark.parametrize("seed", [1, 2])
def test_made_up_memory_is_walked_to_an_end_and_within_bounds(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    layouts = directory / "layouts"
    layouts.write_bytes(b"".join(bytes(abi.pack_layout(layout)) for layout in LAYOUTS.values()))
    run = subprocess.run(
        [compile_fuzzer(directory), layouts, str(FUZZ_ROUNDS), str(seed)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    reached = {name: int(count) for name, count in map(str.split, run.stdout.splitlines())}
    outcomes = (Outcome.COMPLETE, Outcome.UNREADABLE_FRAME, Outcome.UNREADABLE_CODE, Outcome.TOO_DEEP)
    wanted = [f"outcome_{abi.OUTCOMES.index(outcome)}" for outcome in outcomes]
    wanted += ["search_0", "search_1", "search_2", "inner", "entry", "boundary", "found", "whole_codes", "identified"]
    assert all(reached[name] for name in wanted), reached


@pytest.fixture
def made_up(harness: ctypes.CDLL) -> MadeUpMemory:
    return MadeUpMemory(harness, LAYOUTS[3, 9])


def test_code_object_that_replaced_another_at_its_address_has_another_id(made_up: MadeUpMemory) -> None:
    made_up.put_frame(0x100, code=0x400)
    first = made_up.walk(0x100)
    made_up.put(0x400 + made_up.layout.code_first_line, 7)
    second = made_up.walk(0x100)
    assert [frame.address for frame in first.frames] == [frame.address for frame in second.frames] == [0x400]
    assert first.frames[0].code_id != second.frames[0].code_id
    assert first.stack_id != second.stack_id


def test_frames_that_go_in_a_circle_are_too_deep(made_up: MadeUpMemory) -> None:
    made_up.put_frame(0x100, code=0x400, back=0x200)
    made_up.put_frame(0x200, code=0x500, back=0x100)
    stack = made_up.walk(0x100)
    assert (stack.outcome, len(stack.frames)) == (Outcome.TOO_DEEP, MAX_FRAMES)


def test_stack_as_deep_as_there_is_room_for_is_complete(made_up: MadeUpMemory) -> None:
    for depth in range(MAX_FRAMES):
        last = depth == MAX_FRAMES - 1
        made_up.put_frame(0x1000 + depth * 128, code=0x400, back=0 if last else 0x1000 + (depth + 1) * 128)
    stack = made_up.walk(0x1000)
    assert (stack.outcome, len(stack.frames)) == (Outcome.COMPLETE, MAX_FRAMES)


@pytest.mark.parametrize("threads", [1, 126, 127, 128, 129, 700])
def test_thread_of_the_last_interpreter_is_found_behind_many_others(made_up: MadeUpMemory, threads: int) -> None:
    interpreters = (0x100, 0x180)
    made_up.put(0x10, interpreters[0])
    made_up.put_interpreter(interpreters[0], following=interpreters[1], thread_ids=range(1000, 1000 + threads))
    made_up.put_interpreter(interpreters[1], following=0, thread_ids=[77, 5])
    search = made_up.find_thread(0x10, 5)
    assert (search.found, search.matches) == (made_up.thread_states[5], 1)


def test_newest_thread_state_of_a_thread_is_taken(made_up: MadeUpMemory) -> None:
    made_up.put(0x10, 0x100)
    made_up.put_interpreter(0x100, following=0, thread_ids=[9, 5, 8, 5])
    search = made_up.find_thread(0x10, 5)
    assert (search.found, search.matches) == (made_up.newest_thread_states[5], 2)


# ---- the interpreter, found as the programs find it ----


def test_programs_find_the_roots_that_user_space_finds(each_interpreter: Interpreter, walk_target: StartWalked) -> None:
    walker = walk_target(each_interpreter, "deep").walker
    found = walker.interpreter
    if each_interpreter.argv[0] == "env":  # run by a dynamic linker of its own, which is then the program
        assert not found.recipe.usable
        return
    assert found.recipe.in_library == each_interpreter.shared
    assert walker.identify(found.recipe, start_code(walker.pid)) == (found.interpreters_head, found.tstate_current)


@pytest.mark.parametrize("interpreter", WITH_LIBRARIES, ids=str)
def test_another_build_of_the_interpreter_s_file_is_not_taken_for_it(
    interpreter: Interpreter, walk_target: StartWalked
) -> None:
    walker = walk_target(interpreter, "deep").walker
    recipe = walker.interpreter.recipe
    assert len(recipe.library_build_id_start) == 8
    changed = replace(recipe, library_build_id_start=b"otherone")
    assert walker.identify(changed, start_code(walker.pid)) is None


@pytest.mark.parametrize("interpreter", WITH_LIBRARIES, ids=str)
def test_library_that_is_not_loaded_is_not_found(interpreter: Interpreter, walk_target: StartWalked) -> None:
    walker = walk_target(interpreter, "deep").walker
    recipe = walker.interpreter.recipe
    assert walker.identify(replace(recipe, library_dynamic_vaddr=0x10), start_code(walker.pid)) is None


@pytest.mark.parametrize("first_thread", [True, False])
def test_identity_and_executable_are_read_from_the_kernel_s_structs(harness: ctypes.CDLL, first_thread: bool) -> None:
    identity = abi.ProcessIdentity(123456789, 42, 3)
    file = abi.FileKey(2**40 + 1, 8 << 20 | 1, 0xFEDCBA98)
    given = abi.ProcessRecord(identity=identity, executable=file, start_code=0x555555554000)
    read = abi.ProcessRecord()
    harness.harness_read_process(ctypes.byref(given), int(not first_thread), ctypes.byref(read))
    assert bytes(read) == bytes(given)


def test_kernel_thread_has_no_executable(harness: ctypes.CDLL) -> None:
    given = abi.ProcessRecord(identity=abi.ProcessIdentity(5, 2, 0))
    read = abi.ProcessRecord(start_code=1, executable=abi.FileKey(1, 1, 1))
    harness.harness_read_process(ctypes.byref(given), 0, ctypes.byref(read))
    assert bytes(read) == bytes(given)
