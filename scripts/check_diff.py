#!/usr/bin/env python3
"""Compare recordings of a server before and after it is made faster, and of the same server twice.

    sudo scripts/check_diff.py                                   every interpreter, then ten comparisons of the same
    sudo scripts/check_diff.py --interpreter 3.12 --same 0       one of them, the saving only
    sudo scripts/check_diff.py --interpreter 3.12 --no-saving    the same server compared with itself only

The server (tests/targets/server.py) answers calls at a fixed rate.  A call turns a loop in ``foo`` 75,000 times and in
``bar`` 25,000 times; the optimised ``foo`` turns it 8,000 times, which saves 67 %.  Status 1 unless 'pyflame-ebpf diff'
says so within its stated error, with ``foo`` first in its table.  Recordings of the same server must not differ beyond
noise, neither in total nor in a function, unless the server's own CPU clock (in the same line) differs as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _recordings import CHECKOUT, Interpreter, TargetProcess, chosen_interpreters, record_for

from pyflame_ebpf.profile.file import save_profile

FOO, FASTER_FOO, BAR = 75_000, 8_000, 25_000
SAVING = 1 - (FASTER_FOO + BAR) / (FOO + BAR)
REAL = 0.1  # relative change of the server's own CPU figure from which on it is another load
LATE = 0.05  # share of calls that may be missing under a constant load; more than one batch


@dataclass(frozen=True, slots=True)
class Options:
    """Seconds and frequency (Hz) of a recording, and the calls a second."""

    duration: float
    frequency: int
    rate: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A saved recording, and the cores that the server used by its own clock."""

    file: Path
    cores: float


@contextmanager
def server(interpreter: Interpreter, foo: int, options: Options) -> Iterator[TargetProcess]:
    """Run a server that has answered its first calls."""
    target = TargetProcess(interpreter, "server.py", str(foo), str(BAR), str(options.rate))
    try:
        target.wait_until_ready()
        yield target
    finally:
        target.close()


def recorded(target: TargetProcess, file: Path, options: Options) -> Recorded:
    """Record a server.  Ends the program if the server could not keep up with its calls."""

    def snapshot() -> None:
        os.kill(target.pid, signal.SIGUSR1)

    profile = record_for(options.duration, options.frequency, snapshot, snapshot, pids=[target.pid])
    (calls_before, cpu_before), (calls_after, cpu_after) = (json.loads(target.read_line()) for _ in range(2))
    answered = (calls_after - calls_before) / (options.rate * options.duration)
    if answered < 1 - LATE:
        sys.exit(f"only {answered:.0%} of the calls were answered in time: the load was not constant; try --rate")
    with file.open("wb") as stream:
        save_profile(profile, stream)
    return Recorded(file, (cpu_after - cpu_before) / options.duration)


def difference(before: Path, after: Path) -> dict[str, Any]:
    """Return the JSON of ``diff``."""
    command = [sys.executable, "-m", "pyflame_ebpf", "diff", str(before), str(after), "--format", "json"]
    said = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(said.stdout)
    return document


def check_saving(interpreter: Interpreter, options: Options, directory: Path) -> bool:
    """True if ``diff`` tells the saving right."""
    sides = []
    for name, foo in (("before", FOO), ("after", FASTER_FOO)):
        with server(interpreter, foo, options) as target:
            sides.append(recorded(target, directory / f"{interpreter.name}-{name}.json.gz", options))
    document = difference(sides[0].file, sides[1].file)
    total, first = document["total"], document["functions"][0]
    told, error = -total["relative_change"], total["relative_error_95"]
    itself = 1 - sides[1].cores / sides[0].cores
    passed = bool(abs(told - SAVING) <= error and total["beyond_noise"] and first["name"] == "foo")
    print(
        f"{interpreter.name:15}{told:>8.1%} ±{error:.1%}{itself:>10.1%}  {first['name']:8}"
        f"{'ok' if passed else 'FAILED':8}{document['summary']}",
        flush=True,
    )
    return passed


def check_same(interpreter: Interpreter, options: Options, comparisons: int, directory: Path) -> int:
    """Count the comparisons of the same server that found a change which its own clock did not see.

    A changing clock rate or other load of the host does change the CPU that the server uses.
    """
    alarms = 0
    with server(interpreter, FOO, options) as target:
        sides = [recorded(target, directory / f"same-{at}.json.gz", options) for at in range(comparisons + 1)]
    for before, after in itertools.pairwise(sides):
        document = difference(before.file, after.file)
        changed = [row["name"] for row in document["functions"] if row["self"]["beyond_noise"]]
        is_told = document["total"]["beyond_noise"] or bool(changed)
        itself = after.cores / before.cores - 1
        is_false = is_told and abs(itself) < REAL
        alarms += is_false
        verdict = "FAILED" if is_false else "told rightly" if is_told else "ok"
        print(f"    {document['summary']} itself {itself:+.1%}  {verdict} {' '.join(changed)}", flush=True)
    return alarms


def chosen(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=20, help="seconds of each recording")
    parser.add_argument("--frequency", type=int, default=199)
    parser.add_argument("--rate", type=int, default=50, help="calls a second")
    parser.add_argument("--interpreter", action="append", default=[], help="part of a name; default all")
    parser.add_argument("--no-saving", action="store_true", help="compare the same server only")
    parser.add_argument("--same", type=int, default=10, help="comparisons of the same server, in the last interpreter")
    parser.add_argument("--same-duration", type=float, default=10, help="seconds of each of their recordings")
    return parser.parse_args(arguments)


def main() -> int:
    """Check the saving in all interpreters, then the same server with itself."""
    given = chosen()
    interpreters = chosen_interpreters(given.interpreter)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        options = Options(given.duration, given.frequency, given.rate)
        if not given.no_saving:
            print(f"{'interpreter':15}{'told':>8}{'itself':>16}  first   ({SAVING:.0%} is right)")
            failed += sum(not check_saving(each, options, directory) for each in interpreters)
        if given.same:
            print(f"{interpreters[-1].name}, the same server, {given.same_duration:g} s each")
            options = Options(given.same_duration, given.frequency, given.rate)
            alarms = check_same(interpreters[-1], options, given.same, directory)
            print(f"{given.same} comparisons, {alarms} false alarms")
            failed += alarms
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
