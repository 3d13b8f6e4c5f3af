"""What the command line takes, refuses and says, without recording anything."""

from __future__ import annotations

import os
import pkgutil
import signal
import stat
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import typer

import pyflame_ebpf
from pyflame_ebpf.commands.arguments import options
from pyflame_ebpf.commands.exits import exit_code_of
from pyflame_ebpf.commands.host_checks import check_force
from pyflame_ebpf.commands.progress_line import progress_text
from pyflame_ebpf.commands.record import default_directory
from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.errors import EXIT_CODES, Interrupted, PyflameError
from pyflame_ebpf.recording.recorder import Progress
from tests.command_line import PYFLAME, environment, pyflame


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60.0), ("1.5", 1.5), (".5", 0.5), ("90s", 90.0), ("5m", 300.0), ("1.5h", 5400.0)],
)
def test_a_duration_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert options.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "5 m", "1d", "nan", "inf", "1e3", "m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("0.0", 0.0), ("90", 90.0), ("1:30", 90.0), ("1:30.5", 90.5), ("1:00:05", 3605.0), ("2m", 120.0)],
)
def test_a_moment_is_seconds_or_minutes_and_seconds(text: str, seconds: float) -> None:
    assert options.parse_moment(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:", "1:5", "1:60", "1:1:00", ":30"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.parse_moment(text)


def test_the_default_directory_is_named_after_the_time_in_utc() -> None:
    assert default_directory(1795428900.9) == "pyflame-20261123T101500Z"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "none of them is given"),
        (["--all", "--pid", "1"], "more than one of them is given"),
        (["--all", "--", "true"], "more than one of them is given"),
        (["--pid", "1", "--", "true"], "more than one of them is given"),
    ],
)
def test_exactly_one_kind_of_target_must_be_given(arguments: list[str], said: str) -> None:
    ended = pyflame("record", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--pid", "0"], ["--pid", "x"], ["--frequency", "0"], ["--duration", "0"], ["--nonsense"]],
)
def test_impossible_values_are_usage_errors(arguments: list[str]) -> None:
    ended = pyflame("record", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--all", "--format", "pdf"], "there is no format 'pdf'"),
        (["--all", "--output", "-", "--format", "pprof", "--format", "jsonl"], "only one format"),
        (["--all", "--duration", "5", "--from", "5"], "is to last 5 s only"),
        (["--all", "--process", "["], "not a regular expression"),
        (["--all", "--group-by", "x"], "nothing to group by"),
        (["--all", "--frequency", "1001"], "1001 Hz is over 1,000 Hz, which takes --force"),
    ],
)
def test_what_only_the_outputs_would_stumble_over_is_refused_before_recording(arguments: list[str], said: str) -> None:
    ended = pyflame("record", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in " ".join(ended.stderr.split())


def test_a_view_of_a_high_rate_takes_force_too() -> None:
    ended = pyflame("top", "--frequency", "1001")
    assert ended.returncode == 2
    assert "which takes --force" in " ".join(ended.stderr.split())


@pytest.mark.parametrize(("frequency", "force"), [(1000, False), (1001, True), (100_000, True)])
def test_a_moderate_or_forced_rate_is_accepted(frequency: int, force: bool) -> None:
    check_force(frequency, force)


def test_the_version_is_shown() -> None:
    assert pyflame("--version").stdout == f"pyflame-ebpf {pyflame_ebpf.__version__}\n"


def test_help_names_every_exit_code() -> None:
    shown = pyflame("--help").stdout
    assert [code for code in EXIT_CODES if f" {code}  {EXIT_CODES[code]}" not in shown] == []


@pytest.mark.parametrize("command", ["record", "report", "doctor"])
def test_the_help_of_each_command_has_an_example_of_it(command: str) -> None:
    shown = pyflame(command, "--help")
    assert shown.returncode == 0
    assert f"pyflame-ebpf {command} " in shown.stdout.partition("Options")[0].partition("Usage")[2].partition("\n")[2]


def every_error_class() -> list[type[PyflameError]]:
    for module in pkgutil.walk_packages(pyflame_ebpf.__path__, "pyflame_ebpf."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found = [PyflameError]
    for each in found:
        found.extend(each.__subclasses__())
    return [each for each in found if each.__module__.startswith("pyflame_ebpf.")]


def test_every_error_has_an_exit_code_of_its_own_that_is_documented() -> None:
    # A special case of an error (OverBudget of BadElf) ends as that one does.
    codes = [each.exit_code for each in every_error_class() if "exit_code" in vars(each)]
    assert sorted(codes) == sorted(set(codes))
    assert set(codes) <= set(EXIT_CODES)
    assert set(EXIT_CODES) - set(codes) == {0, 70, 130, 141}


def test_an_error_is_printed_with_its_hint_and_ends_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    class Boiled(PyflameError):
        exit_code = 14

    def boil() -> None:
        raise Boiled("the tea is \x1b[31mcold", "Boil\nwater.")

    assert exit_code_of(boil) == 14
    assert capsys.readouterr().err == "error: the tea is \\x1b[31mcold\nhint: Boil\nwater.\n"


def test_a_defect_shows_one_line_and_saves_its_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SUDO_UID", "9" * 20)
    monkeypatch.setenv("SUDO_GID", "5")

    def break_down() -> None:
        raise KeyError("nonsense")

    assert exit_code_of(break_down) == 70
    said = capsys.readouterr().err
    (report,) = tmp_path.iterdir()
    assert said.splitlines()[0] == "error: a defect in pyflame-ebpf: KeyError: 'nonsense'"
    assert str(report) in said
    assert "Traceback" not in said
    assert "in break_down" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
)
def test_a_signal_before_the_first_tick_ends_with_the_code_that_shells_know(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait() -> None:
        with StopSignals():
            os.kill(os.getpid(), number)

    assert exit_code_of(wait) == code
    assert capsys.readouterr().err == "error: interrupted: nothing was recorded\n"


def test_while_signals_are_noted_they_raise_nothing() -> None:
    with StopSignals() as signals:
        signals.note_only()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.noted == [signal.SIGTERM]


def test_the_same_request_sent_twice_counts_once() -> None:
    with StopSignals() as signals:
        signals.note_only()
        for _ in range(2):  # as timeout(1) does: to its child, then to the group that the child is in
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.noted == [signal.SIGTERM]


def test_a_further_signal_that_was_noted_raises_at_the_next_chance() -> None:
    with StopSignals() as signals:
        signals.note_only()
        signals.noted += [signal.SIGINT, signal.SIGINT]
        with pytest.raises(Interrupted), signals.raising(1):
            pytest.fail("went on")


def test_the_program_s_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_progress_shows_time_samples_processes_and_losses() -> None:
    assert progress_text(Progress(75.9, 12418, 57, 12, 3)) == ("1:15  samples 12,418  processes 57, Python 12  lost 3")


def test_a_closed_standard_output_is_no_defect() -> None:
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PYFLAME, "--version"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 0
