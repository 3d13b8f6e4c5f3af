"""Recordings of processes whose memory, arguments and files lie on a file system that does not answer any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.profile.model import FrameKind, Profile
from tests.command_line import BusyProcess, RunningRecording, wait_for_other_recordings
from tests.target_process import TARGETS

pytestmark = pytest.mark.root

DURATION = 3.0  # seconds
LATE = 30.0  # seconds after its end at which a recording has written everything on a busy host; a stuck one never has
LONG = "x" * 100_000  # an argument
IN_LIBRARY = (
    "import ctypes, sys\nlibrary = ctypes.CDLL(sys.argv[1])\nprint('ready', flush=True)\nlibrary.burn_in_library()"
)
BUSY_SCRIPT = "def work_of_script():\n    while True: pass\nprint('ready', flush=True)\nwork_of_script()\n"


class StallingFiles:
    """A mounted file system of our own, of which nothing is answered from ``stall`` on."""

    def __init__(self, mount_point: Path, files: Path) -> None:
        self.mount_point = mount_point
        self._server = subprocess.Popen(
            [sys.executable, TARGETS / "stalling_files.py", mount_point, files], stdout=subprocess.PIPE
        )
        self._wait_for(b"ready\n")

    def _wait_for(self, line: bytes) -> None:
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == line

    def stall(self) -> None:
        self._server.send_signal(signal.SIGUSR1)
        self._wait_for(b"stalled\n")

    def close(self) -> None:
        """Ends the server, so that everything that waits for it gets an error."""
        self._server.kill()
        self._server.communicate()
        subprocess.run(["umount", "--lazy", self.mount_point], check=True)


class Targets:
    """Busy processes that need the stalling files, each by what it does there."""

    def __init__(self, directory: Path, exits: contextlib.ExitStack) -> None:
        files, mounted = directory / "files", directory / "mounted"
        for each in (files, mounted):
            each.mkdir()
        self._program = directory / "stalling_target"
        source = TARGETS / "stalling_target.c"
        subprocess.run(["gcc", "-O1", "-rdynamic", "-o", self._program, source], check=True)
        library = TARGETS / "stalling_library.c"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", files / "library.so", library], check=True)
        (files / "file").write_bytes(bytes(1 << 20))
        (files / "script.py").write_text(BUSY_SCRIPT)
        shutil.copy(self._program, files / "program")
        self.mounted = mounted
        self._exits = exits
        self.files = StallingFiles(mounted, files)
        exits.callback(self.files.close)

    def start(self, what: str) -> int:
        """Starts what is called so, and returns its PID once it is ready."""
        python, program, file = sys.executable, str(self._program), f"{self.mounted}/file"
        commands = {
            "memory": [program, "memory", file],
            "arguments": [program, "arguments", file, LONG],
            "execution": [program, "execution", file],
            "library": [python, "-c", IN_LIBRARY, f"{self.mounted}/library.so"],
            "script": [python, f"{self.mounted}/script.py"],
            "executable": [f"{self.mounted}/program", "busy"],
            "perf map": ["unshare", "-m", "sh", "-c", f"mount --bind {self.mounted} /tmp; exec {program} made_code"],
        }
        process = subprocess.Popen(commands[what], stdout=subprocess.PIPE)
        self._exits.callback(_kill, process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # it ends once the server has: exits are run in reverse, so it is waited for elsewhere
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.2)


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
