"""Whole recordings: native frames to the root, in the order in which the program made its calls."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from extension.build import build_extension
from interpreters import Interpreter, discover

sys.path.append(str(Path(__file__).parent.parent / "scripts"))
import check_alternation
import check_whole_stacks

pytestmark = pytest.mark.root


def newest_of(prefix: str) -> Interpreter:
    return [found for found in discover() if found.name.startswith(prefix)][-1]


@pytest.fixture(scope="module", autouse=True)
def extension():
    build_extension()


@pytest.mark.parametrize("times", [3, 30, 500])
def test_whole_stacks_hold_the_calls_in_their_order(times):
    # The oldest needs the most native frames for each alternation.
    interpreters = [discover()[0], newest_of("pyenv-3.12"), newest_of("system")]
    verdicts = check_alternation.check(interpreters, times, 4, 99)
    assert [verdict.faults for verdict in verdicts] == [{}, {}, {}]
    assert all(verdict.complete > 0 for verdict in verdicts)


def test_samples_reach_the_root_once_the_libraries_are_known():
    shown = check_whole_stacks.Shown()
    programs = ("extension", "re", "zlib")
    verdicts = check_whole_stacks.check(newest_of("pyenv"), programs, (), (6, 199), shown)
    assert len(verdicts) == 3
    # Other tests may run at the same time: a busy host learns later.
    assert all(verdict.late_whole >= 0.98 * verdict.late > 0 for verdict in verdicts), verdicts
    assert not [name for name in shown.samples if "EvalFrame" in name or name.startswith("_PyObject_Vectorcall")]
