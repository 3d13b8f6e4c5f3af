"""A recording without end, in segments of ten seconds: nothing is lost, nothing piles up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.profile.model import Outcome, Process, Profile
from pyflame_ebpf.recording.recorder import Recorder
from pyflame_ebpf.recording.segment_cutter import SegmentPlan
from pyflame_ebpf.stacks import naming, profile_naming
from pyflame_ebpf.stacks.code_table import CodeTable
from pyflame_ebpf.stacks.naming import FrameNames
from pyflame_ebpf.stacks.segments import Segment
from pyflame_ebpf.stacks.thread_names import ThreadNames
from pyflame_ebpf.stacks.unfinished_stacks import UnfinishedStacks
from pyflame_ebpf.tracking.native_frames import NativeFrames
from pyflame_ebpf.tracking.tracked_processes import ProcessTable
from tests.recording.conftest import Start
from tests.recording.made_up_host import MadeUpHost, process

TEN_SECONDS = SegmentPlan(length=10.0, kept=100_000)
JOB_EVERY = 600  # seconds
SERVICE, JOB = 1, 2  # numbers of a thread, its stack and its code object


def busy(host: MadeUpHost) -> None:
    """A service all the time, a job of its own now and then, and every second a process that is over at once."""
    second = int(host.now - 1000)
    host.sample(process(0), SERVICE, SERVICE, "serve")
    if second % JOB_EVERY < 5:
        host.sample(process(0), JOB, JOB, "job")
    host.sample(process(second), 1000 + second, 1000 + second, f"script_{second}")


def recorded(recorder: Recorder, seconds: float) -> Iterator[Segment]:
    """The segments of so many seconds, in steps of a second."""
    while recorder.elapsed < seconds:
        if (segment := recorder.step(1.0)) is not None:
            yield segment


def named(recorder: Recorder, segment: Segment) -> Profile:
    naming = recorder.begin_naming(segment)
    assert naming.name(60.0)
    return naming.profile()


def test_segments_follow_each_other_and_end_on_time(started: Start) -> None:
    recorder = started(MadeUpHost(busy), TEN_SECONDS)
    segments = [*recorded(recorder, 95)]
    elapsed = recorder.elapsed
    segments.append(recorder.end())
    begins = [segment.begin for segment in segments]
    assert begins == pytest.approx([10 * number for number in range(10)], abs=0.01)
    assert [segment.end for segment in segments] == [*begins[1:], elapsed]
    recorder.close()


def test_every_sample_is_in_exactly_one_segment_and_in_its_second(started: Start) -> None:
    host = MadeUpHost(busy)
    recorder = started(host, TEN_SECONDS)
    segments = [*recorded(recorder, 1205), recorder.end()]
    assert [count for segment in segments for _, count in segment.counts] == host.counted
    for segment in segments:
        assert all(int(segment.begin) <= second < segment.end for second, _ in segment.counts)
    recorder.close()


def test_a_segment_has_what_the_counters_gained_meanwhile(started: Start) -> None:
    recorder = started(MadeUpHost(busy), TEN_SECONDS)
    for segment in recorded(recorder, 200):
        assert segment.counters["samples"] == sum(count.samples for _, count in segment.counts)
    recorder.close()


def test_each_segment_s_profile_has_its_own_time_samples_and_counters(started: Start) -> None:
    recorder = started(MadeUpHost(busy), TEN_SECONDS)
    for segment in recorded(recorder, 100):
        profile = named(recorder, segment)
        assert profile.recording.started == 1000 + segment.begin
        assert profile.recording.duration == segment.end - segment.begin
        assert profile.recording.counters.items() >= segment.counters.items()
        assert profile.total == segment.counters["samples"]
        assert {key.second for key in profile.samples} == set(range(10))
        assert profile.outcomes() == {Outcome.COMPLETE: profile.total}
    recorder.close()


def test_the_scheduler_s_figures_which_are_of_all_the_time_are_the_first_segment_s_alone(
    started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Process(process(0).tgid, "service", scheduler_cpu=1.5)
    monkeypatch.setattr(ProcessTable, "profile_processes", lambda _table: {process(0): known})
    recorder = started(MadeUpHost(busy), TEN_SECONDS)
    found = [named(recorder, segment).processes for segment in recorded(recorder, 20.5)]
    assert [next(each for each in processes if each.name == "service") for processes in found] == [
        known,
        replace(known, scheduler_cpu=None),
    ]
    recorder.close()


def test_processes_may_have_ended_since_the_last_segment_was_named(
    started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    recorder = started(MadeUpHost(busy), TEN_SECONDS)
    monkeypatch.setattr(NativeFrames, "look_again", lambda _native: looks.append(recorder.elapsed))
    ends = [named(recorder, segment).recording.started for segment in recorded(recorder, 35)]
    assert len(looks) == len(ends) == 3
    recorder.close()


def test_what_was_forgotten_is_sent_and_named_again_when_it_is_sampled_again(started: Start) -> None:
    host = MadeUpHost(busy)
    recorder = started(host, TEN_SECONDS)
    jobs = []
    for segment in recorded(recorder, 3 * JOB_EVERY):
        profile = named(recorder, segment)
        threads = {(thread.tid, thread.name) for thread in profile.threads}
        frames = {frame.name for frame in profile.frames}
        assert (SERVICE, "serve's thread") in threads
        assert frames >= {"serve", f"script_{int(segment.begin) + 5}"}
        assert (JOB, "job's thread") in threads or "job" not in frames
        jobs += [int(segment.begin)] * ("job" in frames)
        if JOB_EVERY / 2 < segment.begin % JOB_EVERY < JOB_EVERY - 11:  # and the next job has not begun
            assert JOB not in host.known_codes
            assert (process(0), JOB) not in host.known_threads
    assert jobs == [0, 600, 1200]
    assert Gone(stacks={JOB}) in host.gone
    recorder.close()


def test_what_is_kept_stays_flat_whatever_comes(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entries of everything that a recorder holds, with little room, so that it is soon used up."""
    monkeypatch.setattr(profile_naming, "STACKS_MAX", 50)
    monkeypatch.setattr(naming, "NAMES_MAX", 50)
    recorder = started(MadeUpHost(busy), SegmentPlan(length=10.0, kept=20_000))
    entries = []
    for segment in recorded(recorder, 4 * JOB_EVERY):
        named(recorder, segment)
        entries.append(entries_of(recorder))
    first, *later = (max(entries[period * 60 : (period + 1) * 60]) for period in range(4))
    assert later == pytest.approx([first] * 3, rel=0.05)
    recorder.close()


def entries_of(recorder: Recorder) -> int:
    """The number of things in all containers that can be reached from a recorder, without its host."""
    seen: set[int] = set()
    left: list[object] = [recorder]
    entries = 0
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, MadeUpHost | type):
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            left += [*thing, *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            left += thing
        elif type(thing).__module__.startswith("pyflame_ebpf"):
            names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            left += [getattr(thing, name) for name in names if hasattr(thing, name)]
            left += [vars(thing)] if hasattr(thing, "__dict__") else []
        if hasattr(thing, "__len__"):
            entries += len(thing)
    return entries


def test_what_is_gone_is_no_longer_in_any_store(started: Start) -> None:
    """Each fact of a process that is over is dropped by the store that holds it."""
    host = MadeUpHost(busy)
    recorder = started(host, TEN_SECONDS)
    for _ in recorded(recorder, 900):
        pass
    gone = process(50)
    assert recorder.progress().processes == 900
    assert gone not in recorder._table.profile_processes()
    assert 1050 not in recorder._collected.codes
    assert recorder._collected.threads.get(gone, 1050) == ""
    assert 1050 not in recorder._collected.kept
    assert 1050 not in host.known_codes
    assert (gone, 1050) not in host.known_threads
    recorder.close()


STORES = (CodeTable, ThreadNames, FrameNames, NativeFrames, UnfinishedStacks, ProcessTable)


def test_every_store_is_told_what_is_gone(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, list[Gone]] = {}

    def spy(store: type) -> None:
        def forget(_store: object, gone: Gone) -> None:
            told.setdefault(store.__name__, []).append(gone)

        monkeypatch.setattr(store, "forget", forget)

    for store in STORES:
        spy(store)
    host = MadeUpHost(busy)
    recorder = started(host, TEN_SECONDS)
    for _ in recorded(recorder, 200):
        pass
    assert any(gone.processes and gone.threads and gone.codes for gone in host.gone)
    assert told == {store.__name__: host.gone for store in STORES}
    recorder.close()


def test_a_process_that_is_kept_is_not_gone(started: Start) -> None:
    host = MadeUpHost(busy)
    recorder = started(host, TEN_SECONDS)
    for segment in recorded(recorder, 900):
        kept = {count.identity for segment in recorder._segments.kept for _, count in segment.counts}
        assert kept <= recorder._table.profile_processes().keys(), segment
    recorder.close()
