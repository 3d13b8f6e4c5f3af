"""CPU that ``pyflame-ebpf top`` itself uses over many busy processes, once it is warm.

Run as root:  .venv/bin/python scripts/bench_top.py
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Sequence

from _recordings import CHECKOUT, Interpreter, TargetProcess, discover

WORKLOADS = (("deep", "20"), ("busy",), ("system_calls",), ("bursty",))
OLDEST = (3, 8)
SECOND_SCREEN = b"\x1b[?1049h"


def targets(interpreters: Sequence[Interpreter], number: int) -> list[TargetProcess]:
    """So many busy processes of several kinds, in the interpreters by turns."""
    started = []
    for index in range(number):
        work = WORKLOADS[index % len(WORKLOADS)] if len(interpreters) > 1 else ("busy",)
        started.append(TargetProcess(interpreters[index % len(interpreters)], "workloads.py", *work))
        started[-1].wait_until_ready()
    return started


def start_top(columns: int, lines: int) -> tuple[int, int]:
    """PID of a ``top`` on a terminal of its own, and that terminal."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ |= {"TERM": "xterm-256color", "PYTHONPATH": str(CHECKOUT)}
        os.execv(sys.executable, [sys.executable, "-m", "pyflame_ebpf", "top"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return pid, terminal


def start_patiently(columns: int, lines: int) -> tuple[int, int]:
    """The same, once no other profiler records on this host and the screen is drawn."""
    while True:
        pid, terminal = start_top(columns, lines)
        said = b""
        try:
            while SECOND_SCREEN not in said:
                said += os.read(terminal, 1 << 16)
        except OSError:  # it has ended, and its terminal is closed
            os.waitpid(pid, 0)
            os.close(terminal)
            print(said.decode(errors="replace").strip(), file=sys.stderr)
        else:
            return pid, terminal


def watch(terminal: int, seconds: float) -> int:
    """Read what it draws for so long; the characters."""
    end, drawn = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            drawn += len(os.read(terminal, 1 << 16))
    return drawn


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Print the figure for each stretch of time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixed", action="store_true", help="several releases and kinds of work")
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--warm", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    interpreters = [found for found in discover() if found.version >= OLDEST]
    running = targets(interpreters if options.mixed else interpreters[len(interpreters) // 2 :][:1], options.processes)
    try:
        pid, terminal = start_patiently(120, 40)
        watch(terminal, options.warm)
        for _ in range(options.repeat):
            before = cpu_seconds(pid)
            drawn = watch(terminal, options.seconds)
            used = 100 * (cpu_seconds(pid) - before) / options.seconds
            print(f"{used:.1f} % of a core, {drawn / options.seconds / 1000:.1f} KB drawn a second")
        os.write(terminal, b"q")
        os.waitpid(pid, 0)
    finally:
        for target in running:
            target.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
