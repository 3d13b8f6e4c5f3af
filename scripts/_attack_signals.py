"""Signals at random instants of recordings, and targets that end and become others while they are recorded."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _attack_programs import TURNS_INTO_OTHERS
from _attack_runs import BUSY_CODE, DEFECTS, HANGS, PYTHON, Recording, Seen, record, start

from pyflame_ebpf.host.proc import status_field
from pyflame_ebpf.recording.host_lock import AlreadyRecording, only_one_profiler

OURS = ("on_tick", "on_exec", "on_fork", "on_exit", "stage_")  # how names of the profiler's programs begin
SIGNALS = ("INT", "TERM", "HUP", "QUIT", "KILL", "STOP")
BUSY = "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nwhile True: f(18)"
SECONDS = 1.0  # of each recording
FAULTS_SAID = 5
STOPPED = 0.5  # seconds between STOP and CONT
ENDINGS = {".html": b"</html>", ".svg": b"</svg>"}


@dataclass(frozen=True, slots=True)
class Shot:
    """One signal: its name, and when: before the announcement, after it, or while names are looked up and written."""

    name: str
    phase: str
    delay: float  # seconds after the phase began


def shots(number: int, seed: int) -> list[Shot]:
    """Return signals at random instants: a quarter before the announcement, half after it, a quarter at the end."""
    chance = random.Random(seed)
    spans = {"start": 1.2, "sampling": SECONDS, "writing": 1.5}
    phases = ("start", "sampling", "sampling", "writing")
    turns = ((at // len(phases), at % len(phases)) for at in range(number))
    drawn = ((SIGNALS[(5 * turn + phase) % len(SIGNALS)], phases[phase]) for turn, phase in turns)
    return [Shot(name, phase, chance.uniform(0, spans[phase])) for name, phase in drawn]


def signals_at_random(number: int, seed: int) -> Callable[[Path, bool], Seen]:
    """Return the case of so many signals."""
    return lambda place, _quick: _signals(place, number, seed)


def _signals(place: Path, number: int, seed: int) -> Seen:
    """Send signals to recordings at random instants; each leaves nothing behind and ends as documented."""
    if shutil.which("bpftool") is None:
        return Seen(False, "bpftool is not installed (apt-get install bpftool)")
    tally: Counter[str] = Counter()
    faults: list[str] = []
    busy = ["nice", PYTHON, "-c", BUSY]
    with subprocess.Popen(busy, stdout=subprocess.DEVNULL) as target:
        try:
            for shot in shots(number, seed):
                faults += _fire(shot, target.pid, place, tally)
        finally:
            target.kill()
    codes = ", ".join(f"{count} x {what}" for what, count in sorted(tally.items()))
    return Seen(not faults, f"seed {seed}: " + ("; ".join(faults[:FAULTS_SAID]) or codes))


def _fire(shot: Shot, target: int, place: Path, tally: Counter[str]) -> list[str]:
    """Send one signal to one recording.  Returns what is wrong with how it ended."""
    output = Path(tempfile.mkdtemp(prefix="shot-", dir=place))
    arguments = ["record", "--pid", str(target), "--duration", f"{SECONDS:g}", "--output", str(output)]
    for _ in range(100):
        recording = start(arguments, place)
        if shot.phase != "start":
            recording.wait_until(lambda recording=recording: bool(recording.began), HANGS)  # type: ignore[misc]
        if recording.has_ended() and recording.status[0] == BUSY_CODE:
            time.sleep(0.5)
            continue
        break
    wait = shot.delay + (SECONDS if shot.phase == "writing" else 0)
    recording.wait_until(lambda: False, wait)
    late = recording.has_ended()
    if not late:
        _send(recording, shot.name)
    began = time.monotonic()
    ended = recording.end(began + SECONDS)
    code = recording.status[0]
    tally[f"{shot.name} {'after the end' if late else shot.phase}: {code}"] += 1
    faults = ["hung"] if not ended else []
    faults += _wrong_end(shot, code, recording.said(), output) if not late and code != BUSY_CODE else []
    faults += _left_behind()
    shutil.rmtree(output, ignore_errors=True)
    told = [f"{shot.name} {shot.delay:.2f} s into {shot.phase}: {fault}" for fault in faults]
    for line in told:
        print(line, file=sys.stderr, flush=True)  # at once: hundreds of signals take long
    return told


def _send(recording: Recording, name: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(recording.process.pid, getattr(signal, f"SIG{name}"))
        if name == "STOP":
            time.sleep(STOPPED)
            os.kill(recording.process.pid, signal.SIGCONT)


def _wrong_end(shot: Shot, code: int, said: str, output: Path) -> list[str]:
    """Return what is wrong with an exit code, with what was said and with the files."""
    number = int(getattr(signal, f"SIG{shot.name}"))
    allowed = {"KILL": {0, -number}, "STOP": {0}}.get(
        shot.name, {0, 128 + number} | ({-number} if shot.phase == "start" else set())
    )
    if shot.phase == "sampling" and shot.name not in ("KILL", "STOP"):
        allowed = {0, 16}  # what was sampled until then is written; 16: that was nothing
    faults = [] if code in allowed else [f"exit code {code}"]
    faults += [f"said {text!r}" for text in DEFECTS if text in said]
    faults += [f"{path.name} is cut" for path in output.iterdir() if not path.name.startswith(".") and not _whole(path)]
    if code == 0 and not (output / "profile.json.gz").exists():
        faults.append("no profile, and exit code 0")
    return faults


def _whole(path: Path) -> bool:
    """Whether a file under its final name is whole."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            gzip.decompress(content)
        except (OSError, EOFError):
            return False
    return bool(content) and content.rstrip().endswith(ENDINGS.get(path.suffix, b""))


def _left_behind() -> list[str]:
    """Return what a recorder that has ended left: programs, the lock."""
    for _ in range(5):  # the kernel frees programs a moment after their last user has gone
        left = _programs() - _programs_in_use()
        if not left:
            break
        time.sleep(0.3)
    faults = [f"{len(left)} BPF programs are left"] if left else []
    return faults + (["the lock is held and nobody records"] if _is_lock_left() else [])


def _is_lock_left() -> bool:
    """Whether the lock is held for a second in which no profiler has programs."""
    for _ in range(5):
        try:
            with only_one_profiler():
                return False
        except AlreadyRecording:
            if _programs():
                return False
        time.sleep(0.2)
    return True


def _programs() -> set[int]:
    """Return the ids of loaded programs of any profiler."""
    said = subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=False).stdout
    with contextlib.suppress(ValueError):
        return {each["id"] for each in json.loads(said) if str(each.get("name", "")).startswith(OURS)}
    return set()


def _programs_in_use() -> set[int]:
    """Return the ids of programs of which some process has a descriptor."""
    used: set[int] = set()
    for directory in Path("/proc").glob("[0-9]*/fdinfo"):
        with contextlib.suppress(OSError):
            for descriptor in directory.iterdir():
                with contextlib.suppress(OSError):
                    used.update(int(word) for word in status_field(b"\n" + descriptor.read_bytes(), b"prog_id"))
    return used


def targets_that_change(place: Path, quick: bool) -> Seen:
    """Record programs that end and become others at random; each has only names of its own."""
    processes, seconds = (10, 3) if quick else (100, 20)
    stop = time.monotonic() + seconds + 15
    loop = [PYTHON, "-c", _POOL, str(processes), str(stop - time.monotonic()), TURNS_INTO_OTHERS]
    with subprocess.Popen(loop, start_new_session=True) as starter:
        try:
            ended = record(["--all"], place, seconds=seconds)
        finally:
            os.killpg(starter.pid, signal.SIGKILL)
    if ended.profile is None or ended.hung or ended.has_defect:
        return Seen(False, ended.text())
    wrong, met = 0, set()
    for key in ended.profile.samples:
        frames = [ended.profile.frames[number].name for number in ended.profile.stacks[key.stack]]
        names = {found[1] for name in frames if (found := re.fullmatch(r"only_in_(\d+x\d+)", name))}
        own = set(re.findall(r"(?<!\w)(\d+x\d+)(?!\w)", ended.profile.processes[key.process].command))
        met |= names
        wrong += bool(names and own and not names <= own)
    return Seen(not wrong and len(met) > processes // 2, f"{len(met)} programs, {wrong} samples with another's name")


_POOL = r"""
import os, random, sys, time
count, seconds, program = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
end, number = time.time() + seconds, 0
running = set()
while time.time() < end:
    while len(running) < min(count, 8):
        number += 1
        pid = os.fork()
        if not pid: os.execv(sys.executable, [sys.executable, "-c", program, f"{number}x0", program])
        running.add(pid)
    if random.random() < 0.05: os.kill(random.choice(list(running)), 9)
    pid, _ = os.waitpid(-1, os.WNOHANG)
    running.discard(pid)
    time.sleep(0.02)
"""
