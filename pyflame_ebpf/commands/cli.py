"""The command line: its commands with their help, and one run of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from pyflame_ebpf import __version__
from pyflame_ebpf.commands.arguments.diff import diff_arguments
from pyflame_ebpf.commands.arguments.doctor import doctor_arguments
from pyflame_ebpf.commands.arguments.record import record_arguments
from pyflame_ebpf.commands.arguments.report import report_arguments
from pyflame_ebpf.commands.arguments.top import top_arguments
from pyflame_ebpf.commands.exits import exit_code_of
from pyflame_ebpf.commands.help_texts import DIFF_HELP, DOCTOR_HELP, HELP, RECORD_HELP, REPORT_HELP, TOP_HELP
from pyflame_ebpf.errors import EXIT_CODES

_EXIT_CODES_HELP = "\n".join(["Exit codes:", *(f"{code:>4}  {meaning}" for code, meaning in EXIT_CODES.items())])


def _paragraphs(text: str) -> str:
    """Put each paragraph on one line, as typer wants it; indented paragraphs stay as they are."""
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else " ".join(each.split()) for each in paragraphs)


app = typer.Typer(
    name="pyflame-ebpf",
    help=_paragraphs(HELP),
    epilog=_EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"pyflame-ebpf {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version  # has been shown


# Options come before a program that is to be recorded; what follows it is the program's own.
app.command("record", help=_paragraphs(RECORD_HELP), context_settings={"allow_interspersed_args": False})(
    record_arguments
)
app.command("top", help=_paragraphs(TOP_HELP))(top_arguments)
app.command("report", help=_paragraphs(REPORT_HELP))(report_arguments)
app.command("diff", help=_paragraphs(DIFF_HELP))(diff_arguments)
app.command("doctor", help=_paragraphs(DOCTOR_HELP))(doctor_arguments)


def run(arguments: Sequence[str]) -> int:
    """Run a command line.  Returns the exit code."""

    def parse_and_run() -> int:
        try:
            app(args=list(arguments), prog_name="pyflame-ebpf")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        return 0

    return exit_code_of(parse_and_run)
