#!/usr/bin/env python3
"""Fuzz the readers of bytes that the profiler does not trust, guided by coverage: one target for each reader.

    scripts/fuzz.py                                   all targets, ten minutes each, as many at a time as there are CPUs
    scripts/fuzz.py --quick                           all targets, five seconds each
    scripts/fuzz.py --target perfmap --seconds 60     one of them; --target may be given several times

Needs atheris: pip install 'pyflame-ebpf[fuzz]'.  The corpus of each target begins with real files, which are made here,
and is kept for the next run.  Status 1 on an exception that a reader does not promise, on an input that takes more than
30 s, and on more than 1,024 MB of memory; the input is printed as a file in the corpus directory.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import _checkout  # noqa: F401 - finds the package
from _fuzz_targets import TARGETS

INPUT_MAX = 1 << 16  # bytes
TIME_MAX = 30  # seconds of one input, by the clock on the wall: a fuzzer runs when nothing else does
MEMORY_MAX = 1024  # MB of a process, atheris' own 100 included
SECONDS, QUICK_SECONDS = 600, 5
NICENESS = 15
FINDING = "bad-"  # how the name of a file begins whose content a reader does not survive


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process, which ends with the fuzzer."""
    import atheris  # noqa: PLC0415 - only the workers need it

    os.nice(NICENESS)
    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(target.seeds(Path(folder))):
            (corpus / f"seed{number}").write_bytes(data)
    for module in target.modules:
        instrument(atheris, import_module(f"pyflame_ebpf.{module}"))
    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_MAX}",
        f"-timeout={TIME_MAX}",
        f"-rss_limit_mb={MEMORY_MAX}",
        f"-artifact_prefix={corpus}/{FINDING}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], target.read)
    atheris.Fuzz()


def instrument(atheris: Any, module: ModuleType) -> None:
    """Let the fuzzer see which branches the functions and methods of a module take."""
    for value in vars(module).values():
        holders = (
            [value]
            if callable(value) and not isinstance(value, type)
            else list(vars(value).values() if isinstance(value, type) else ())
        )
        for holder in holders:
            function = getattr(holder, "func", getattr(holder, "fget", holder))  # of cached_property and property
            if getattr(function, "__code__", None) and function.__module__ == module.__name__:
                atheris.instrument_func(function)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--target", action="append", choices=TARGETS, metavar="NAME", help=", ".join(TARGETS))
    made.add_argument("--seconds", type=int, help=f"of each target; default {SECONDS}")
    made.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS} seconds of each target")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time; default: the CPUs")
    made.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "pyflame-fuzz", help="directory")
    made.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return made


def main() -> int:
    """Run the chosen targets.  Returns the exit status."""
    options = parser().parse_args()
    names = options.target or list(TARGETS)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    if options.here:
        fuzz(names[0], seconds, options.corpus)
        return 0
    return watch(names, seconds, options.corpus, options.jobs)


def watch(names: Sequence[str], seconds: int, corpus: Path, jobs: int) -> int:
    """Run a fuzzer for each target, and print its figures when it ends.  Returns 1 if one found something."""
    corpus.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return int(any(list(pool.map(lambda name: run(name, seconds, corpus), names))))


def run(name: str, seconds: int, corpus: Path) -> bool:
    """Run one fuzzer to its end, and print its figures.  Returns whether it found something."""
    command = [sys.executable, __file__, "--here", "--seconds", str(seconds), "--corpus", str(corpus / name)]
    with (corpus / f"{name}.log").open("w+") as log:
        process = subprocess.Popen([*command, "--target", name], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status  # it was waited for here, for the usage
        log.seek(0)
        text = log.read()
    executed = re.search(r"number_of_executed_units:\s*(\d+)", text)
    findings = sorted((corpus / name).glob(f"{FINDING}*"))
    print(
        f"{name}: {executed[1] if executed else '?'} executions, {len(findings)} findings, "
        f"{usage.ru_utime + usage.ru_stime:.0f} s CPU, {usage.ru_maxrss >> 10} MB, status {status}",
        *(f"  {path}" for path in findings),
        *([f"  see {corpus / name}.log"] if findings or status else []),
        sep="\n",
        flush=True,
    )
    return bool(findings) or status != 0


if __name__ == "__main__":
    sys.exit(main())
