"""Help is the manual: README shows commands and options as ``--help`` has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from pyflame_ebpf.commands.cli import app
from pyflame_ebpf.commands.help_texts import DIFF_HELP, DOCTOR_HELP, HELP, RECORD_HELP, REPORT_HELP, TOP_HELP
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from tests.command_line import pyflame

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"pyflame-ebpf (record|top|report|diff|doctor)\b([^`|#\n]*)")  # of the options before a pipe
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OF_A_SCRIPT = re.compile(r"`scripts/[^`]*`")
OF_OTHER_TOOLS = {"--subprocesses", "--call-graph"}  # py-spy's, perf's


def options_of_commands() -> dict[str, set[str]]:
    """The long options of each command, from what parses them."""
    group = typer.main.get_command(app)
    found: dict[str, set[str]] = {}
    for name, command in vars(group)["commands"].items():
        found[name] = {
            text
            for parameter in command.params
            for text in (*parameter.opts, *parameter.secondary_opts)
            if text.startswith("--")
        }
    return found


def examples(text: str) -> list[tuple[str, str]]:
    """(command, option) of every example in a text."""
    found = []
    for name, words in EXAMPLE.findall(text):
        own = words.split(" -- ")[0]  # after it comes a program with options of its own
        found += [(name, option) for option in OPTION.findall(own)]
    return found


@pytest.mark.parametrize("text", [README, HELP, RECORD_HELP, REPORT_HELP, DIFF_HELP, TOP_HELP, DOCTOR_HELP])
def test_every_option_of_an_example_is_one_that_the_command_takes(text: str) -> None:
    known = options_of_commands()
    assert [(name, option) for name, option in examples(text) if option not in known[name]] == []


def test_every_option_that_readme_names_is_one_of_a_command() -> None:
    known = set().union(*options_of_commands().values())
    named = set(OPTION.findall(OF_A_SCRIPT.sub("", README))) - OF_OTHER_TOOLS
    assert named - known - {"--help"} == set()


def test_readme_names_every_command() -> None:
    assert {name for name in options_of_commands() if f"pyflame-ebpf {name}" not in README} == set()


def test_help_lists_the_commands_in_the_order_of_their_use() -> None:
    assert list(options_of_commands()) == ["record", "top", "report", "diff", "doctor"]


@pytest.mark.parametrize("command", list(options_of_commands()))
def test_the_help_of_a_command_shows_all_its_options(command: str) -> None:
    shown = pyflame(command, "--help").stdout
    assert [option for option in options_of_commands()[command] if option not in shown] == []


def test_report_s_help_names_every_format() -> None:
    shown = pyflame("report", "--help").stdout
    assert [name for name in OUTPUT_FORMATS if name not in shown] == []


def test_record_s_help_names_every_format_that_is_not_written_unasked() -> None:
    shown = pyflame("record", "--help").stdout
    assert [each.name for each in OUTPUT_FORMATS.values() if not each.recorded and each.name not in shown] == []
