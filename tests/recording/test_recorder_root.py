"""Whole recordings of real programs: what is sampled, named and counted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import check_shares
import pytest
from _recordings import python_frames, record_for, samples_of

from pyflame_ebpf.profile.model import FrameKind, Gil, Outcome, Profile, Stack
from pyflame_ebpf.recording import host_lock
from pyflame_ebpf.recording.recorder import Recorder, RecordOptions, prepared
from pyflame_ebpf.recording.segment_cutter import SegmentPlan
from pyflame_ebpf.stacks.segments import Segment
from tests.command_line import BusyProcess
from tests.conftest import StartTarget
from tests.interpreters import Interpreter, discover
from tests.profiles import framed_stacks
from tests.target_process import TargetProcess

pytestmark = pytest.mark.root


def interpreter_of(release: tuple[int, int]) -> Interpreter:
    return next(found for found in discover() if found.version == release)


# ---- every interpreter ----


@pytest.fixture(scope="module")
def verdicts() -> dict[str, check_shares.Verdict]:
    """Each interpreter's recording against what its target knows of itself; all in one recording."""
    return {verdict.name: verdict for verdict in check_shares.check(discover(), 5, 299)}


def test_functions_files_lines_and_calls_are_the_targets_own(
    verdicts: dict[str, check_shares.Verdict], each_interpreter: Interpreter
) -> None:
    verdict = verdicts[each_interpreter.name]
    assert verdict.samples > 100
    assert verdict.faults == Counter()


def test_stacks_reach_from_the_entry_of_the_thread_to_the_leaf(
    verdicts: dict[str, check_shares.Verdict], each_interpreter: Interpreter
) -> None:
    verdict = verdicts[each_interpreter.name]
    assert verdict.complete >= 0.99 * verdict.samples, verdict.incomplete


def test_sampled_shares_are_those_that_the_target_measured(
    verdicts: dict[str, check_shares.Verdict], each_interpreter: Interpreter
) -> None:
    for section, measured, sampled, allowed in verdicts[each_interpreter.name].shares:
        # 12 interpreters times 12 sections: five standard errors instead of three
        assert sampled == pytest.approx(measured, abs=allowed * 5 / 3), section


# ---- every kind of program ----


SampledStack = tuple[Outcome, Gil, bool, Stack]  # (outcome, GIL, kernel mode, stack)


@dataclass(frozen=True)
class Recorded:
    """One recording of many programs: its profile and their PIDs."""

    profile: Profile
    pids: dict[str, int]
    children: tuple[int, ...]
    short_lived: frozenset[int]

    def stacks(self, program: str) -> Counter[SampledStack]:
        """(outcome, GIL, kernel mode, stack) of a program's samples."""
        return self.stacks_of(self.pids[program])

    def stacks_of(self, pid: int) -> Counter[SampledStack]:
        found: Counter[SampledStack] = Counter()
        for key, count in samples_of(self.profile, pid).items():
            found[key.outcome, key.gil, key.kernel_mode, self.profile.frames_of(key.stack)] += count
        return found


class ShortLived(threading.Thread):
    """Starts a script that ends after 50 ms, again and again."""

    def __init__(self, interpreter: Interpreter) -> None:
        super().__init__()
        self.command = [*interpreter.argv, str(Path(__file__).parent.parent / "targets/short_lived.py"), "50"]
        self.pids: set[int] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            with subprocess.Popen(self.command, stdout=subprocess.DEVNULL) as process:
                self.pids.add(process.pid)

    def end(self) -> None:
        self.over.set()
        self.join()


PROGRAMS = {
    "busy": (3, 13),
    "system_calls": (3, 11),
    "gil_free 3.10": (3, 10),
    "gil_free 3.13": (3, 13),
    "gil_free 3.14": (3, 14),
    "named_threads": (3, 8),
    "forked": (3, 12),
    "execs": (3, 9),
    "subinterpreter 3.9": (3, 9),
    "subinterpreter 3.12": (3, 12),
    "subinterpreter 3.13": (3, 13),
}


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    with ExitStack() as running:
        pids: dict[str, int] = {}
        children: tuple[int, ...] = ()
        short = ShortLived(interpreter_of((3, 11)))
        for program, release in PROGRAMS.items():
            target = TargetProcess(interpreter_of(release), "workloads.py", program.split()[0])
            running.callback(target.close)
            if program == "forked":
                children = tuple(int(pid) for pid in target.read_line().split())
            target.wait_until_ready()
            pids[program] = target.pid
        shell = subprocess.Popen(["sh", "-c", "while :; do :; done"])
        running.callback(shell.wait)
        running.callback(shell.kill)
        pids["shell"] = shell.pid
        exec_later = threading.Timer(3, os.kill, (pids["execs"], signal.SIGUSR1))

        busy = [*children, *(pid for program, pid in pids.items() if program != "forked")]  # it waits for its children

        def start() -> None:
            short.start()
            exec_later.start()

        profile = record_for(6, 299, start, short.end, busy=busy)
        return Recorded(profile, pids, children, frozenset(short.pids))


def leaf_names(stacks: Counter[SampledStack]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (_, _, _, stack), count in stacks.items():
        frames = python_frames(stack)
        found[frames[-1].name if frames else ""] += count
    return found


def test_samples_are_the_ticks_that_were_neither_idle_nor_filtered(recorded: Recorded) -> None:
    counters = recorded.profile.recording.counters
    assert counters["samples"] == counters["ticks"] - counters["ticks_idle"] - counters["ticks_filtered"]


def test_every_sample_counted_is_in_the_profile_or_lost(recorded: Recorded) -> None:
    recording = recorded.profile.recording
    assert recorded.profile.total == recording.counters["samples"] - recording.lost


def test_nothing_is_lost_under_an_ordinary_load(recorded: Recorded) -> None:
    counters = recorded.profile.recording.counters
    names = ("counts_full", "stacks_dropped", "codes_dropped", "processes_dropped", "tail_calls_failed")
    assert {name: counters[name] for name in names} == dict.fromkeys(names, 0)
    assert recorded.profile.outcomes()[Outcome.STACK_LOST] == 0


def test_a_python_thread_that_computes_holds_the_gil(recorded: Recorded) -> None:
    stacks = recorded.stacks("busy")
    held = sum(count for (_, gil, _, _), count in stacks.items() if gil is Gil.HELD)
    assert stacks.total() > 30
    assert held >= 0.95 * stacks.total()


def test_kernel_frames_lie_on_the_python_frame_that_made_the_system_call(recorded: Recorded) -> None:
    stacks = recorded.stacks("system_calls")
    joined = sum(
        count
        for (_, _, kernel_mode, stack), count in stacks.items()
        if kernel_mode and stack[-1].kind is FrameKind.KERNEL and python_frames(stack)[-1:] and called_by_copy(stack)
    )
    assert stacks.total() > 30
    assert joined >= 0.3 * stacks.total()


def called_by_copy(stack: Stack) -> bool:
    return python_frames(stack)[-1].name == "copy_zeros"


@pytest.mark.parametrize("release", ["3.10", "3.13", "3.14"])
def test_c_code_without_the_gil_keeps_its_python_stack(recorded: Recorded, release: str) -> None:
    stacks = recorded.stacks(f"gil_free {release}")
    released = Counter({key: count for key, count in stacks.items() if key[1] is Gil.NOT_HELD})
    leaves = leaf_names(released)
    assert stacks.total() > 30
    assert leaves["digest_for_ever"] > 0
    assert leaves["compress_for_ever"] > 0
    assert leaves["digest_for_ever"] + leaves["compress_for_ever"] >= 0.9 * stacks.total()


def test_threads_carry_their_names(recorded: Recorded) -> None:
    found = {
        (recorded.profile.threads[key.thread].name, frame.name)
        for key in samples_of(recorded.profile, recorded.pids["named_threads"])
        for frame in recorded.profile.frames_of(key.stack)
        if frame.name == "spin_as"
    }
    assert found == {("reader", "spin_as"), ("writer", "spin_as")}


def test_a_child_that_was_forked_has_the_whole_stack(recorded: Recorded) -> None:
    for child in recorded.children:
        stacks = recorded.stacks_of(child)
        whole = sum(
            count
            for (outcome, _, _, stack), count in stacks.items()
            if outcome is Outcome.COMPLETE and {"<module>", "forked", "child_work"} <= {frame.name for frame in stack}
        )
        assert stacks.total() > 30
        assert whole >= 0.99 * stacks.total()


def test_a_process_that_runs_another_program_is_two_processes(recorded: Recorded) -> None:
    pid, profile = recorded.pids["execs"], recorded.profile
    python = {key.process for key in samples_of(profile, pid) if profile.processes[key.process].is_python}
    other = {key.process for key in samples_of(profile, pid) if not profile.processes[key.process].is_python}
    assert [profile.processes[index].interpreter[:11] for index in python] == ["CPython 3.9"]
    assert [profile.processes[index].name for index in other] == ["sh"]
    names = {
        frame.name for key in samples_of(profile, pid) for frame in profile.frames_of(key.stack) if key.process in other
    }
    assert not names & {"<module>", "execs", "before_exec"}


def test_a_program_that_is_not_python_appears_with_its_own_frames(recorded: Recorded) -> None:
    stacks = recorded.stacks("shell")
    assert stacks.total() > 30
    assert {outcome for outcome, _, _, _ in stacks} == {Outcome.NOT_PYTHON}
    kinds = {frame.kind for _, _, _, stack in stacks for frame in stack}
    assert FrameKind.NATIVE in kinds
    assert FrameKind.PYTHON not in kinds


@pytest.mark.parametrize("release", ["3.9", "3.12", "3.13"])
def test_a_subinterpreter_is_seen(recorded: Recorded, release: str) -> None:
    stacks = recorded.stacks(f"subinterpreter {release}")
    inside = sum(count for (*_, stack), count in stacks.items() if "inside" in {frame.name for frame in stack})
    assert stacks.total() > 30
    assert inside >= 0.95 * stacks.total()


def test_a_script_that_lives_50_ms_is_named_with_its_lines(recorded: Recorded) -> None:
    frames: Counter[bool] = Counter()
    for pid in recorded.short_lived:
        for (outcome, _, _, stack), count in recorded.stacks_of(pid).items():
            if outcome is not Outcome.NOT_PYTHON:
                whole = outcome is Outcome.COMPLETE and all(frame.line for frame in python_frames(stack))
                frames[whole] += count
    assert frames[True] > 30
    assert frames[True] >= 0.95 * frames.total(), frames


# ---- one process only ----


def test_only_the_processes_asked_for_are_sampled(start_target: StartTarget) -> None:
    wanted = start_target(interpreter_of((3, 11)), "workloads.py", "busy")
    start_target(interpreter_of((3, 11)), "workloads.py", "busy")
    profile = record_for(1, 199, pids=[wanted.pid], busy=[wanted.pid])
    counters = profile.recording.counters
    assert {profile.processes[key.process].pid for key in profile.samples} == {wanted.pid}
    assert counters["ticks_filtered"] > 0
    assert profile.total == counters["ticks"] - counters["ticks_idle"] - counters["ticks_filtered"]


@pytest.mark.parametrize("depth", [20, 200, 900])
def test_a_deep_stack_is_whole(start_target: StartTarget, depth: int) -> None:
    target = start_target(interpreter_of((3, 12)), "workloads.py", "deep", str(depth))
    profile = record_for(1, 199, pids=[target.pid], busy=[target.pid])
    depths = {len(python_frames(stack)) for stack in framed_stacks(profile) if python_frames(stack)}
    assert max(depths) == depth
    assert {key.outcome for key in profile.samples} == {Outcome.COMPLETE}


def test_a_stack_too_deep_says_that_frames_are_missing(start_target: StartTarget) -> None:
    target = start_target(interpreter_of((3, 12)), "workloads.py", "deep", "2500")
    profile = record_for(1, 199, pids=[target.pid], busy=[target.pid])
    (outcome,) = {key.outcome for key in profile.samples}
    assert outcome is Outcome.TOO_DEEP
    assert all(stack[0].name == "[truncated: too deep]" for stack in framed_stacks(profile))


ATTACHED = ("[perf_event]", "bpf_link", "bpf-raw-tracepoint", "pyflame-ebpf/lock")


def attached() -> set[str]:
    """What this process has open of all that samples the host, and of its lock."""
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {name for link in links for name in ATTACHED if name in link}


def test_a_copy_that_saves_has_nothing_of_the_host_attached() -> None:
    reader, writer = os.pipe()
    with endless_recorder() as recorder:
        assert {"[perf_event]", "pyflame-ebpf/lock"} < attached()
        if not (copy := os.fork()):
            try:
                recorder.profile_so_far()
                os.write(writer, repr(attached()).encode())
            finally:
                os._exit(0)
        os.close(writer)  # a copy that fails says nothing
        os.waitpid(copy, 0)
        before = recorder.progress().samples
        while recorder.progress().samples == before:  # the recording goes on
            recorder.step()
    assert os.read(reader, 4096) == b"set()"
    os.close(reader)


@contextlib.contextmanager
def endless_recorder() -> Iterator[Recorder]:
    """Cut by the second, of which little is kept; over a process that computes.

    Started once no other recording on this host comes first.
    """
    with contextlib.ExitStack() as entered:
        recorder = None
        while recorder is None:
            with contextlib.suppress(host_lock.AlreadyRecording):
                recorder = entered.enter_context(prepared(RecordOptions(), entered, SegmentPlan(length=1.0, kept=1)))
            time.sleep(0.05)
        entered.enter_context(contextlib.closing(recorder))
        entered.enter_context(BusyProcess())
        recorder.start()
        yield recorder


def test_what_was_forgotten_is_sent_again_when_it_is_sampled_again() -> None:
    with endless_recorder() as recorder, BusyProcess("def again():\n    while True: pass\nagain()") as busy:

        def segments_until(is_done: Callable[[list[tuple[str, set[str]]]], bool]) -> None:
            """Steps until a segment's stacks are so: each the name of its thread, and those of its frames."""
            while True:
                segment = recorder.step()
                if segment is not None and is_done(stacks_of(named(recorder, segment), busy.pid)):
                    return

        def is_named(stacks: list[tuple[str, set[str]]]) -> bool:
            return any(thread.startswith("python") and "again" in names for thread, names in stacks)

        def knows_code() -> bool:
            codes = recorder._collected.codes._codes
            kept = map(codes.get, list(codes._by_id))
            return any(code.name == "again" for code in kept if code)

        segments_until(is_named)
        assert knows_code()
        busy.stop()
        for _ in range(4):
            segments_until(lambda stacks: not stacks)
        assert not knows_code()
        busy.process.send_signal(signal.SIGCONT)
        segments_until(is_named)


def named(recorder: Recorder, segment: Segment) -> Profile:
    naming = recorder.begin_naming(segment)
    assert naming.name(60.0)
    return naming.profile()


def stacks_of(profile: Profile, pid: int) -> list[tuple[str, set[str]]]:
    return [
        (profile.threads[key.thread].name, {frame.name for frame in profile.frames_of(key.stack)})
        for key in profile.samples
        if profile.processes[key.process].pid == pid
    ]
