"""scripts/mutation_score.py: the changes that it makes, and what it says of tests that notice them or do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import _mutants
import pytest
from _mutants import mutants_of
from mutation_score import sampled

SCRIPT = Path(__file__).parents[2] / "scripts/mutation_score.py"


def changes(directory: Path, source: str) -> list[tuple[str, str]]:
    (directory / "module.py").write_text(source)
    return [(mutant.before, mutant.after) for mutant in mutants_of(directory, "module.py")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["(a <= b)"]),
        ("a == b", ["(a != b)"]),
        ("a + b", ["(a - b)"]),
        ("a and not b", ["(a or not b)", "a and (b)"]),
        ("a[b:c]", ["a[:c]", "a[b:]"]),
        ("min(a)", ["(max(a))"]),
        ("16", ["17", "15"]),
        ("'<I'", ["'<i'"]),
        ("{'key': a}", ["{'KEY': a}"]),
        ("[a for a in b if c]", ["[a for a in b if not c]"]),
        ("f'{a + b}'", ["f'{a - b}'"]),
    ],
)
def test_an_expression_is_changed_to(tmp_path: Path, source: str, expected: list[str]) -> None:
    assert changes(tmp_path, f"a = {source}\n") == [(f"a = {source}", f"a = {after}") for after in expected]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("return a", ["return None"]),
        ("raise A('text')", ["pass"]),
        ("a(b)", ["pass"]),
        ("a.b = c", ["pass"]),
        ("a += b", ["a -= b", "pass"]),
        ("continue", ["break"]),
    ],
)
def test_a_statement_is_changed_to(tmp_path: Path, statement: str, expected: list[str]) -> None:
    source = f"def function():\n    for a in b:\n        {statement}\n"
    assert changes(tmp_path, source) == [(statement, after) for after in expected]


def test_what_no_program_sees_is_not_changed(tmp_path: Path) -> None:
    source = (
        '"""Text."""\n'
        "Stack = tuple[int, ...]\n"
        "@dataclass(frozen=True)\n"
        "class Frame:\n"
        '    __slots__ = ("name",)\n'
        '    name: Literal["a"]\n'
        "    def caller(self, frames: Literal[1]) -> Literal[2]: ...\n"
    )
    assert changes(tmp_path, source) == []


def test_a_changed_line_is_the_one_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def function():\n    return (\n        1,\n    )\n")
    assert str(mutants_of(tmp_path, "module.py")[1]) == "module.py:3: 1, -> 2,"


def scored(checkout: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Score a package of one function with one test of it."""
    files = {
        "pyflame_ebpf/__init__.py": "",
        "pyflame_ebpf/room/module.py": "def rest(a):\n    return a - 2 if a > 1 else a\n",
        "tests/room/test_module.py": f"from pyflame_ebpf.room.module import rest\ndef test_it():\n    assert {test}\n",
        "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["walker", "root", "browser", "node"]\n',
    }
    for name, text in files.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    arguments = [
        sys.executable,
        str(SCRIPT),
        "--checkout",
        str(checkout),
        "--modules",
        "room",
        "--sample",
        "0",
        *options,
    ]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_survivors_and_the_share_of_the_others_are_told(tmp_path: Path) -> None:
    run = scored(tmp_path, "rest(3) == 1", "--at-least", "60")
    module = "pyflame_ebpf/room/module.py"
    assert run.stdout.splitlines() == [
        f"{module}:2: return a - 2 if a > 1 else a -> return a - 2 if (a >= 1) else a",
        f"{module}:2: return a - 2 if a > 1 else a -> return a - 2 if a > 2 else a",
        f"{module}:2: return a - 2 if a > 1 else a -> return a - 2 if a > 0 else a",
        f"{'module':<50} mutants  killed    late survived  score",
        f"{module:<50}       8       5       0        3  62.5%",
        f"{'all':<50}       8       5       0        3  62.5%",
    ]
    assert run.returncode == 0


def test_a_score_below_the_one_that_is_asked_for_is_a_failure(tmp_path: Path) -> None:
    assert scored(tmp_path, "rest(3) == 1", "--at-least", "90").returncode == 1


def test_tests_that_cannot_run_are_a_failure_of_another_kind(tmp_path: Path) -> None:
    assert scored(tmp_path, "rest(").returncode == 2


def test_a_change_that_a_person_found_equivalent_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text("a = b < c and d  # a comment\n")
    (tmp_path / "equivalents.txt").write_text("A reason.\n- a = b < c and d\n+ a = (b <= c) and d\n")
    monkeypatch.setattr(_mutants, "EQUIVALENTS", tmp_path / "equivalents.txt")
    chosen = sampled(tmp_path, ["module.py"], 0, 1)
    assert [mutant.after for mutant in chosen] == ["", "a = (b < c or d)  # a comment"]
