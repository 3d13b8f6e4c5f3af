"""Attacks by what runs on the host and by what lies in the recorder's surroundings, each as one case."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from _attack_files import ELF_FILES, profiles
from _attack_programs import (
    CORRUPT,
    CORRUPTIONS,
    MANY_CHILDREN,
    MAPPED,
    NAMED,
    NAMED_WITH_GENERATED_CODE,
    PERF_MAP,
    PERF_MAPS,
    UNANSWERED_MEMORY,
)
from _attack_runs import (
    AS_NOBODY,
    DEFECTS,
    MEMORY,
    PYTHON,
    Ended,
    Seen,
    attacker,
    environment,
    functions,
    record,
    start,
)

from pyflame_ebpf.errors import EXIT_CODES
from pyflame_ebpf.recording.host_lock import LOCK_FILE

SECRET = Path("/etc/shadow")
SEPARATORS = (r"\x0c", r"\x0b", r"\x1c", r"\x1e", r"\x85", r"\xc2\x85", r"\xe2\x80\xa8", r"\r", r"\n")
HOSTILE_MODULES = (
    "bcc",
    "typer",
    "rich",
    "click",
    "json",
    "gzip",
    "ctypes",
    "sitecustomize",
    "usercustomize",
    "seccomp",
)
HOSTILE = "import os\nopen({mark!r}, 'w').write(str(os.geteuid()))\nraise ImportError('hostile')\n"
READING = 10.0  # seconds for one saved profile, and the bound of its CPU
BUSY = "print('ready', flush=True)\nwhile True: sum(range(2000))"


def _failed(faults: Sequence[str], well: str) -> Seen:
    return Seen(not faults, "; ".join(faults) or well)


def _each(kinds: Sequence[str], attempt: Callable[[str], Ended], wrong: Callable[[Ended], str] = lambda _: "") -> Seen:
    """Record under each kind of an attack; every recording ends in time, in little memory and without a defect."""
    faults, worst, memory = [], 0.0, 0
    for kind in kinds:
        ended = attempt(kind)
        worst, memory = max(worst, ended.late), max(memory, ended.memory)
        fault = "" if ended.well() else ended.text()
        fault = wrong(ended) or fault
        if fault:
            faults.append(f"{kind}: {fault}")
    return _failed(faults, f"{len(kinds)} kinds, at most {worst:+.1f} s and {memory} MB")


def _secrets(ended: Ended) -> str:
    """Tell whether a profile has a line of the file that only root may read."""
    lines = {line for line in SECRET.read_text(encoding="utf-8").splitlines() if line}
    said = [text for by_line in (ended.profile.sources.values() if ended.profile else ()) for text in by_line.values()]
    names = functions(ended.profile)
    return f"the profile holds lines of {SECRET}" if any(line in (*said, *names) for line in lines) else ""


def name_that_claims_root(place: Path, quick: bool) -> Seen:
    """A process name that holds a line break of some kind, and a user id of root."""

    def attempt(separator: str) -> Ended:
        with attacker(NAMED, f"{separator}Uid:0 0 0 0", str(SECRET)) as process:
            return record(["--pid", str(process.pid), "--source"], place, seconds=1)

    return _each(SEPARATORS[:1] if quick else SEPARATORS, attempt, _secrets)


def name_that_is_no_number(place: Path, quick: bool) -> Seen:
    """A process name that holds a line break of some kind, and a field with text in place of numbers."""
    fields = ("NSpid: x", "Uid:x", "Groups: x")
    kinds = [separator + text for text in fields for separator in (SEPARATORS[:1] if quick else SEPARATORS[:5])]

    def attempt(name: str) -> Ended:
        with attacker(NAMED_WITH_GENERATED_CODE, name) as process:
            return record(["--pid", str(process.pid), "--source"], place, seconds=1)

    return _each(kinds[:1] if quick else kinds, attempt)


def many_children(place: Path, quick: bool) -> Seen:
    """More short children than the kernel's table of targets holds, and then one that computes."""
    number = 2_000 if quick else 20_000
    ended = record(["--", PYTHON, "-c", MANY_CHILDREN, str(number)], place, seconds=120)
    ended.late = 0.0  # it ends with the program
    found = "computes_after_many_children" in functions(ended.profile)
    return Seen(found and ended.well(), f"after {number} children {'named' if found else 'absent'}; {ended.text()}")


def unanswered_memory(place: Path, quick: bool) -> Seen:
    """Memory of a program that looks like CPython, in which a read waits for ever."""
    del quick
    source, program = place / "unanswered.c", place / "unanswered"
    source.write_text(UNANSWERED_MEMORY, encoding="ascii")
    subprocess.run(["gcc", "-w", "-O1", "-rdynamic", "-o", program, source], check=True)
    with subprocess.Popen([program], stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or process.stdout.readline() != b"ready\n":
                return Seen(False, f"this kernel has no userfaultfd for it (status {process.wait()})")
            ended = record(["--all"], place, seconds=2)
        finally:
            process.kill()
    return Seen(ended.well(), ended.text())


def elf_bombs(place: Path, quick: bool) -> Seen:
    """Small files of a plain user's that are mapped as code and ask for much time or memory."""
    place.chmod(0o755)

    def attempt(kind: str) -> Ended:
        path = place / f"{kind.replace(' ', '-')}.so"
        ELF_FILES[kind](path)
        try:
            with attacker(MAPPED, str(path)) as process:
                return record(["--pid", str(process.pid)], place, seconds=1)
        finally:
            path.unlink()

    return _each(list(ELF_FILES)[:1] if quick else list(ELF_FILES), attempt)


def corrupt_interpreters(place: Path, quick: bool) -> Seen:
    """A process that corrupts the structures of its own interpreter, as far as it survives that."""

    def attempt(kind: str) -> Ended:
        with attacker(CORRUPT, kind) as process:
            return record(["--pid", str(process.pid), "--source"], place, seconds=2)

    return _each(CORRUPTIONS[:1] if quick else CORRUPTIONS, attempt)


def perf_maps(place: Path, quick: bool) -> Seen:
    """Perf maps that are no files, are links to secrets, do not end or say what is no map."""

    def attempt(kind: str) -> Ended:
        with attacker(PERF_MAP, kind) as process:
            path = Path(f"/tmp/perf-{process.pid}.map")
            try:
                return record(["--pid", str(process.pid)], place, seconds=1)
            finally:
                with contextlib.suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()

    return _each(PERF_MAPS[:1] if quick else PERF_MAPS, attempt, _secrets)


def hostile_surroundings(place: Path, quick: bool) -> Seen:
    """Modules of a plain user in the working directory, and in a HOME that sudo kept."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = place / "home"
    packages = home / ".local" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    marks: list[Path] = []
    for folder in (place, packages):
        for module in HOSTILE_MODULES:
            mark = place / f"mark-{module}"
            marks.append(mark)
            (folder / f"{module}.py").write_text(HOSTILE.format(mark=str(mark)), encoding="ascii")
    for path in (place, *place.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    entry = [str(Path(sys.executable).parent / "pyflame-ebpf")]
    homes = {"the directory": str(Path.home()), "HOME": str(home)}
    faults = []
    for kind, value in list(homes.items())[: 1 if quick else 2]:
        env = {**environment(HOME=value), "PYTHONPATH": ""}
        recording = start(["doctor"], place, env=env, command=entry)
        recording.wait_until(lambda: False, 60)
        ran = sorted({mark.name.removeprefix("mark-") for mark in marks if mark.exists()})
        faults += [f"{kind}: {', '.join(ran)} ran as root"] if ran else []
        for mark in marks:
            mark.unlink(missing_ok=True)
    return _failed(faults, "nothing of the user's was run")


def small_limits(place: Path, quick: bool) -> Seen:
    """Limits of the recorder itself, and streams that are closed; each ends with a documented exit code."""
    kinds = {
        "24 open files": "ulimit -n 24",
        "64 open files": "ulimit -n 64",
        "200 MB": "ulimit -v 200000",
        "500 MB": "ulimit -v 500000",
        "no file": "ulimit -f 0",
        "2 s of CPU": "ulimit -t 2",
        "no streams": "exec <&- >&- 2>&-",
        "ASCII": "export PYTHONIOENCODING=ascii",
        "20 digits": "export SUDO_UID=99999999999999999999 SUDO_GID=5",
        "umask 777": "umask 777",
    }
    faults = []
    with attacker(BUSY) as process:
        for kind, shell in list(kinds.items())[: 2 if quick else len(kinds)]:
            prefix = ("bash", "-c", f'{shell}; exec "$@"', "bash")
            ended = record(["--pid", str(process.pid)], place, seconds=1, prefix=prefix)
            killed = kind == "2 s of CPU" and ended.code in (-9, -24)
            known = ended.code in EXIT_CODES or killed
            if ended.has_defect or not known or ended.hung:
                faults.append(f"{kind}: {ended.text()}")
    return _failed(faults, f"{2 if quick else len(kinds)} limits, documented exit codes")


def saved_profiles(place: Path, quick: bool) -> Seen:
    """Files that are given to ``report``: refused or read, soon and in little memory."""
    faults, worst = [], 0
    contents = profiles()
    chosen = {"nothing": contents["nothing"], "nesting": contents["nesting"]} if quick else contents
    for kind, content in chosen.items():
        path = place / "given"
        path.write_bytes(content)
        began = time.monotonic()
        reading = start(["report", str(path), "--format", "folded", "--output", "-"], place)
        done = reading.wait_until(lambda: False, READING)
        seconds = time.monotonic() - began
        if not done:
            reading.end(0)
        code, memory, _ = reading.status
        worst = max(worst, round(memory))
        if not done or code not in (0, 2, 16, 18) or memory > MEMORY or any(text in reading.said() for text in DEFECTS):
            faults.append(f"{kind}: exit code {code}, {seconds:.1f} s, {memory:.0f} MB")
    return _failed(faults, f"{len(chosen)} files, at most {worst} MB")


@contextlib.contextmanager
def _locked_by_a_plain_user() -> Iterator[bool]:
    """Try to take the lock as a plain user.  Yields whether that was possible."""
    program = (
        "import fcntl, sys, time\n"
        "try: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB) or print('taken', flush=True)\n"
        "except BlockingIOError: print('in use', flush=True)\n"
        "except OSError: print('refused', flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [*AS_NOBODY, PYTHON, "-c", program, LOCK_FILE]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process.stdout is not None and process.stdout.readline() != b"refused\n"
        finally:
            process.kill()


def lock_of_a_plain_user(place: Path, quick: bool) -> Seen:
    """A plain user who takes the lock that keeps recorders apart."""
    del quick
    with attacker(BUSY) as process:
        record(["--pid", str(process.pid)], place, seconds=1)  # the lock's file is there from now on
    with _locked_by_a_plain_user() as possible:
        return Seen(not possible, "a plain user may open the lock" if possible else "a plain user cannot open the lock")


def outputs_of_others(place: Path, quick: bool) -> Seen:
    """Another user of the host who reads what was recorded."""
    del quick
    place.chmod(0o755)
    with attacker(BUSY) as process:
        ended = record(["--pid", str(process.pid)], place, seconds=1)
    if not ended.well():
        return Seen(False, ended.text())
    files = list(place.glob("out-*/*"))
    open_to_others = sorted(path.name for path in files if path.stat().st_mode & 0o077)
    return _failed(
        [f"others may read {', '.join(open_to_others)}"] if open_to_others else [], f"{len(files)} files, 0600"
    )


def odd_arguments(place: Path, quick: bool) -> Seen:
    """Arguments that are possible and make no sense: one line of error each, and a documented exit code."""
    lines = [
        *(["record", "--pid", text] for text in ("0", "2147483648", "99999999999999999999", "-1", "x")),
        *(["record", "--all", "--duration", text] for text in ("nan", "inf", "1e400", "-1", "0")),
        *(["record", "--all", "--frequency", text] for text in ("0", "999999999999", "-5")),
        *(["report", text] for text in ("/dev/zero", "/proc/self/mem", "/", "", "[/red]", "/dev/null")),
        *(["record", "--", text] for text in ("", "/", "/etc/passwd")),
        ["[/bold]"],
    ]
    faults = []
    for arguments in lines[:3] if quick else lines:
        recording = start(arguments, place)
        done = recording.wait_until(lambda: False, READING)
        if not done:
            recording.end(0)
        code, said = recording.status[0], recording.said()
        if not done or code not in EXIT_CODES or code in (0, 70) or any(text in said for text in DEFECTS):
            faults.append(f"{' '.join(arguments)}: exit code {code}, {said.strip()[:60]!r}")
    return _failed(faults, f"{len(lines[:3] if quick else lines)} command lines")


def rights(place: Path, quick: bool) -> Seen:
    """A recorder that was taken over while it samples: which rights it would have."""
    del quick
    with attacker(BUSY) as process:
        recording = start(["record", "--pid", str(process.pid), "--duration", "2", "-o", str(place / "o")], place)
        recording.wait_until(lambda: bool(recording.began), 60)
        status = Path(f"/proc/{recording.process.pid}/status").read_text(encoding="utf-8")
        recording.end(time.monotonic() + 2)
    bits = int(re.findall(r"(?m)^CapPrm:\s*(\w+)$", status)[0], 16)
    admin, module, no_new = bits >> 21 & 1, bits >> 16 & 1, "NoNewPrivs:\t1" in status
    return Seen(not admin and not module and no_new, f"capabilities {bits:x}, {'no ' if no_new else ''}new privileges")
