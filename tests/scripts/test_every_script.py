"""CI runs every script of scripts/ with its quickest arguments: here those that need no root."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.scripts.quick_runs import (
    AS_ROOT,
    CHECKOUT,
    ELSEWHERE,
    IN_CHROMIUM,
    SCRIPTS,
    WITHOUT_ROOT,
    Elsewhere,
    Quick,
    check_quick_run,
    run,
)

# What begins with an underscore is imported by scripts, and started by none but them.
PROGRAMS = sorted(path.name for path in SCRIPTS.iterdir() if path.suffix in (".py", ".sh") and path.name[0] != "_")


def script_of(row: object) -> str:
    return row.script if isinstance(row, (Quick, Elsewhere)) else str(row)


def test_the_table_names_every_script_once_and_nothing_else() -> None:
    assert sorted(row.script for row in (*WITHOUT_ROOT, *IN_CHROMIUM, *AS_ROOT, *ELSEWHERE)) == PROGRAMS


@pytest.mark.parametrize("script", PROGRAMS)
def test_a_script_is_executable(script: str) -> None:
    assert (SCRIPTS / script).stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize("script", PROGRAMS)
def test_a_script_tells_its_usage(script: str) -> None:
    ended = run(script, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert script in ended.stdout
    assert len(ended.stdout.splitlines()) > 3


@pytest.mark.parametrize("row", ELSEWHERE, ids=script_of)
def test_a_script_that_has_no_quick_run_is_run_by_ci(row: Elsewhere) -> None:
    assert row.call in (CHECKOUT / row.file).read_text(encoding="utf-8")


@pytest.mark.parametrize("quick", WITHOUT_ROOT, ids=script_of)
def test_a_script_gives_its_figure(quick: Quick, tmp_path: Path) -> None:
    if quick.script == "fuzz.py":
        pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    if quick.script == "check_unwind_rows.py" and not shutil.which("readelf"):
        pytest.skip("no readelf to compare with; apt-get install binutils")
    check_quick_run(quick, directory=str(tmp_path))


@pytest.mark.browser
@pytest.mark.parametrize("quick", IN_CHROMIUM, ids=script_of)
def test_a_script_gives_its_figure_in_chromium(quick: Quick) -> None:
    check_quick_run(quick)
