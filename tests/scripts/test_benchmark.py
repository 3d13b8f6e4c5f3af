"""How a benchmark compares two checkouts in turns, and what it says of the machine."""

from __future__ import annotations

import argparse
import platform
import re
from pathlib import Path

import pytest
from _benchmark import Row, benchmark_options, compare_in_turns, compared, figures, machine, own_arguments


def test_numbers_are_known_by_their_line_and_their_place_in_it() -> None:
    text = "machine: 4 CPUs\nwritten in   1.50 s\n1 s: 1,234 MB came, -5 MB more\n2 s: 9 MB came, 7 MB more\nsize 8.5%"
    assert figures(text) == {
        ("written in # s", 0, 0): 1.5,
        ("# s: # MB came, # MB more", 0, 0): 1.0,
        ("# s: # MB came, # MB more", 0, 1): 1234.0,
        ("# s: # MB came, # MB more", 0, 2): -5.0,
        ("# s: # MB came, # MB more", 1, 0): 2.0,
        ("# s: # MB came, # MB more", 1, 1): 9.0,
        ("# s: # MB came, # MB more", 1, 2): 7.0,
        ("size #%", 0, 0): 8.5,
    }


@pytest.mark.parametrize("name", ["pyenv-3.8.18", "sid-3.14", "3.12.1", "p99", "/usr/lib/libc.so.6", "x86-64"])
def test_a_number_in_a_name_is_no_figure(name: str) -> None:
    assert figures(f"{name} took 5 s") == {(f"{name} took # s", 0, 0): 5.0}


def test_figures_of_both_have_medians_and_what_never_changes_is_text() -> None:
    ours = [figures(f"{number} frames: {time} us, aim 4") for number, time in ((20, 5), (20, 1), (20, 3))]
    theirs = [figures(f"{number} frames: {time} us, aim 4") for number, time in ((20, 4), (20, 9), (20, 6))]
    assert compared(ours, theirs) == [Row("20 frames: [#] us, aim 4", 3.0, 6.0)]


def test_of_two_figures_in_a_line_each_has_a_row() -> None:
    assert compared([figures("a 1 b 2")], [figures("a 3 b 4")]) == [Row("a [#] b #", 1, 3), Row("a # b [#]", 2, 4)]


def test_a_figure_that_one_turn_lacks_is_left_out() -> None:
    assert compared([figures("a 1"), figures("")], [figures("a 3"), figures("a 4")]) == []


@pytest.mark.parametrize(("ours", "theirs", "ratio"), [(3.0, 2.0, 1.5), (1.0, 0.0, float("inf"))])
def test_a_ratio_is_ours_as_a_multiple_of_theirs(ours: float, theirs: float, ratio: float) -> None:
    assert Row("", ours, theirs).ratio == ratio


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["steady", "--against", "/base", "--repeat", "1"], ["steady", "--repeat", "1"]),
        (["--against=/base", "--turns=5", "--turns", "5"], []),
        (["--warm", "3"], ["--warm", "3"]),
    ],
)
def test_what_a_script_is_told_in_its_turn_leaves_out_the_comparison(words: list[str], own: list[str]) -> None:
    assert own_arguments(words) == own


def script(directory: Path, body: str) -> Path:
    path = directory / "scripts" / "bench_it.py"
    path.parent.mkdir(parents=True)
    path.write_text(f"import sys\nfrom pathlib import Path\nlog = Path({str(directory.parent / 'turns')!r})\n{body}")
    return path


def test_both_checkouts_are_measured_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = "said = log.read_text() if log.exists() else ''\nlog.write_text(said + {0!r})\n"
    own = script(tmp_path / "own", count.format("o") + "print('took', 2 * len(said), 's', *sys.argv[1:]); sys.exit(1)")
    other = script(tmp_path / "other", count.format("t") + "print('took', 10 + len(said), 's', *sys.argv[1:])")
    assert compare_in_turns(own, other, ["--quick"], 3) == 0
    assert (tmp_path / "turns").read_text() == "ototot"
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == [
        "this",
        "that",
        "ratio",
        *["medians", "of", "3", "turns;", "that", "is"],
        str(tmp_path / "other"),
    ]
    assert row.split() == ["4", "13", "0.308", "took", "[#]", "s", "--quick"]


def test_without_a_common_figure_a_comparison_fails(tmp_path: Path) -> None:
    own, other = script(tmp_path / "own", "print('a 1')"), script(tmp_path / "other", "print('b 1')")
    assert compare_in_turns(own, other, [], 1) == 1


def test_a_checkout_without_the_script_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_start.py", "--against", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        benchmark_options(argparse.ArgumentParser())
    assert ended.value.code == 2
    assert f"{tmp_path} has no scripts/bench_start.py" in capsys.readouterr().err


def test_a_shortened_option_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["bench_start.py", "--again", "/base"])
    with pytest.raises(SystemExit) as ended:
        benchmark_options(argparse.ArgumentParser())
    assert ended.value.code == 2
    assert "unrecognized arguments: --again /base" in capsys.readouterr().err


def test_the_first_line_of_a_benchmark_is_the_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_start.py"])
    options = benchmark_options(argparse.ArgumentParser())
    assert options.against is None
    assert capsys.readouterr().out == machine() + "\n"


def test_a_machine_is_its_cpus_kernel_and_python() -> None:
    expected = rf"machine: .+, \d+ CPUs, Linux {re.escape(platform.release())}, Python {platform.python_version()}"
    assert re.fullmatch(expected, machine())


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent.parent / "scripts").glob("bench_*.py")), ids=lambda path: path.name
)
def test_every_benchmark_names_the_machine_and_can_be_compared(path: Path) -> None:
    assert "benchmark_options(parser)" in path.read_text(encoding="utf-8")
