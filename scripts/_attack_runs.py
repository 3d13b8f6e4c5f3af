"""Recordings under attack: starts the recorder as users do, and measures how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _recordings import CHECKOUT

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.proc import status_field
from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.profile.model import Profile

PYFLAME = (sys.executable, "-m", "pyflame_ebpf")
PYTHON = "/usr/bin/python3"  # the attackers' interpreter
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
PATIENCE = 300.0  # seconds to wait for another profiler on this host
HANGS = 60.0  # seconds after its deadline when a recording is taken to hang
LATE = 2.0  # seconds after its deadline by which a recording ends
MEMORY = 300  # MB that a recorder may use
BUSY_CODE = 8  # exit code while another profiler records
DEFECT_CODE = 70  # exit code of a defect
LOOK = 0.02  # seconds
ANNOUNCED = b"recording "
DEFECTS = ("Traceback", "a defect in", "Exception ignored")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a case has seen, and whether it is as it must be."""

    well: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An attack: what must be seen, and the function that tries it in an empty directory, quickly or in full."""

    name: str
    must: str
    run: Callable[[Path, bool], Seen]


@dataclass(slots=True)
class Ended:
    """How a recording ended; ``late`` in seconds after its deadline, ``memory`` in MB (peak), ``cpu`` in s."""

    code: int
    late: float
    memory: int
    cpu: float
    said: str
    profile: Profile | None = None
    hung: bool = False

    @property
    def has_defect(self) -> bool:
        """Whether it told of a defect, or Python did."""
        return self.code == DEFECT_CODE or any(text in self.said for text in DEFECTS)

    def text(self) -> str:
        """Tell it in one line."""
        first = next((line for line in self.said.splitlines() if line.startswith("error: ")), "")
        hung = "HUNG, " if self.hung else ""
        return f"{hung}exit code {self.code}, {self.late:+.1f} s, {self.memory} MB{'; ' + first if first else ''}"

    def well(self, *codes: int) -> bool:
        """Whether it ended in time, in little memory and with one of these codes (by default 0)."""
        in_bounds = not self.hung and self.late <= LATE and self.memory <= MEMORY
        return in_bounds and not self.has_defect and self.code in (codes or (0,))


@dataclass(slots=True)
class Recording:
    """A recorder that runs; ``began`` is when it announced that it samples, 0 before."""

    process: subprocess.Popen[bytes]
    errors: Path
    began: float = 0.0
    status: tuple[int, float, float] = field(default=(0, 0, 0))
    ended: bool = False
    peak: float = 0.0

    def _note_peak(self) -> None:
        """Note the peak of its memory in MB so far; what wait4 tells begins with that of the process that forked it."""
        with contextlib.suppress(OSError, IndexError):
            text = Path(f"/proc/{self.process.pid}/status").read_bytes()
            self.peak = int(status_field(text, b"VmHWM")[0]) / 1024

    def said(self) -> str:
        """Return its standard error so far."""
        return self.errors.read_bytes().decode("utf-8", "replace")

    def has_ended(self) -> bool:
        """Whether it has ended; notes when sampling began."""
        if not self.ended:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.process.returncode = code
                self.status = code, self.peak, usage.ru_utime + usage.ru_stime
                self.ended = True
            else:
                self._note_peak()
        if not self.began and b"\n" + ANNOUNCED in b"\n" + self.errors.read_bytes():
            self.began = time.monotonic()
        return self.ended

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds or the recorder has ended.  Returns whether that came in time."""
        deadline = time.monotonic() + seconds
        while not self.has_ended() and not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK)
        return True

    def end(self, deadline: float) -> bool:
        """Wait until some time after a deadline, then kill it.  Returns whether it ended by itself."""
        ended = self.wait_until(lambda: False, max(0.0, deadline + HANGS - time.monotonic()))
        if not ended:
            self.process.send_signal(signal.SIGKILL)
            self.wait_until(lambda: False, HANGS)
        return ended


def environment(**changes: str) -> dict[str, str]:
    """Return ours, without what makes root look like a user of sudo, with this checkout on the path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    return {**inherited, "PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1", **changes}


def start(
    arguments: Sequence[str],
    place: Path,
    *,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = PYFLAME,
) -> Recording:
    """Start a recorder in a directory; its standard error goes to a file there."""
    descriptor, errors = tempfile.mkstemp(prefix="stderr-", dir=place)
    try:
        process = subprocess.Popen(
            [*prefix, *command, *arguments],
            cwd=place,
            env=env or environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return Recording(process, Path(errors))


def record(  # noqa: PLR0913 - each is needed alone
    arguments: Sequence[str],
    place: Path,
    *,
    seconds: float,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = PYFLAME,
) -> Ended:
    """Record for some seconds into ``place``/out, once no other profiler records, and measure how it ends."""
    deadline = time.monotonic() + PATIENCE
    while True:
        output = Path(tempfile.mkdtemp(prefix="out-", dir=place))
        full = ["record", "--duration", f"{seconds:g}", "--output", str(output), *arguments]
        began = time.monotonic()
        recording = start(full, place, prefix=prefix, env=env, command=command)
        recording.wait_until(lambda recording=recording: bool(recording.began), HANGS)  # type: ignore[misc]
        due = (recording.began or began) + seconds
        ended = recording.end(due)
        code, memory, cpu = recording.status
        if code != BUSY_CODE or time.monotonic() > deadline:
            late = time.monotonic() - due if recording.began else 0.0
            return Ended(code, late, round(memory), cpu, recording.said(), saved_profile(output), not ended)
        time.sleep(0.3)


def saved_profile(output: Path) -> Profile | None:
    """Return the profile of a recording, None if there is none."""
    try:
        with (output / "profile.json.gz").open("rb") as file:
            return load_profile(file)
    except (OSError, PyflameError):
        return None


@contextlib.contextmanager
def attacker(
    program: str, *arguments: str, user: Sequence[str] = AS_NOBODY, ready: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """Run an attacker's program, by default as a plain user; yields it once it is ready, kills it at the end."""
    command = ["setpriv", "--pdeathsig", "KILL", *user, PYTHON, "-c", program, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True
    ) as process:
        try:
            if ready and process.stdout is not None:
                process.stdout.readline()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def functions(profile: Profile | None) -> set[str]:
    """Return the names of all functions in a profile."""
    return {frame.name for frame in profile.frames} if profile is not None else set()
