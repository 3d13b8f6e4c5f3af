"""The steps of a recording: a clock and a sampler of the test's own, no BPF programs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TextIO

import pytest

from pyflame_ebpf.commands.background_save import BackgroundSave
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.recording import host_lock
from pyflame_ebpf.recording import recorder as recorder_module
from pyflame_ebpf.recording.recorder import Recorder, RecordOptions
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.tracking.process_table import ProcessTable


class FakeSampler:
    """Has one sample whenever it is asked; waiting takes ``slowness`` times as long as it should."""

    def __init__(self, slowness: float) -> None:
        self.now = 1000.0
        self.drains = 0
        self.attached = True
        self.forgotten: list[int] = []
        self._slowness = slowness

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def poll(self, timeout_ms: int) -> list[object]:
        self.now += timeout_ms / 1000 * self._slowness
        return []

    def drain_counts(self) -> list[Count]:
        self.drains += 1
        return [Count(Identity(1, 2, 3), 2, 4, 0, 0, False, 0, 1)]

    def counters(self) -> dict[str, int]:
        return dict.fromkeys(abi.COUNTERS, 0) | {"samples": self.drains}

    def forget_stack(self, stack_id: int) -> None:
        self.forgotten.append(stack_id)

    def forget_codes(self, code_ids: set[int]) -> None:
        assert not code_ids

    def forget_threads(self, threads: set[object]) -> None:
        assert not threads

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def let_go(self) -> None:
        self.attached = False

    def attach_new_cpus(self) -> None:
        pass


class NoSymbols:
    def lookup(self, _address: int) -> None:
        return None


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ProcessTable, "scan", lambda _table: 0)
    monkeypatch.setattr(recorder_module, "KernelSymbols", NoSymbols)

    def start(sampler: FakeSampler, *, live: bool = False, lock: TextIO | None = None) -> Recorder:
        monkeypatch.setattr(recorder_module, "time", sampler)
        recorder = Recorder(RecordOptions(), sampler, live=live, lock=lock)
        recorder.start()
        return recorder

    return start


def test_every_second_has_its_samples(started) -> None:
    recorder = started(FakeSampler(1.3))
    while recorder.elapsed < 60:
        recorder.step()
    seconds = {key.second for key in recorder.finish().samples}
    assert seconds == set(range(len(seconds)))
    assert len(seconds) >= 60


def test_a_second_ends_on_time(started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "POLL", 0.3)
    sampler = FakeSampler(1.0)
    recorder = started(sampler)
    while not sampler.drains:
        recorder.step()
    assert recorder.elapsed == pytest.approx(1.0, abs=0.002)
    recorder.close()


def test_samples_that_are_named_slowly_are_not_lost_to_the_live_view(started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "NAME", -1.0)
    sampler = FakeSampler(120.0)
    recorder = started(sampler, live=True)
    shown = 0
    while recorder.elapsed < 200:
        recorder.step()
        window = recorder.window()
        shown += window.total if window else 0
    assert sampler.drains > 10
    assert sampler.drains - shown <= 1  # the last window is not named yet
    recorder.close()


def test_a_live_view_has_stacks_sent_again_that_never_came(started) -> None:
    sampler = FakeSampler(1.0)
    recorder = started(sampler, live=True)
    while recorder.elapsed < 3:
        recorder.step()
        recorder.window()
    assert set(sampler.forgotten) == {4}


def test_what_a_live_view_saves_begins_with_what_it_keeps(started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "KEPT_FOR_SAVING", 1)
    recorder = started(FakeSampler(1.0), live=True)
    while recorder.elapsed < 10:
        recorder.step()
        recorder.window()
    saved = recorder.profile_so_far()
    assert saved.recording.duration < 5
    assert saved.recording.started + saved.recording.duration == pytest.approx(1010, abs=1.5)
    seconds = {key.second for key in saved.samples}
    assert seconds == set(range(len(seconds)))
    assert saved.total == pytest.approx(saved.recording.duration, abs=0.1)  # one sample a second


def test_counters_of_what_a_live_view_saves_begin_with_what_it_keeps(started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "KEPT_FOR_SAVING", 1)
    sampler = FakeSampler(1.0)
    recorder = started(sampler, live=True)
    recorder._symbolizer.unnamed_codes = 7
    while recorder.elapsed < 10:
        recorder.step()
        recorder.window()
    saved = recorder.profile_so_far().recording
    assert saved.counters["codes_unnamed"] == 0
    assert saved.counters["samples"] == round(saved.duration)


def test_a_copy_that_still_writes_holds_neither_the_host_nor_its_lock(
    started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_lock, "LOCK_FILE", str(tmp_path / "lock"))
    sampler = FakeSampler(1.0)
    from_here, from_copy = socket.socketpair()

    def profile() -> Profile:
        found = recorder.profile_so_far()
        from_here.close()
        from_copy.sendall(b"attached" if sampler.attached else b"detached")
        from_copy.recv(1)
        return found

    with from_here:
        with host_lock.only_one_profiler() as lock:
            recorder = started(sampler, live=True, lock=lock)
            save = BackgroundSave(tmp_path / "saved", profile)
            from_copy.close()
            assert from_here.recv(8) == b"detached"
            with pytest.raises(host_lock.AlreadyRecording), host_lock.only_one_profiler():
                pass
            assert sampler.attached
        with host_lock.only_one_profiler():
            assert save.outcome() is None
    assert save.outcome(None).failure is None
    recorder.close()
