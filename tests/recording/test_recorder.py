"""The steps of a recording of a made-up host."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pyflame_ebpf.commands.background_save import BackgroundSave
from pyflame_ebpf.profile.model import Outcome, Profile
from pyflame_ebpf.recording import host_lock
from pyflame_ebpf.recording.recorder import SOON, Recorder
from pyflame_ebpf.recording.segment_cutter import SegmentPlan
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
    while not host.drains:
        recorder.step(0.3)
    assert recorder.elapsed == pytest.approx(1.0, abs=0.002)
    recorder.close()


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


def test_a_recording_is_one_segment_which_is_all_of_its_time(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    assert [recorder.step(0.5) for _ in range(40)] == [None] * 40
    segment = recorder.end()
    assert (segment.begin, segment.end) == (0.0, recorder.elapsed)
    assert [count for _, count in segment.counts] == host.counted
    recorder.close()


def test_the_profile_of_a_recording_has_what_was_sampled(started: Start) -> None:
    host = MadeUpHost(service)
    recorder = started(host)
    step_until(recorder, 2.5)
    profile = recorder.finish()
    assert profile.recording.duration == recorder.elapsed
    assert profile.recording.started == 1000.0
    assert profile.total == profile.recording.counters["samples"] == recorder.progress().samples
    assert profile.outcomes() == {Outcome.COMPLETE: profile.total}
    assert [(each.pid, each.name) for each in profile.processes] == [(process(0).tgid, "name")]
    assert [(thread.tid, thread.name) for thread in profile.threads] == [(1, "serve's thread")]
    assert max(key.second for key in profile.samples) == 2


def test_samples_that_are_drained_after_the_end_are_of_the_last_second(started: Start) -> None:
    recorder = started(MadeUpHost(service))
    step_until(recorder, 2)
    recorder.stop()
    profile = recorder.finish()
    assert {key.second for key in profile.samples} == {0, 1}
    assert profile.recording.duration == pytest.approx(2.0, abs=0.001)


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
    step_until(recorder, 10)
    saved = recorder.profile_so_far()
    begin, end = recorder.kept
    assert saved.recording.duration == end - begin < 5
    assert saved.recording.started == 1000 + begin
    assert end == pytest.approx(10, abs=0.6)
    seconds = {key.second for key in saved.samples}
    assert seconds == set(range(len(seconds)))
    assert saved.total == 2 * len(seconds)


def test_counters_of_a_saving_begin_with_what_is_kept(started: Start) -> None:
    recorder = started(MadeUpHost(service), BY_SECOND)
    recorder._collected.codes.unnamed = 7
    step_until(recorder, 10)
    saved = recorder.profile_so_far()
    assert saved.recording.counters["codes_unnamed"] == 0
    assert saved.recording.counters["samples"] == saved.total
    assert saved.recording.scheduler_cpu is None


def test_all_is_kept_of_a_view_that_is_young(started: Start) -> None:
    recorder = started(MadeUpHost(service), SegmentPlan(length=1.0, kept=1 << 20))
    step_until(recorder, 3)
    assert recorder.kept == (0.0, recorder.elapsed)
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
