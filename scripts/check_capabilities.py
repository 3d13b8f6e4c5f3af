#!/usr/bin/env python3
"""Record as a user who is not root, with each capability left out in turn, and print what fails without it.

    sudo scripts/check_capabilities.py                        all of them, some 5 s each
    sudo scripts/check_capabilities.py --only CAP_SYSLOG      without this one

A program of another user is recorded: it works in Python, in a library that only that user may read, in one that was
deleted, in generated code that a perf map of that user names, and in the kernel.  Status 1 unless all of it is named
with all capabilities, and each one that is left out costs what pyflame_ebpf/host/capabilities.py says.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from _recordings import CHECKOUT

from pyflame_ebpf.host.capabilities import CAPABILITIES
from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.profile.model import FrameKind, Profile
from pyflame_ebpf.recording.host_lock import LOCK_FILE

RECORDER, TARGET = 1000, 65534  # users: who records, and who runs what is recorded
SECONDS = 3
TIMEOUT = 120  # seconds
BUSY_CODE = 8  # another profiler records: its exit code
LIBRARY = "long {name}(long turns) {{ volatile long sum = 0; while (turns--) sum += turns; return sum; }}\n"
WORK = """
import ctypes, mmap, os, sys
place = sys.argv[1]
private, deleted = (ctypes.CDLL(f"{place}/{name}.so") for name in ("spin_private", "spin_deleted"))
os.unlink(f"{place}/spin_deleted.so")
code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
code.write(bytes.fromhex("b900093d00ffc975fcc3"))  # mov $4000000, %ecx; 1: dec %ecx; jnz 1b; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
generated = ctypes.CFUNCTYPE(None)(address)
with open(f"/tmp/perf-{os.getpid()}.map", "w") as file:
    os.fchmod(file.fileno(), 0o600)
    file.write(f"{address:x} 1000 generated_here\\n")
def work_in_python():
    return sum(number * number for number in range(50000))
print("ready", flush=True)
while True:
    work_in_python()
    private.spin_private(4000000)
    deleted.spin_deleted(4000000)
    generated()
    for _ in range(40):
        os.urandom(65536)
"""
PYTHON, PRIVATE, DELETED, GENERATED, KERNEL, SOURCE, PRECEDENCE = (
    "Python functions",
    "functions of a private library",
    "functions of a deleted library",
    "generated code",
    "kernel functions",
    "source lines",
    "precedence on a busy host",
)
ALL = {PYTHON, PRIVATE, DELETED, GENERATED, KERNEL, SOURCE, PRECEDENCE}
COSTS = {
    "CAP_DAC_READ_SEARCH": {PRIVATE, GENERATED, DELETED},  # /proc/PID/map_files is its user's alone
    "CAP_CHECKPOINT_RESTORE": {DELETED},
    "CAP_SYSLOG": {KERNEL},
    "CAP_SETUID": {SOURCE},
    "CAP_SETGID": {SOURCE},
    "CAP_SYS_NICE": {PRECEDENCE},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One recording: its exit code, the first line of its error, what it has of ``ALL``."""

    code: int
    error: str
    has: frozenset[str]


def tried() -> list[str]:
    """Return the capabilities that a user other than root may lack and miss."""
    return [each.name for each in CAPABILITIES if each.required or each.missed]


def setpriv(capabilities: list[str]) -> list[str]:
    """Return the command that starts another as the recorder with these capabilities and no more."""
    chosen = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])
    return [
        *("setpriv", f"--reuid={RECORDER}", f"--regid={RECORDER}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={chosen}", f"--ambient-caps={chosen}", f"--bounding-set={chosen},+setpcap"),
    ]


@contextlib.contextmanager
def target(place: Path) -> Iterator[int]:
    """Start the program of another user in a directory of that user's, and yield its PID."""
    for name in ("spin_private", "spin_deleted"):
        source = place / f"{name}.c"
        source.write_text(LIBRARY.format(name=name), encoding="ascii")
        subprocess.run(["gcc", "-O1", "-shared", "-o", place / f"{name}.so", source], check=True)
    program = place / "work.py"
    program.write_text(WORK, encoding="ascii")
    for path in (place, *place.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o644 if "deleted" in path.name else 0o600)
        os.chown(path, TARGET, TARGET)
    user = ["setpriv", "--pdeathsig", "KILL", f"--reuid={TARGET}", f"--regid={TARGET}", "--clear-groups"]
    command = [*user, "/usr/bin/python3", str(program), str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as process:
        try:
            if process.stdout is None or process.stdout.readline() != b"ready\n":
                raise SystemExit("the program to record did not start")
            yield process.pid
        finally:
            process.kill()
            Path(f"/tmp/perf-{process.pid}.map").unlink(missing_ok=True)


@contextlib.contextmanager
def lock_of_the_recorder() -> Iterator[None]:
    """Give the lock and its directory to the recorder for this time, as an administrator would."""
    lock = Path(LOCK_FILE)
    own_directory = [] if lock.parent == Path("/run") else [lock.parent]
    for path in own_directory:
        path.mkdir(mode=0o700, exist_ok=True)
    lock.touch(mode=0o600)
    given = [(path, path.stat()) for path in (*own_directory, lock)]
    for path, _ in given:
        os.chown(path, RECORDER, RECORDER)
    try:
        yield
    finally:
        for path, status in given:
            with contextlib.suppress(OSError):
                os.chown(path, status.st_uid, status.st_gid)


def record(pid: int, capabilities: list[str]) -> Outcome:
    """Record a process as the recorder, once no other profiler records on this host."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        with lock_of_the_recorder():  # each time: root that records meanwhile takes it back
            outcome = _record_once(pid, capabilities)
        if outcome.code != BUSY_CODE or time.monotonic() > deadline:
            return outcome
        time.sleep(0.5)


def _record_once(pid: int, capabilities: list[str]) -> Outcome:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        os.chown(place, RECORDER, RECORDER)
        own = [sys.executable, "-m", "pyflame_ebpf", "record", "--pid", str(pid), "--duration", str(SECONDS)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": place, "NO_COLOR": "1"}
        command = [*setpriv(capabilities), *own, "--source", "--output", f"{place}/out"]
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=said) as process,
        ):
            hurries = _watch(process)
            said.seek(0)
            lines = said.read().decode().splitlines()
        error = next((line for line in lines if line.startswith("error: ")), "")
        saved = Path(place, "out", "profile.json.gz")
        has = set()
        if saved.exists():
            with saved.open("rb") as file:
                has = named(load_profile(file))
        if hurries:
            has.add(PRECEDENCE)
        return Outcome(process.returncode, error, frozenset(has))


def _watch(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the end.  Returns whether the process ever came before others."""
    hurries = False
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            hurries = hurries or os.getpriority(os.PRIO_PROCESS, process.pid) < 0
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.05)
    return hurries


def named(profile: Profile) -> set[str]:
    """Return what of ``ALL`` a profile names."""
    functions = {frame.name for frame in profile.frames}
    wanted = {"work_in_python": PYTHON, "spin_private": PRIVATE, "spin_deleted": DELETED, "generated_here": GENERATED}
    has = {what for name, what in wanted.items() if name in functions}
    if any(frame.kind is FrameKind.KERNEL and not frame.name.startswith(("0x", "[")) for frame in profile.frames):
        has.add(KERNEL)
    if any("work_in_python" in line for text in profile.sources.values() for line in text.values()):
        has.add(SOURCE)
    return has


def verdict(name: str, outcome: Outcome) -> tuple[str, bool]:
    """Return what a recording without this capability lacks, and whether that is as the table has it."""
    if name in {each.name for each in CAPABILITIES if each.required}:
        return f"exit code {outcome.code}: {outcome.error}", outcome.code == 3 and name in outcome.error
    lost = ALL - outcome.has
    text = ", ".join(sorted(lost)) or "nothing"
    if outcome.code:
        text = f"exit code {outcome.code}: {outcome.error}"
    return text, lost == COSTS.get(name, set()) and not outcome.code


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=tried(), metavar="CAPABILITY", help="leave out only this one"
    )
    chosen = parser.parse_args().only or ["", *tried()]
    right = True
    print(f"{'left out':24}  lost")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, target(Path(place)) as pid:
        for left_out in chosen:
            text, well = verdict(left_out, record(pid, [name for name in tried() if name != left_out]))
            right = right and well
            print(f"{left_out or '(none)':24}  {text}{'' if well else '  NOT AS SAID'}", flush=True)
    print(f"{len(chosen)} recordings: {'as said' if right else 'not as said'}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
