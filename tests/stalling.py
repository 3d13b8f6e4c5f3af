"""Files that stop to answer, and busy processes whose reading needs them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.target_process import TARGETS

LONG = "x" * 100_000  # an argument
IN_LIBRARY = r"""
import ctypes, sys
burn = ctypes.CDLL(sys.argv[1]).burn_in_library
print('ready', flush=True)
burn()
"""
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
            "perf map": [
                "unshare",
                "-m",
                "sh",
                "-c",
                f"exec 3<{program}; mount --bind {self.mounted} /tmp; exec /proc/self/fd/3 made_code",
            ],
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
