"""Every script of scripts/: the quickest arguments that still give its figure, and that figure; or where CI runs it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.command_line import environment

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = CHECKOUT / "scripts"
TIMEOUT = 240.0  # seconds
NEW_PYTHON, ANY_PYTHON = "3.12", sys.executable  # NEW_PYTHON is part of an interpreter's name


@dataclass(frozen=True, slots=True)
class Quick:
    """One run of a script.

    ``figure`` is a pattern that a line of the output matches.  A benchmark that ``has_aim`` ends with status 1 on a
    host that is too slow.  ``attempts`` is above 1 where a short run may be wrong: by a 95 % interval once in twenty
    times, or by its edges.
    """

    script: str
    arguments: str
    figure: str
    attempts: int = 1
    has_aim: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A script that CI runs by the text ``call`` in ``file``."""

    script: str
    file: str
    call: str


WITHOUT_ROOT = (
    Quick("bench_kept_samples.py", "--cpus 2 --seconds 5", r"990 stacks, [\d.]+ us each;.*"),
    Quick("check_elf.py", "--quick", r"\d+ files with \d+ symbols, 0 read otherwise by pyelftools; .*"),
    Quick("check_lines.py", f"--sample 5 {ANY_PYTHON}", r"1 interpreters, \d{3,} positions: 0 wrong"),
    Quick("check_unwind_rows.py", ANY_PYTHON, r"\d+ rows: 0 wrong"),
    Quick("fuzz.py", "--seconds 3 --corpus {directory} --target perfmap", r"perfmap: \d+ executions, 0 findings, .*"),
    Quick("mutation_score.py", "--quick", r"all +5 +5 +0 +0 100\.0%"),
)
IN_CHROMIUM = (
    Quick("bench_flamegraph.py", "--stacks 500", r"search +\d+ ms, [\d.]+ % matched"),
    Quick("bench_report.py", "--stacks 500 --seconds 10", r"drag +[\d.]+ ms +\(under 200\)", has_aim=True),
)
AS_ROOT = (
    Quick("bench_cost.py", f"--quick --interpreter {NEW_PYTHON}", r" +200 frames +999 Hz  pyflame-ebpf +[\d.]+ .*"),
    Quick("bench_native.py", "--repeats 1 --seconds 0.5 --depth 10", r"16 pages +10( +[\d.]+){4}", has_aim=True),
    Quick("bench_native_load.py", "steady --duration 3 --repeat 1", r"  whole [\d.]+% .*"),
    Quick("bench_start.py", "--repeat 1", r"command to first tick [\d.]+ s, CPU until then [\d.]+ s; medians of 1"),
    Quick(
        "bench_top.py", "--processes 2 --warm 2 --seconds 2 --repeat 1", r"[\d.]+ % of a core, [\d.]+ KB drawn a second"
    ),
    Quick(
        "check_against_perf.py", f"--interpreter {NEW_PYTHON} --duration 4", r"in the stack: \d+ functions, 0 differ .*"
    ),
    Quick("check_alternation.py", f"--interpreter {NEW_PYTHON} --times 3 --duration 4", "0 failed"),
    Quick("check_attacks.py", "--quick --case rights", r"1 attacks, 0 failed"),
    Quick("check_capabilities.py", "--only CAP_SYSLOG", r"1 recordings: as said"),
    Quick(
        "check_cpu_time.py",
        f"--interpreter {NEW_PYTHON} --duration 8 --frequency 199",
        r"all that live at both ends.* ok",
        attempts=3,
    ),
    Quick("check_diff.py", f"--interpreter {NEW_PYTHON} --duration 4 --same 0", r".*\(67% is right\)", attempts=3),
    Quick(
        "check_impossible_stacks.py",
        f"--interpreter {NEW_PYTHON} --samples 1000",
        r"\d{4,} samples, \d+ incomplete, 0 impossible",
    ),
    Quick("check_shares.py", f"--interpreter {NEW_PYTHON} --duration 3", r"1 recordings of a process, 0 failed"),
    Quick("check_short_lived.py", f"--interpreter {NEW_PYTHON} --duration 3", r".*\+-.* ok"),
    Quick("check_whole_stacks.py", f"--interpreter {NEW_PYTHON} --no-packages --duration 4", r"10 processes, 0 failed"),
    Quick("cpython_layout_row.py", "--pid {pid}", r"    \(3, 1\d\): CPythonLayout\("),
    Quick("kernel_cell.py", "--duration 6 --warm-up 2 --frequency 199", r".*: \d+ samples after 2 s, .*"),
    Quick(
        "kernel_matrix.sh",
        "bookworm",
        "bookworm: passed",
        # No runner of virtual machines belongs to the checkout: the cell runs on the kernel of this machine.
        environment={
            "VM_RUNNER": "{runner}",
            "PYTHON": ANY_PYTHON,
            "CELL_OPTIONS": "--duration 6 --warm-up 2 --frequency 199",
        },
    ),
    Quick("readme_picture.py", "--seconds 4 --output {directory}/picture.png", r".*picture\.png: \d{5,} bytes"),
    Quick("testbed.sh", "{testbed}", r".*/usr/bin/python3\.1\d"),
)
ELSEWHERE = (
    Elsewhere("build_report_page.sh", "scripts/run_tests.sh", "scripts/build_report_page.sh --check"),
    Elsewhere("host_cell.py", "scripts/host_matrix.sh", "/cell/host_cell.py"),
    Elsewhere("host_matrix.sh", ".ci/run", "scripts/host_matrix.sh trixie"),
    Elsewhere("install.sh", "tests/scripts/test_install.py", "scripts/install.sh"),
    Elsewhere("provision.sh", ".ci/run", "scripts/provision.sh --tests"),
    Elsewhere("run_tests.sh", ".ci/run", "scripts/run_tests.sh"),
)


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does: a program of its own, from any directory."""
    interpreter = "bash" if script.endswith(".sh") else sys.executable
    return subprocess.run(
        [interpreter, SCRIPTS / script, *arguments],
        cwd="/",
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def check_quick_run(quick: Quick, **places: str) -> None:
    """Fail unless the script succeeds and prints its figure; ``places`` fill the braces of its row."""
    arguments = shlex.split(quick.arguments.format(**places))
    variables = {name: value.format(**places) for name, value in quick.environment.items()}
    statuses = (0, 1) if quick.has_aim else (0,)
    for _ in range(quick.attempts):
        ended = run(quick.script, *arguments, **variables)
        if ended.returncode in statuses:
            break
    said = f"{ended.stdout}\n{ended.stderr}"
    assert ended.returncode in statuses, said
    assert re.search(f"^{quick.figure}$", ended.stdout, re.MULTILINE), said
