"""Children of a test: one that waits, with any name, and one that has ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Names itself as its standard input says (prctl(2), PR_SET_NAME), then waits.
PROGRAM = """
import ctypes, sys
name = sys.stdin.buffer.read(int(sys.argv[1]))
if name:
    ctypes.CDLL(None).prctl(15, ctypes.c_char_p(name), 0, 0, 0)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def waiting(*arguments: str, name: bytes = b"") -> Iterator[subprocess.Popen[bytes]]:
    """A child that waits until it is killed, at the latest when it is left."""
    command = [sys.executable, "-c", PROGRAM, str(len(name)), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(name)
            process.stdin.flush()
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def ended_child() -> int:
    """The PID of a child that has ended and was reaped."""
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    return process.pid
