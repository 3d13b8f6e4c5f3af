"""An exception that nobody expected, while one process is met, read or named, costs that process and no other."""

from __future__ import annotations

from typing import Any

import pytest

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.recording.profiles import SegmentProfiles
from pyflame_ebpf.recording.recorder import Recorder
from pyflame_ebpf.stacks.code_table import CodeTable
from pyflame_ebpf.stacks.naming import FrameNames
from pyflame_ebpf.stacks.unfinished_stacks import UnfinishedStacks
from pyflame_ebpf.tracking.native_frames import NativeFrames
from pyflame_ebpf.tracking.tracked_processes import ProcessTable
from tests.recording.conftest import Start
from tests.recording.made_up_host import MadeUpHost, process

POISONED, HEALTHY = process(0), process(1)


def both(host: MadeUpHost) -> None:
    host.sample(POISONED, 1, 1, "poisoned")
    host.sample(HEALTHY, 2, 2, "healthy")


class Defect(Exception):
    """Nobody expects it."""


def fail_for_poisoned(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    """Makes a method raise if the poisoned process is among its arguments, or their identity."""
    before = getattr(owner, method)

    def poisoned(self: Any, first: Any, *others: Any) -> Any:
        if POISONED in (first, getattr(first, "identity", None)):
            raise Defect
        return before(self, first, *others)

    monkeypatch.setattr(owner, method, poisoned)


def names(profile: Profile, identity: Identity) -> set[str]:
    return {
        profile.frames[number].name
        for key in profile.samples
        if profile.processes[key.process].pid == identity.tgid
        for number in profile.stacks[key.stack]
    }


def recorded(recorder: Recorder) -> Profile:
    while recorder.elapsed < 3:
        recorder.step(0.5)
    return recorder.finish()


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (ProcessTable, "process_met"),
        (ProcessTable, "layout_of"),
        (NativeFrames, "watch"),
        (NativeFrames, "expect"),
        (CodeTable, "add"),
        (FrameNames, "stack"),
    ],
)
def test_the_other_process_has_all_of_its_samples_and_names(
    started: Start, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    fail_for_poisoned(monkeypatch, owner, method)
    host = MadeUpHost(both)
    profile = recorded(started(host))
    assert "healthy" in names(profile, HEALTHY)
    assert profile.total == sum(count.samples for count in host.counted)
    assert profile.recording.counters["defects"] > 0


def test_without_a_defect_none_is_counted(started: Start) -> None:
    profile = recorded(started(MadeUpHost(both)))
    assert (names(profile, POISONED), profile.recording.counters["defects"]) == ({"poisoned"}, 0)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (ProcessTable, "finish"),
        (UnfinishedStacks, "finish_all"),
        (SegmentProfiles, "_add_build_ids"),
        (NativeFrames, "expect"),
        (NativeFrames, "name"),
    ],
)
def test_a_defect_of_the_end_loses_no_sample(
    started: Start, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    def fail(*_: object) -> None:
        raise Defect

    monkeypatch.setattr(owner, method, fail)
    host = MadeUpHost(both)
    profile = recorded(started(host))
    assert (names(profile, POISONED), names(profile, HEALTHY)) == ({"poisoned"}, {"healthy"})
    assert profile.total == sum(count.samples for count in host.counted)
