#!/usr/bin/env python3
"""One cell of the host matrix: every command of the installed pyflame-ebpf, beside a busy Python program.

scripts/host_matrix.sh runs it with the installation's own interpreter.  It proves that the verifier accepts every BPF
program in every build; that 97 % of the samples of a program in the distribution's Python have whole stacks with the
functions and lines of the source; and that record, report, diff, top and doctor work.  The last line has the figures.
Status 1: the last line names the check that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import itertools
import os
import platform
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from kernel_cell import WORKLOAD, Load, load_all, print_loads, wholeness

from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.profile.model import FrameKind, Outcome, Profile, Stack
from pyflame_ebpf.sampling.programs import SamplerOptions, import_bcc

PROFILER = "/usr/local/bin/pyflame-ebpf"
PYTHON = "/usr/bin/python3"
BUILDS = {
    "whole host": SamplerOptions(99),
    "processes and their children": SamplerOptions(99, targets_only=True, follow_children=True),
    "Python only": SamplerOptions(99, kernel=False, native=False),
}
CALLERS = {"turn": "<module>", "of_key": "turn", "python_only": "turn", "<genexpr>": "python_only"}  # in WORKLOAD
LEAST = 0.97
SECONDS = 6
FREQUENCY = 199
PATIENCE = 120


class CheckFailed(Exception):
    """A check failed; the message says which."""


def check(fulfilled: bool, what: str) -> None:
    """Raises CheckFailed unless the condition is fulfilled."""
    if not fulfilled:
        raise CheckFailed(what)


# ---- the programs ----


def load_builds() -> list[Load]:
    """Load every program of every build.  Raises CheckFailed when the kernel refuses one."""
    loads: list[Load] = []
    for name, options in BUILDS.items():
        print(f"-- programs for: {name}")
        build = load_all(options)
        print_loads(build)
        check(all(load.loaded for load in build), f"the kernel refused a program for: {name}")
        loads += build
    return loads


def most_instructions(loads: list[Load]) -> str:
    """Describe the program that cost the verifier most instructions."""
    hardest = max(loads, key=lambda load: int(load.instructions))
    return f"{len(loads)} loads, {int(hardest.instructions):,} instructions verified at most ({hardest.name})"


# ---- the commands ----


def profiler(*arguments: object) -> str:
    """Run a command, and return its standard output.  Raises CheckFailed when it fails."""
    command = [PROFILER, *map(str, arguments)]
    print("--", *command, flush=True)
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    print(run.stdout, run.stderr, sep="", flush=True)
    check(run.returncode == 0, f"exit status {run.returncode} of {' '.join(command)}")
    return run.stdout


@contextlib.contextmanager
def busy_program() -> Iterator[int]:
    """Run a program that goes between Python, C and the kernel all the time.  Yields its PID."""
    with subprocess.Popen([PYTHON, "-c", WORKLOAD], stdout=subprocess.PIPE) as target:
        try:
            assert target.stdout is not None
            target.stdout.readline()
            yield target.pid
        finally:
            target.kill()


def record(directory: Path, *what: object) -> Profile:
    """Record, check that every output was written, and return the profile."""
    profiler("record", "--frequency", FREQUENCY, "--output", directory, *what)
    for each in OUTPUT_FORMATS.values():
        if each.recorded:
            check((directory / each.file_name).stat().st_size > 0, f"record wrote an empty {each.file_name}")
    with (directory / "profile.json.gz").open("rb") as stream:
        return load_profile(stream)


def check_record_command(directory: Path) -> None:
    """A program that the profiler starts is recorded with its child."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {'sum(i * i for i in range(9_000_000))'!r}])"
    profile = record(directory, "--", PYTHON, "-c", code)
    names = {frame.name.rpartition(".")[2] for frame in profile.frames}
    check("<genexpr>" in names, "record -- COMMAND did not see what the command's child does")


def check_report(directory: Path, pid: int) -> None:
    """Check that every output can be made again, and that the table names the program."""
    check(str(pid) in profiler("report", directory), "report's table does not have the program")
    for name, each in OUTPUT_FORMATS.items():
        again = directory / f"again-{each.file_name}"
        profiler("report", directory, "--format", name, "--output", again)
        check(again.stat().st_size > 0, f"report wrote an empty {name}")


def check_diff(before: Path, after: Path) -> None:
    """Check that two recordings of the same load can be compared."""
    table = profiler("diff", before, after)
    check("With callees" in table and "after:" in table, "diff does not compare")


def check_doctor(pid: int) -> None:
    """Check that doctor finds the host fit, and that it finds the program visible."""
    check("compiled and loaded" in profiler("doctor"), "doctor does not say that the programs are loaded")
    check("will be seen" in profiler("doctor", pid), "doctor does not say what will be seen of the program")


def check_top(pid: int) -> None:
    """Check that the live view shows the program and its lines, and ends by itself."""
    screen = on_terminal([PROFILER, "top", "--duration", "4", "--pid", str(pid)])
    check(str(pid) in screen, "top does not show the program")
    check("(<string>:" in screen, "top does not show the program's lines")


def on_terminal(command: list[str]) -> str:
    """Run a command on a terminal of its own, and return all that it writes there."""
    print("--", *command, flush=True)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as run:
        os.close(theirs)
        screen = b"".join(written_to(ours)).decode()
    os.close(ours)
    print(screen, flush=True)
    check(run.returncode == 0, f"exit status {run.returncode} of {' '.join(command)}")
    return screen


def written_to(terminal: int) -> Iterator[bytes]:
    """Yield the bytes written to a terminal until nobody has its other end any more."""
    with contextlib.suppress(OSError):  # EIO: the end
        while data := os.read(terminal, 1 << 16):
            yield data


# ---- the stacks ----


def lines_of_functions(code: CodeType) -> dict[str, set[int]]:
    """Return the lines of a code object and of all code objects in it, by name."""
    lines = {code.co_name: {line for _, _, line in code.co_lines() if line}}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            lines |= lines_of_functions(constant)
    return lines


def is_right(stack: Stack, lines: dict[str, set[int]]) -> bool:
    """True if the program's own functions stand in the order of their calls, each at one of its lines."""
    python = [frame for frame in stack if frame.kind is FrameKind.PYTHON]
    own = [(frame.name.rpartition(".")[2], frame.line) for frame in python if frame.file == "<string>"]
    if not own or own[0][0] != "<module>" or python[0].name != "<module>":
        return False
    callers = itertools.pairwise(own)
    return all(CALLERS[callee] == caller for (caller, _), (callee, _) in callers if callee in CALLERS) and all(
        line in lines.get(name, ()) for name, line in own
    )


def check_stacks(profile: Profile, pid: int) -> str:
    """Describe how many of the program's stacks are whole and right.  Raises CheckFailed if they are too few."""
    found = wholeness(profile, pid, 0)
    lines = lines_of_functions(compile(WORKLOAD, "<string>", "exec"))
    own = [key for key in profile.samples if profile.processes[key.process].pid == pid]
    complete = [key for key in own if key.outcome is Outcome.COMPLETE]
    right = sum(profile.samples[key] for key in complete if is_right(profile.frames_of(key.stack), lines))
    least = min(found.python, found.native, right)
    names = {frame.name.rpartition(".")[2] for key in own for frame in profile.frames_of(key.stack)}
    print(f"{found}; {right} right")
    check(least > FREQUENCY * SECONDS / 20, f"only {found.samples} samples of a program that runs all the time")
    check(least >= LEAST * found.samples, f"of {found.samples} samples only {least} are whole and right")
    check(found.kernel > 0, "no sample interrupted the kernel")
    check(names >= CALLERS.keys(), f"these functions were never seen: {CALLERS.keys() - names}")
    return (
        f"{found.samples:,} samples, {found.python / found.samples:.1%} whole in Python,"
        f" {found.native / found.samples:.1%} in native code, {right / found.samples:.1%} with right names and lines"
    )


def prove(directory: Path) -> str:
    """Make all checks, and return their figures as text.  Raises CheckFailed."""
    programs = most_instructions(load_builds())
    with busy_program() as pid:
        check_doctor(pid)
        before, after = directory / "before", directory / "after"
        stacks = check_stacks(record(before, "--all", "--duration", SECONDS), pid)
        record(after, "--pid", pid, "--duration", 2)
        check_report(before, pid)
        check_diff(before, after)
        check_top(pid)
    check_record_command(directory / "command")
    return f"{programs}; {stacks}"


def main() -> int:
    """Run the cell; the exit status is that of the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    began = time.monotonic()
    versions = f"bcc {import_bcc().__version__}, Python {platform.python_version()}"
    with tempfile.TemporaryDirectory() as directory:
        try:
            figures = prove(Path(directory))
        except CheckFailed as failure:
            print(f"{versions}: {failure}")
            return 1
    print(f"{versions}; {figures}; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
