#!/usr/bin/env python3
"""Print the CPU that `pyflame-ebpf top` itself uses over many busy processes, once it is warm.

sudo scripts/bench_top.py                                      three stretches of 20 s over 20 processes
sudo scripts/bench_top.py --warm 3 --seconds 3 --repeat 1      the same, quickly
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from _benchmark import benchmark_options
from _recordings import CHECKOUT, Interpreter, chosen_interpreters, cpu_seconds, repeated, workloads

WORKLOADS = (("deep", "20"), ("busy",), ("system_calls",), ("bursty",))
OLDEST = (3, 8)
SECOND_SCREEN = b"\x1b[?1049h"


@contextmanager
def busy_processes(interpreters: Sequence[Interpreter], number: int) -> Iterator[None]:
    """Run so many busy processes, in the interpreters by turns; in several interpreters, of several kinds."""
    with ExitStack() as running:
        for index, interpreter in enumerate(repeated(interpreters, number)):
            work = WORKLOADS[index % len(WORKLOADS)] if len(interpreters) > 1 else ("busy",)
            running.enter_context(workloads([interpreter], *work))
        yield


def start_top(columns: int, lines: int) -> tuple[int, int]:
    """Start ``top`` on a terminal of its own.  Returns its PID and the terminal's descriptor."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ |= {"TERM": "xterm-256color", "PYTHONPATH": str(CHECKOUT)}
        os.execv(sys.executable, [sys.executable, "-m", "pyflame_ebpf", "top"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return pid, terminal


def start_patiently(columns: int, lines: int) -> tuple[int, int]:
    """Start ``top`` once no other profiler records on this host, and wait for its screen."""
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
    """Read what it draws for so many seconds.  Returns the number of bytes."""
    end, drawn = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            drawn += len(os.read(terminal, 1 << 16))
    return drawn


def main() -> int:
    """Print the figure for each stretch of time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixed", action="store_true", help="several releases and kinds of work")
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--warm", type=float, default=20, help="seconds before the first stretch")
    parser.add_argument("--seconds", type=float, default=20, help="of a stretch")
    parser.add_argument("--repeat", type=int, default=3, help="stretches")
    options = benchmark_options(parser)
    found = [interpreter for interpreter in chosen_interpreters([]) if interpreter.version >= OLDEST]
    with busy_processes(found if options.mixed else found[len(found) // 2 :][:1], options.processes):
        pid, terminal = start_patiently(120, 40)
        watch(terminal, options.warm)
        for _ in range(options.repeat):
            before = cpu_seconds(pid)
            drawn = watch(terminal, options.seconds)
            used = 100 * (cpu_seconds(pid) - before) / options.seconds
            print(f"{used:.1f} % of a core, {drawn / options.seconds / 1000:.1f} KB drawn a second", flush=True)
        os.write(terminal, b"q")
        os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
