"""CI runs every script of scripts/ with its quickest arguments: here those that record, or enter a chroot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartTarget
from tests.interpreters import discover, sid_root
from tests.scripts.quick_runs import AS_ROOT, Quick, check_quick_run

pytestmark = pytest.mark.root

# Called like vm.sh: run -c CPUS -m MEMORY -t SECONDS SUITE -- COMMAND...
RUNNER = """#!/bin/bash
while [[ $1 != -- ]]; do shift; done
exec "${@:2}"
"""


@pytest.fixture
def places(tmp_path: Path, start_target: StartTarget) -> dict[str, str]:
    """What stands for the braces of a row: a directory, a runner of virtual machines, a process of a new CPython,
    the directory of the testbed.
    """
    runner = tmp_path / "runner"
    runner.write_text(RUNNER)
    runner.chmod(0o755)
    newest = start_target(discover()[-1], "workloads.py", "busy")
    return {
        "directory": str(tmp_path),
        "runner": str(runner),
        "pid": str(newest.pid),
        "testbed": str(sid_root().parent),
    }


@pytest.mark.parametrize("quick", AS_ROOT, ids=lambda quick: quick.script)
def test_a_script_gives_its_figure(quick: Quick, places: dict[str, str]) -> None:
    check_quick_run(quick, **places)
