"""``pyflame-ebpf diff`` as its users run it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pyflame_ebpf.profile.file import save_profile
from tests.command_line import pyflame
from tests.compare.test_comparison import BAR, FOO, MAIN, profile_of
from tests.profiles import ProfileWriter


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with before.json.gz, after.json.gz, halves.json.gz (before, then after) and before.folded."""
    directory = tmp_path_factory.mktemp("recordings")
    before = profile_of({(MAIN, FOO): 2250, (MAIN, BAR): 750})
    halves = profile_of({(MAIN, FOO): 2250, (MAIN, BAR): 750}, seconds=20, second_of=lambda _, count: count // 10)
    for key in [key for key in halves.samples if key.second >= 10 and halves.frames_of(key.stack)[-1] == FOO]:
        halves.samples[key] = 24
    after = profile_of({(MAIN, FOO): 240, (MAIN, BAR): 750})
    empty = profile_of({})
    ProfileWriter(empty)
    for name, profile in (("before", before), ("after", after), ("halves", halves), ("empty", empty)):
        with (directory / f"{name}.json.gz").open("wb") as stream:
            save_profile(profile, stream)
    (directory / "before.folded").write_text("app;main;foo 2250\napp;main;bar 750\n")
    (directory / "after.folded").write_text("app;main;foo 240\napp;main;bar 750\n")
    return directory


def diff(recordings: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return pyflame("diff", *(recordings / each if "." in each else each for each in arguments))


def test_it_prints_what_changed_and_the_tables(recordings: Path) -> None:
    ended = diff(recordings, "before.json.gz", "after.json.gz", "--core-hour-price", "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("CPU per second fell 67.0 %")
    assert lines[1].startswith("That saves 1,467 ± 56 a month")
    assert "python app.py" in ended.stdout


def test_two_times_of_one_recording_are_compared(recordings: Path) -> None:
    ended = diff(recordings, "halves.json.gz", "--from", "0", "--to", "0:10", "--from", "0:10", "--to", "0:20")
    assert ended.stdout.startswith("CPU per second fell 67.0 %")


def test_one_range_is_taken_of_both(recordings: Path) -> None:
    ended = diff(recordings, "halves.json.gz", "after.json.gz", "--to", "10", "--format", "json")
    document = json.loads(ended.stdout)
    assert (document["before"]["duration"], document["after"]["duration"]) == (10, 10)
    assert document["total"]["relative_change"] == pytest.approx(-0.67)


def test_one_recording_without_two_ranges_is_refused(recordings: Path) -> None:
    ended = diff(recordings, "halves.json.gz", "--from", "10")
    assert ended.returncode == 2
    assert "--from 0 --to 0:30 --from 0:30 --to 1:00" in ended.stderr


def test_folded_stacks_are_compared_by_their_shares(recordings: Path) -> None:
    ended = diff(recordings, "before.folded", "after.folded", "--by", "function")
    assert ended.returncode == 0
    assert ended.stdout.startswith("Shares of all samples are compared")
    assert "% of all" in ended.stdout


def test_folded_stacks_are_compared_in_cores_where_their_time_is_told(recordings: Path) -> None:
    ended = diff(recordings, "before.folded", "after.folded", "--duration", "10", "--frequency", "100")
    assert ended.stdout.startswith("CPU per second fell 67.0 %")


def test_a_saving_of_what_has_no_time_is_refused(recordings: Path) -> None:
    ended = diff(recordings, "before.folded", "after.folded", "--core-hour-price", "1")
    assert ended.returncode == 2
    assert "--duration" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "module"),
        ("--sort", "name"),
        ("--format", "html5"),
        ("--output", "-"),
        ("--duration", "10"),
        ("--from", "1", "--from", "2", "--from", "3"),
        ("--from", "5", "--to", "3"),
        ("--from", "99"),
        ("--core-hour-price", "-1"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(recordings: Path, arguments: tuple[str, ...]) -> None:
    ended = diff(recordings, "before.json.gz", "after.json.gz", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")


def test_nothing_selected_is_said(recordings: Path) -> None:
    ended = diff(recordings, "before.json.gz", "after.json.gz", "--process", "nobody")
    assert ended.returncode == 16
    assert "none of the 3,990 samples" in ended.stderr


def test_a_side_without_samples_is_compared_with_a_warning(recordings: Path) -> None:
    ended = diff(recordings, "before.json.gz", "empty.json.gz")
    assert ended.stdout.startswith("CPU per second fell 100")
    assert "nothing that is compared used the CPU after" in ended.stderr


def test_without_a_format_a_directory_gets_every_output(recordings: Path, tmp_path: Path) -> None:
    ended = pyflame(
        "diff", recordings / "before.json.gz", recordings / "after.json.gz", "--output", tmp_path / "changes"
    )
    assert ended.returncode == 0
    names = {"changes.txt", "changes.json", "changes.csv", "difference.folded", "difference.svg", "difference.html"}
    assert names | {"difference-reversed.svg"} <= {path.name for path in (tmp_path / "changes").iterdir()}


def test_a_file_that_exists_is_not_overwritten(recordings: Path, tmp_path: Path) -> None:
    path = tmp_path / "difference.svg"
    path.write_text("mine")
    before, after = recordings / "before.json.gz", recordings / "after.json.gz"
    ended = pyflame("diff", before, after, "--format", "svg", "--output", path)
    assert ended.returncode == 13
    assert path.read_text() == "mine"
