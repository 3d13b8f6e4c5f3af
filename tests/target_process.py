"""A program under test: started in any interpreter, waited for until it says "ready", never left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from tests.interpreters import Interpreter

TARGETS = Path(__file__).parent / "targets"
_PROCESS_CPU_CLOCK = 2  # CPUCLOCK_SCHED, of all threads: include/linux/posix-timers_types.h
READY_TIMEOUT = 60.0  # seconds; a stuck target, not a slow machine, takes longer
LOOK = 0.02  # seconds between two looks at a clock


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that a process has used in all its threads; OSError once it has ended."""
    return time.clock_gettime(~pid << 3 | _PROCESS_CPU_CLOCK)


def wait_until_used(pid: int, seconds: float, timeout: float = READY_TIMEOUT) -> None:
    """Return once a process has used so many seconds of CPU from now on, which on a busy host takes longer."""
    end, deadline = cpu_seconds(pid) + seconds, time.monotonic() + timeout
    while (used := cpu_seconds(pid)) < end:
        assert time.monotonic() < deadline, f"process {pid} was {end - used:.2f} s of CPU short after {timeout} s"
        time.sleep(LOOK)


class TargetError(AssertionError):
    """A target did not do its part; the message carries what it wrote to stderr."""


class TargetProcess:
    """A running program; ``pid`` is that of the interpreter itself, ``script`` the path as the program sees it."""

    def __init__(self, interpreter: Interpreter, program: str | Path, *arguments: str, **environment: str) -> None:
        self.interpreter = interpreter
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._unread = b""
        self._copy: Path | None = None
        self.script = self._place(TARGETS / program)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        # setpriv, chroot and env all exec, so the PID stays; the target dies with the tests even if they are killed.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *interpreter.argv, self.script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            start_new_session=True,
        )
        self.pid = self.process.pid

    def _place(self, program: Path) -> str:
        """Copy the program and its siblings to where the interpreter can see them, if it cannot already."""
        root = Path(self.interpreter.root)
        if root == Path("/"):
            return str(program)
        self._copy = Path(tempfile.mkdtemp(prefix="pyflame-target-", dir=root / "tmp"))
        self._copy.chmod(0o755)
        shutil.copytree(program.parent, self._copy, dirs_exist_ok=True)
        return "/" + str((self._copy / program.name).relative_to(root))

    def read_line(self, timeout: float = READY_TIMEOUT) -> str:
        """Return the next line of stdout without its newline; TargetError after ``timeout`` seconds or at the end."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TargetError(f"{self} said nothing for {timeout} s{self._diagnosis()}")
                chunk = os.read(descriptor, 65536)
                if not chunk:
                    raise TargetError(f"{self} ended with status {self.process.wait(timeout)}{self._diagnosis()}")
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def wait_until_ready(self) -> None:
        """Return once the program has printed "ready"."""
        line = self.read_line()
        if line != "ready":
            raise TargetError(f"{self} said {line!r}, not 'ready'{self._diagnosis()}")

    def write_line(self, line: str = "") -> None:
        """Send a line to the program's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def _diagnosis(self) -> str:
        self._stderr.seek(0)
        return f"; its stderr: {self._stderr.read().decode(errors='replace')}"

    def __str__(self) -> str:
        return f"{self.script} in {self.interpreter}"

    def close(self) -> None:
        """Kill the program and its children, and remove its copy."""
        with contextlib.suppress(ProcessLookupError):  # it ended, and was waited for, earlier
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a line it did not live to read
                    stream.close()
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
