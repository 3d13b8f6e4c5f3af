"""Runs pyflame-ebpf as its users do: as a program of its own, judged by what it prints, writes and exits with."""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.target_process import wait_until_used

PYFLAME = (sys.executable, "-m", "pyflame_ebpf")
CHECKOUT = Path(__file__).resolve().parent.parent
LOCK_FILE = Path("/run/pyflame-ebpf/lock")
TIMEOUT = 120.0
RECORDED_FILES = ["flamegraph.svg", "processes.csv", "profile.json.gz", "report.html", "stacks.folded"]
BUSY = "import time\nwhile time.process_time() < {seconds}: pass"  # of CPU: on a busy host it takes longer
SAMPLED = 0.5  # seconds of CPU that are certain to be sampled: some 50 ticks at the default frequency


def environment(**changes: str) -> dict[str, str]:
    """Ours, without what would make root look like a user of sudo, with this checkout on the path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    return {**inherited, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "100", "NO_COLOR": "1", **changes}


def pyflame(
    *arguments: str | Path,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    command: Sequence[str] = PYFLAME,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; ``prefix`` is a command that starts it."""
    return subprocess.run(
        [*prefix, *command, *map(str, arguments)],
        env=env or environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def wait_for_other_recordings() -> None:
    """Return once nobody else on this host records; there can be only one at a time."""
    if LOCK_FILE.exists():
        with LOCK_FILE.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


class RunningRecording:
    """A ``record`` that goes on; its standard error is collected, its standard output too."""

    def __init__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: int = -1,
        command: Sequence[str] = PYFLAME,
    ) -> None:
        self.process = subprocess.Popen(
            [*command, "record", *map(str, arguments)],
            env=env or environment(),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        self.stdout = self.stderr = ""

    def wait_for(self, text: str) -> None:
        """Return once standard error has said this."""
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        deadline = time.monotonic() + TIMEOUT
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while text not in self.stderr:
                assert selector.select(max(0.0, deadline - time.monotonic())), f"never said {text!r}: {self.stderr}"
                chunk = os.read(descriptor, 65536)
                assert chunk, f"ended without saying {text!r}: {self.stderr}"
                self.stderr += chunk.decode()

    def end(self) -> int:
        """Wait for its end and give its exit code."""
        said, rest = self.process.communicate(timeout=TIMEOUT)
        self.stdout += (said or b"").decode()
        self.stderr += rest.decode()
        return self.process.returncode

    def interrupt(self) -> int:
        """End it with Ctrl-C's signal and give its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def __enter__(self) -> RunningRecording:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        self.wait_for("recording ")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def record_while_used(*busy: BusyProcess, arguments: Sequence[str | Path], **options: Any) -> RunningRecording:
    """Record until each of these has used ``SAMPLED`` seconds of CPU, and to the end; see RunningRecording."""
    with RunningRecording(*arguments, **options) as recording:
        for process in busy:
            process.wait_until_used()
        recording.interrupt()
    return recording


class BusyProcess:
    """A Python program, or another command, that uses one CPU until it is killed."""

    def __init__(self, program: str = "while True: pass", command: Sequence[str] = (sys.executable, "-c")) -> None:
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command, program])
        self.pid = self.process.pid

    @classmethod
    def shell(cls) -> BusyProcess:
        """A busy program that is not Python."""
        return cls("while :; do :; done", ("sh", "-c"))

    def wait_until_used(self, seconds: float = SAMPLED) -> None:
        """Return once it has used so many seconds of CPU from now on."""
        wait_until_used(self.pid, seconds)

    def stop(self) -> None:
        """Let it use no CPU from now on."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def __enter__(self) -> BusyProcess:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.kill()
