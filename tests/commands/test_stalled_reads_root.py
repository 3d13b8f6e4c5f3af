"""Recordings of processes whose memory, arguments and files lie on a file system that does not answer any more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.profile.model import FrameKind, Profile
from tests.command_line import BusyProcess, RunningRecording, wait_for_other_recordings
from tests.stalling import Targets

pytestmark = pytest.mark.root

DURATION = 3.0  # seconds
LATE = 30.0  # seconds after its end at which a recording has written everything on a busy host; a stuck one never has


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Targets]:
    wait_for_other_recordings()
    with contextlib.ExitStack() as exits:
        yield Targets(tmp_path, exits)


def frames_of(profile: Profile, pid: int) -> set[tuple[FrameKind, str]]:
    """The kinds and names of all frames of a process."""
    return {
        (profile.frames[number].kind, profile.frames[number].name)
        for key in profile.samples
        if profile.processes[key.process].pid == pid
        for number in profile.stacks[key.stack]
    }


@pytest.mark.parametrize(
    "what", ["memory", "arguments", "execution", "library", "script", "executable", "perf map", "all of them"]
)
def test_a_stalled_file_system_costs_the_names_that_it_holds_and_no_time(
    targets: Targets, tmp_path: Path, what: str
) -> None:
    every = ["memory", "arguments", "execution", "library", "script", "executable", "perf map"]
    pids = {each: targets.start(each) for each in (every if what == "all of them" else [what])}
    targets.files.stall()
    if "execution" in pids:
        os.kill(pids["execution"], signal.SIGUSR1)
    with BusyProcess() as healthy:
        arguments = ("--all", "--source", "--duration", f"{DURATION:g}", "--output", tmp_path / "out")
        recording = RunningRecording(*arguments, stdout=subprocess.PIPE)
        recording.wait_for("recording all processes")
        began = time.monotonic()
        code = recording.end()
        took = time.monotonic() - began
    assert (code, took < DURATION + LATE) == (0, True), (took, recording.stderr)
    with (tmp_path / "out/profile.json.gz").open("rb") as saved:
        profile = load_profile(saved)
    assert (FrameKind.PYTHON, "<module>") in frames_of(profile, healthy.pid)
    if what == "memory":
        assert f"warning: given up: reading process {pids[what]} (stalling_target) did not return" in recording.stderr
        assert "; 1 given up: reading did not return" in recording.stdout
    if what == "script":
        assert (FrameKind.PYTHON, "work_of_script") in frames_of(profile, pids[what])
    if what == "library":
        assert "given up: reading files of device 0:" in recording.stderr
        assert (FrameKind.PYTHON, "<module>") in frames_of(profile, pids[what])


def test_ctrl_c_during_a_read_that_does_not_return_ends_the_recording(targets: Targets, tmp_path: Path) -> None:
    targets.start("memory")
    targets.files.stall()
    with BusyProcess():
        recording = RunningRecording("--all", "--output", tmp_path / "out", stdout=subprocess.PIPE)
        recording.wait_for("given up: reading process")
        began = time.monotonic()
        recording.process.send_signal(signal.SIGINT)
        assert (recording.end(), time.monotonic() - began < LATE) == (0, True)
    assert (tmp_path / "out/profile.json.gz").exists()


def test_what_is_stuck_when_the_recorder_is_killed_holds_nothing_of_it(targets: Targets, tmp_path: Path) -> None:
    targets.start("memory")
    targets.files.stall()
    recording = RunningRecording("--all", "--output", tmp_path / "out", stdout=subprocess.PIPE)
    recording.wait_for("given up: reading process")
    workers = _children(recording.process.pid)
    recording.process.kill()
    recording.end()
    held = {str(file.readlink()) for pid in workers for file in _files(pid)}
    assert workers
    assert {target.partition(":")[0] for target in held} <= {"/dev/null", "socket"}
    wait_for_other_recordings()


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _files(pid: int) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(Path(f"/proc/{pid}/fd").iterdir())
    return []
