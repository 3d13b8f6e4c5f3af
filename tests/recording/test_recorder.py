"""The steps of a recording of a made-up host."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pyflame_ebpf.commands.background_save import BackgroundSave
from pyflame_ebpf.profile.model import Outcome, Profile
from pyflame_ebpf.recording import host_lock, intake
from pyflame_ebpf.recording import recorder as recorder_module
from pyflame_ebpf.recording.recorder import SOON, Recorder
from pyflame_ebpf.recording.segment_cutter import SegmentPlan
from pyflame_ebpf.sampling.counts import SETTLING
from pyflame_ebpf.sampling.events import Event, ProcessEvent
from pyflame_ebpf.stacks.unfinished_stacks import UnfinishedStacks
from tests.recording.conftest import Start
from tests.recording.made_up_host import MadeUpHost, process

BY_SECOND = SegmentPlan(length=1.0, kept=1)  # as top has segments; the least that can be kept


def service(host: MadeUpHost) -> None:
    """Runs all the time."""
    host.sample(process(0), 1, 1, "serve")


def unsent(host: MadeUpHost) -> None:
    """Its stack never comes."""
    host.sample(process(0), 1, 1, "serve", sends=False)


def step_until(recorder: Recorder, elapsed: float, wait: float = 0.5) -> None:
    while recorder.elapsed < elapsed:
        recorder.step(wait)


def test_every_second_has_its_samples(started: Start) -> None:
    recorder = started(MadeUpHost(service, slowness=1.3))
    step_until(recorder, 60)
    seconds = {key.second for key in recorder.finish().samples}
    assert seconds == set(range(len(seconds)))
    assert len(seconds) >= 60


def test_a_second_ends_on_time(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    while not host.takes:
        recorder.step(0.3)
    assert [moment - 1000 for moment in host.flips] == pytest.approx([1.0], abs=0.002)
    assert recorder.kept == (0.0, host.flips[0] - 1000)
    recorder.close()


def test_what_happens_while_counts_settle_is_taken_in(started: Start) -> None:
    """The programs are answered between a flip of the counts and their taking, which comes no later than it must."""
    polls: list[float] = []
    host = MadeUpHost(lambda host: polls.append(host.now))
    recorder = started(host)
    while not host.takes:
        recorder.step(0.005)
    assert len([moment for moment in polls if host.flips[0] <= moment < host.takes[0]]) >= 3
    assert SETTLING <= host.takes[0] - host.flips[0] <= SETTLING + 0.006
    recorder.close()


def test_a_step_that_waits_for_nothing_neither_takes_counts_too_early_nor_twice(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    while recorder.elapsed < 3:
        recorder.step(0.0)
        host.now += 0.001
    assert [len(host.flips), len(host.takes)] == [2, 2]
    assert all(take - flip >= SETTLING for flip, take in zip(host.flips, host.takes, strict=False))
    recorder.close()


def test_steps_that_wait_until_counts_are_due_come_to_an_end(started: Start) -> None:
    """A wait of 0, since counts are due, is followed by their flip or their taking."""
    recorder = started(MadeUpHost(service))
    steps = 0
    while recorder.elapsed < 10:
        recorder.step(5.0)
        steps += 1
    assert steps <= 30
    recorder.close()


def test_a_sample_after_the_flip_is_of_the_second_that_begins(started: Start) -> None:
    def runs(host: MadeUpHost) -> None:
        host.sample(process(0), 1, 1 + len(host.flips), f"serve_{len(host.flips)}")

    host = MadeUpHost(runs)
    recorder = started(host)
    step_until(recorder, 5.01, 0.01)
    profile = recorder.finish()
    assert profile.total == host.sampled
    sampled = {(key.second, profile.frames_of(key.stack)[0].name) for key in profile.samples}
    assert sampled == {(second, f"serve_{second}") for second in range(6)}


def test_nothing_is_lost_that_was_set_apart_when_the_recording_ends(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    while not host.flips:
        recorder.step(0.3)
    recorder.step(0.005)
    profile = recorder.finish()
    assert profile.total == host.sampled
    assert {key.second for key in profile.samples} == {0, 1}


def test_the_last_ticks_settle_before_their_counts_are_taken(started: Start) -> None:
    host = MadeUpHost(service, slowness=0.1)  # an urgent event ends every wait early
    recorder = started(host)
    ended = host.now
    recorder.finish()
    assert host.takes[0] - ended >= SETTLING


def test_a_step_waits_no_longer_than_it_is_told(started: Start) -> None:
    recorder = started(MadeUpHost(service))
    recorder.step(SOON)
    assert recorder.elapsed == pytest.approx(SOON, abs=0.001)
    recorder.close()


def test_a_step_waits_shortly_while_stacks_are_yet_to_be_walked(
    started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnfinishedStacks, "finish", lambda _stacks, _seconds: True)
    recorder = started(MadeUpHost(service))
    recorder.step()
    assert recorder.elapsed == pytest.approx(SOON, abs=0.001)
    recorder.close()


def test_the_programs_are_told_when_the_recording_ends_and_no_step_waits_longer(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host, duration=1.31)
    assert host.duration == 1.31
    while recorder.elapsed < 1.31:
        recorder.step(10.0)
    assert recorder.elapsed == pytest.approx(1.31, abs=0.002)
    recorder.close()


def test_a_recording_that_was_ended_late_has_its_duration(started: Start) -> None:
    """The programs sampled nothing after the deadline, however late user space was."""
    host = MadeUpHost(service)
    recorder = started(host, duration=2.5)
    step_until(recorder, 2.4)
    host.now += 20
    profile = recorder.finish()
    assert profile.recording.duration == 2.5
    assert {key.second for key in profile.samples} == {0, 1, 2}


def test_a_recorder_that_needs_too_much_memory_slows_the_clock(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    step_until(recorder, 3.1)
    assert host.ticks == []
    monkeypatch.setattr(recorder_module, "resident_memory", lambda: 2 << 30)
    step_until(recorder, 5.1)
    assert host.ticks == [2]
    counters = recorder.finish().recording.counters
    assert (counters["lowered_for_memory"], counters["lowered_for_cpu"]) == (1, 0)


def test_a_step_ends_in_time_however_much_came_and_nothing_of_it_is_lost(
    started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Event] = []
    monkeypatch.setattr(intake, "TAKING", 0.0)
    monkeypatch.setattr(intake.Intake, "_take", lambda _intake, event: taken.append(event))

    def runs(host: MadeUpHost) -> None:
        for number in range(20):
            host.sample(process(0), 1, number, "serve")

    recorder = started(MadeUpHost(runs))
    recorder.step(0.1)
    assert len(taken) == 1
    for _ in range(50):
        recorder.step(0.1)
    recorder.finish()
    assert len(taken) == len(set(map(id, taken))) == 42  # a process, a thread, 20 code objects and 20 stacks


def test_what_makes_stacks_whole_is_taken_in_before_what_waits(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Event] = []
    monkeypatch.setattr(intake, "TAKING", 0.0)
    monkeypatch.setattr(intake.Intake, "_take", lambda _intake, event: taken.append(event))

    def runs(host: MadeUpHost) -> None:
        number = round((host.now - 1000) / 0.1)  # of the step
        for stack in range(9):
            host.sample(process(number), 1, 10 * number + stack, "serve")

    recorder = started(MadeUpHost(runs))
    recorder.step(0.1)
    recorder.step(0.1)
    assert [event.identity for event in taken if isinstance(event, ProcessEvent)] == [process(0), process(1)]
    recorder.close()


def test_a_recording_is_one_segment_which_is_all_of_its_time(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    assert [recorder.step(0.5) for _ in range(40)] == [None] * 40
    elapsed = recorder.elapsed
    segment = recorder.end()
    assert (segment.begin, segment.end) == (0.0, elapsed)
    assert [count for _, count in segment.counts] == host.counted
    recorder.close()


def test_the_profile_of_a_recording_has_what_was_sampled(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    step_until(recorder, 2.5)
    elapsed = recorder.elapsed
    profile = recorder.finish()
    assert profile.recording.duration == elapsed
    assert profile.recording.started == 1000.0
    assert profile.total == profile.recording.counters["samples"] == recorder.progress().samples
    assert profile.outcomes() == {Outcome.COMPLETE: profile.total}
    assert [(each.pid, each.name) for each in profile.processes] == [(process(0).tgid, "name")]
    assert [(thread.tid, thread.name) for thread in profile.threads] == [(1, "serve's thread")]
    assert max(key.second for key in profile.samples) == 2


def test_samples_that_are_drained_after_the_end_are_of_the_last_second(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    step_until(recorder, 1.5, 0.1)
    host.now = 1002.0
    assert not recorder.step(0.0)
    assert host.flips[-1] == 1002.0
    recorder.stop()
    profile = recorder.finish()
    assert {key.second for key in profile.samples} == {0, 1}
    assert profile.recording.duration == 2.0


def test_a_recording_that_is_over_at_once_has_a_second(started: Start) -> None:
    recorder = started(MadeUpHost(service))
    recorder.stop()
    assert {key.second for key in recorder.finish().samples} == {0}


def test_a_recording_asks_for_no_stack_again(started: Start) -> None:
    host = MadeUpHost(unsent)
    recorder = started(host)
    step_until(recorder, 3)
    recorder.close()
    assert not host.gone


# ---- a recording without end ----


def test_a_stack_that_never_came_is_asked_for_again_each_second(started: Start) -> None:
    host = MadeUpHost(unsent)
    recorder = started(host, SegmentPlan(length=10.0, kept=1 << 20))
    step_until(recorder, 3.5)
    recorder.close()
    assert [gone.stacks for gone in host.gone] == [{1}] * 3


def test_a_saving_begins_with_what_is_kept(started: Start) -> None:
    recorder = started(MadeUpHost(service), BY_SECOND)
    step_until(recorder, 10.1)
    saved = recorder.profile_so_far()
    begin, end = recorder.kept
    assert saved.recording.duration == end - begin < 5
    assert saved.recording.started == 1000 + begin
    assert end == pytest.approx(10, abs=0.6)
    seconds = {key.second for key in saved.samples}
    assert seconds == set(range(len(seconds)))


def test_counters_of_a_saving_begin_with_what_is_kept(started: Start) -> None:
    recorder = started(MadeUpHost(service), BY_SECOND)
    recorder._collected.codes.unnamed = 7
    step_until(recorder, 10)
    saved = recorder.profile_so_far()
    assert saved.recording.counters["codes_unnamed"] == 0
    assert saved.recording.counters["samples"] == saved.total
    assert saved.recording.scheduler_cpu is None


def test_all_is_kept_of_a_view_that_is_young(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host, SegmentPlan(length=1.0, kept=1 << 20))
    step_until(recorder, 3.1)
    assert recorder.kept == (0.0, host.flips[2] - 1000)
    assert recorder.profile_so_far().total == recorder.progress().samples
    recorder.close()


def test_a_copy_that_still_writes_holds_neither_the_host_nor_its_lock(
    started: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_lock, "LOCK_FILE", str(tmp_path / "lock"))
    host = MadeUpHost(service)
    from_here, from_copy = socket.socketpair()

    def profile() -> Profile:
        found = recorder.profile_so_far()
        from_here.close()
        from_copy.sendall(b"attached" if host.attached else b"detached")
        from_copy.recv(1)
        return found

    with from_here:
        with host_lock.only_one_profiler() as lock:

            def let_go() -> None:
                lock.close()
                host.let_go()

            recorder = started(host, BY_SECOND, let_go=let_go)
            save = BackgroundSave(tmp_path / "saved", profile)
            from_copy.close()
            assert from_here.recv(8) == b"detached"
            with pytest.raises(host_lock.AlreadyRecording), host_lock.only_one_profiler():
                pass
            assert host.attached
        with host_lock.only_one_profiler():
            assert save.outcome() is None
    outcome = save.outcome(None)
    assert outcome is not None
    assert outcome.failure is None
    recorder.close()
