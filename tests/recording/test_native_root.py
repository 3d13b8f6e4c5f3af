"""Whole recordings: native frames to the root, in the order in which the program made its calls."""

from __future__ import annotations

import subprocess
from pathlib import Path

import check_alternation
import check_whole_stacks
import pytest
from _recordings import record_for, samples_of

from pyflame_ebpf.profile.model import FrameKind, NativeOutcome, Stack
from tests.extension.build import build_extension
from tests.interpreters import Interpreter, discover

pytestmark = pytest.mark.root


def newest_of(prefix: str) -> Interpreter:
    return [found for found in discover() if found.name.startswith(prefix)][-1]


@pytest.fixture(scope="module", autouse=True)
def extension() -> None:
    build_extension()


@pytest.mark.parametrize("times", [3, 30, 500])
def test_whole_stacks_hold_the_calls_in_their_order(times: int) -> None:
    # The oldest needs the most native frames for each alternation.
    interpreters = [discover()[0], newest_of("pyenv-3.12"), newest_of("system")]
    verdicts = check_alternation.check(interpreters, times, 4, 99)
    assert [verdict.faults for verdict in verdicts] == [{}, {}, {}]
    assert all(verdict.complete > 0 for verdict in verdicts)


def test_samples_reach_the_root_once_the_libraries_are_known() -> None:
    shown = check_whole_stacks.Shown()
    programs = ("extension", "re", "zlib")
    verdicts = check_whole_stacks.check(newest_of("pyenv"), programs, (), (6, 199), shown)
    assert len(verdicts) == 3
    # Other tests may run at the same time: a busy host learns later.
    assert all(verdict.late_whole >= 0.98 * verdict.late > 0 for verdict in verdicts), verdicts
    assert not [name for name in shown.samples if "EvalFrame" in name or name.startswith("_PyObject_Vectorcall")]


@pytest.mark.parametrize(
    ("arguments", "innermost"),
    [((), {"kept_in_r11", "below_r11"}), (("signal",), {"stay"})],
    ids=["innermost or the one before", "interrupted by a signal"],
)
def test_a_frame_that_a_scratch_register_finds_has_its_callers(
    arguments: tuple[str, ...], innermost: set[str], tmp_path: Path
) -> None:
    source, program = Path(__file__).parent.parent / "extension" / "registers.c", tmp_path / "registers"
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    with subprocess.Popen([program, *arguments]) as running:
        try:
            profile = record_for(3, 199, pids=[running.pid], busy=[running.pid])
        finally:
            running.kill()
    samples = samples_of(profile, running.pid)
    late = {key: count for key, count in samples.items() if key.second}
    whole = {key for key in samples if key.native is NativeOutcome.COMPLETE}
    assert sum(count for key, count in late.items() if key in whole) >= 0.98 * sum(late.values()) > 0
    stacks = {key: native_names(profile.frames_of(key.stack)) for key in whole}
    seen_late = {stacks[key] for key in whole & late.keys()}
    assert {names[-1] for names in seen_late} == innermost
    assert all({"main", "kept_in_r11"} <= {*names} for names in seen_late)
    # The first ones were finished in user space, which must not show a frame twice.
    assert all(len(names) == len({*names}) for names in stacks.values())


def native_names(stack: Stack) -> tuple[str, ...]:
    return tuple(frame.name for frame in stack if frame.kind is FrameKind.NATIVE)  # not the kernel's
