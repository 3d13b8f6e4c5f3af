"""Two aligned recordings with one list of processes, threads, frames and stacks."""

from __future__ import annotations

from pyflame_ebpf.compare.alignment import side_by_side
from pyflame_ebpf.profile.model import Frame, Process, Profile, SampleKey, Thread
from tests.profiles import ProfileWriter, python, recording

RUN, WAIT, IDLE = (python(name, "/srv/app.py", 1, 2) for name in ("run", "wait", "idle"))


def profile_of(processes: list[str], threads: list[str], samples: list[tuple[int, int, Frame, int]]) -> Profile:
    """A recording of commands and threads; samples are (process, thread, frame, count)."""
    made = Profile(
        recording(), [Process(0, "python3", command) for command in processes], [Thread(0, name) for name in threads]
    )
    writer = ProfileWriter(made)
    for process, thread, frame, count in samples:
        writer.add(process, thread, (frame,), count)
    return made


def told(profile: Profile) -> dict[tuple[str, str, str, str], int]:
    """Samples by command, process's name, thread and leaf."""
    found: dict[tuple[str, str, str, str], int] = {}
    for key, count in profile.samples.items():
        process = profile.processes[key.process]
        leaf = profile.frames_of(key.stack)[-1].name
        found[process.command, process.name, profile.threads[key.thread].name, leaf] = count
    return found


def test_each_side_keeps_its_samples_and_both_have_the_same_lists() -> None:
    before = profile_of(["web", "worker"], ["main", "pool"], [(0, 0, RUN, 1), (1, 1, WAIT, 2)])
    after = profile_of(["cron", "worker"], ["pool", "timer"], [(0, 1, IDLE, 4), (1, 0, WAIT, 8)])
    old, new = side_by_side(before, after)
    assert told(old) == {("web", "web", "main", "run"): 1, ("worker", "worker", "pool", "wait"): 2}
    assert told(new) == {("cron", "cron", "timer", "idle"): 4, ("worker", "worker", "pool", "wait"): 8}
    for lists in ("processes", "threads", "frames", "stacks"):
        assert getattr(old, lists) == getattr(new, lists)
    assert [process.command for process in old.processes] == ["web", "worker", "cron"]
    assert [thread.name for thread in old.threads] == ["main", "pool", "timer"]
    assert old.frames == [RUN, WAIT, IDLE]
    assert old.stacks == [(0,), (1,), (2,), (1,)]


def test_processes_that_run_the_same_are_one_and_their_samples_are_added() -> None:
    before = profile_of(["web", "web"], ["main"], [(0, 0, RUN, 1), (1, 0, RUN, 2)])
    old, _ = side_by_side(before, profile_of([], [], []))
    assert old.processes == [Process(0, "web", "web")]
    assert list(old.samples.values()) == [3]
    assert isinstance(next(iter(old.samples)), SampleKey)
