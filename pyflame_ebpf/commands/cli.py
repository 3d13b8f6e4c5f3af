"""The command line: parses, hands over to ``commands``, and is the one place that prints errors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pyflame_ebpf import __version__
from pyflame_ebpf.commands.help_texts import DIFF_HELP, DOCTOR_HELP, HELP, RECORD_HELP, REPORT_HELP, TOP_HELP
from pyflame_ebpf.commands.options import (
    AllFrames,
    From,
    GroupBy,
    Lines,
    Processes,
    Python,
    PythonOnly,
    Threads,
    To,
    grouping,
    parse_duration,
    parse_moment,
)
from pyflame_ebpf.errors import EXIT_CODES, Interrupted, PyflameError

_READER_GONE = 141
_INTERRUPTED = 130

_EXIT_CODES_HELP = "\n".join(["Exit codes:", *(f"{code:>4}  {meaning}" for code, meaning in EXIT_CODES.items())])


def _paragraphs(text: str) -> str:
    """The text with each paragraph on one line, as typer wants them; indented ones stay as they are."""
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


@app.command("record", help=_paragraphs(RECORD_HELP), context_settings={"allow_interspersed_args": False})
def _record(  # noqa: PLR0913, PLR0917 - one for each option
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="Program to start and record.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Record every process on the host.")] = False,
    pid: Annotated[
        list[int] | None, typer.Option("--pid", "-p", min=1, metavar="PID", help="Record this process; repeatable.")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration", "-d", metavar="TIME", parser=parse_duration, help="Seconds, or 90s, 5m, 1h. [default: Ctrl-C]"
        ),
    ] = None,
    frequency: Annotated[
        int, typer.Option("--frequency", "-F", min=1, metavar="HZ", help="Samples a second and CPU.")
    ] = 99,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="New directory for the outputs; - writes folded stacks, and nothing else, to standard output. "
            "[default: pyflame-TIME]",
        ),
    ] = None,
    output_formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="Write this, too (with --output -: alone): pprof, speedscope, firefox, jsonl, table. Repeatable.",
        ),
    ] = None,
    source: Annotated[
        bool, typer.Option("--source", help="Take the source text of the sampled functions along in the profile.")
    ] = False,
    begin: From = None,
    end: To = None,
    process: Processes = None,
    python: Python = False,
    lines: Lines = False,
    group_by: GroupBy = "process",
    threads: Threads = False,
    kernel: Annotated[bool, typer.Option(help="Record kernel frames, or leave them out.")] = True,
    native: Annotated[bool, typer.Option(help="Record frames of C functions, or leave them out.")] = True,
    python_only: PythonOnly = False,
    all_frames: AllFrames = False,
) -> None:
    from pyflame_ebpf.commands.record import Request, record  # noqa: PLC0415 - each command loads what it needs
    from pyflame_ebpf.commands.written_outputs import View  # noqa: PLC0415
    from pyflame_ebpf.outputs.options import OutputOptions  # noqa: PLC0415
    from pyflame_ebpf.profile.selection import Selection  # noqa: PLC0415

    request = Request(
        everything=everything,
        pids=tuple(pid or ()),
        command=tuple(command or ()),
        duration=duration,
        frequency=frequency,
        output=output,
        view=View(
            Selection(begin or 0.0, end, tuple(process or ()), python),
            OutputOptions(lines, grouping(group_by, threads), kernel, native, python_only, all_frames),
        ),
        arguments=tuple(sys.argv[1:]),
        source=source,
        formats=tuple(output_formats or ()),
    )
    _exit_after(lambda: record(request))


@app.command("top", help=_paragraphs(TOP_HELP))
def _top(
    pid: Annotated[
        list[int] | None,
        typer.Option("--pid", "-p", min=1, metavar="PID", help="Show this process; repeatable. [default: all]"),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            "-d",
            metavar="TIME",
            parser=parse_duration,
            help="Seconds, or 90s, 5m, 1h. [default: until q]",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=1, metavar="SECONDS", help="Time between two looks.")
    ] = 1,
    frequency: Annotated[
        int, typer.Option("--frequency", "-F", min=1, metavar="HZ", help="Samples a second and CPU.")
    ] = 99,
) -> None:
    from pyflame_ebpf.commands.top import Request, top  # noqa: PLC0415 - each command loads what it needs

    _exit_after(lambda: top(Request(tuple(pid or ()), duration, interval, frequency, tuple(sys.argv[1:]))))


@app.command("report", help=_paragraphs(REPORT_HELP))
def _report(  # noqa: PLR0913, PLR0917 - one for each option
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory of a recording, its profile.json.gz, or folded stacks.")
    ],
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="folded, svg, html, csv, table, pprof, speedscope, firefox, jsonl, profile.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="New file for the format (standard output without, or -); with no --format a new directory.",
        ),
    ] = None,
    begin: From = None,
    end: To = None,
    process: Processes = None,
    python: Python = False,
    lines: Lines = False,
    group_by: GroupBy = "process",
    threads: Threads = False,
    kernel: Annotated[bool, typer.Option(help="Show kernel frames, or leave them out.")] = True,
    native: Annotated[bool, typer.Option(help="Show frames of C functions, or leave them out.")] = True,
    python_only: PythonOnly = False,
    all_frames: AllFrames = False,
) -> None:
    from pyflame_ebpf.commands.report import Request, report  # noqa: PLC0415 - each command loads what it needs
    from pyflame_ebpf.commands.written_outputs import View  # noqa: PLC0415
    from pyflame_ebpf.outputs.options import OutputOptions  # noqa: PLC0415
    from pyflame_ebpf.profile.selection import Selection  # noqa: PLC0415

    view = View(
        Selection(begin or 0.0, end, tuple(process or ()), python),
        OutputOptions(lines, grouping(group_by, threads), kernel, native, python_only, all_frames),
    )
    _exit_after(lambda: report(Request(source, output_format, output, view)))


@app.command("diff", help=_paragraphs(DIFF_HELP))
def _diff(  # noqa: PLR0913, PLR0917 - one for each option
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The earlier recording.")],
    after: Annotated[
        Path | None, typer.Argument(metavar="AFTER", help="The later one; none: two ranges of BEFORE.")
    ] = None,
    begin: Annotated[
        list[float] | None,
        typer.Option(
            "--from",
            metavar="TIME",
            parser=parse_moment,
            help="Compare from this time of both recordings on: 90, 1:30; given twice, of each.",
        ),
    ] = None,
    end: Annotated[
        list[float] | None,
        typer.Option("--to", metavar="TIME", parser=parse_moment, help="Compare up to this time; likewise."),
    ] = None,
    process: Processes = None,
    python: Python = False,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="WHAT", help="Show this table: function, line, process; repeatable. [default: all]"
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, metavar="N", help="Show so many rows of each table.")
    ] = None,
    sort: Annotated[str, typer.Option("--sort", metavar="WHAT", help="Sort by change of: self, total.")] = "self",
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Compare shares of all samples in place of cores.")
    ] = False,
    core_hour_price: Annotated[
        float | None,
        typer.Option("--core-hour-price", min=0, metavar="PRICE", help="Tell what the change saves a month (730 h)."),
    ] = None,
    duration: Annotated[
        list[float] | None,
        typer.Option(
            "--duration",
            metavar="TIME",
            parser=parse_duration,
            help="How long folded stacks were sampled; given twice, of each.",
        ),
    ] = None,
    frequency: Annotated[
        list[int] | None,
        typer.Option("--frequency", min=1, metavar="HZ", help="How often folded stacks were sampled; likewise."),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="table, svg, html, json, csv, folded (two counts)."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="New file for the format (standard output without, or -); with no --format a new directory for all.",
        ),
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Make the boxes of the graph as wide as they were before.")
    ] = False,
    lines: Lines = False,
    group_by: GroupBy = "command",
    kernel: Annotated[bool, typer.Option(help="Show kernel frames, or leave them out.")] = True,
    native: Annotated[bool, typer.Option(help="Show frames of C functions, or leave them out.")] = True,
    python_only: PythonOnly = False,
    all_frames: AllFrames = False,
) -> None:
    from pyflame_ebpf.commands.diff import Request, diff  # noqa: PLC0415 - each command loads what it needs
    from pyflame_ebpf.outputs.comparison.options import ComparisonOptions  # noqa: PLC0415
    from pyflame_ebpf.outputs.options import OutputOptions  # noqa: PLC0415
    from pyflame_ebpf.profile.selection import Selection  # noqa: PLC0415

    if sort not in ("self", "total"):
        raise typer.BadParameter(f"{sort!r} is neither self nor total", param_hint="--sort")
    options = ComparisonOptions(
        OutputOptions(lines, grouping(group_by, threads=False), kernel, native, python_only, all_frames),
        tuple(by or ()),
        top,
        core_hour_price,
        reverse,
    )
    request = Request(
        before,
        after,
        tuple(begin or ()),
        tuple(end or ()),
        Selection(processes=tuple(process or ()), python=python),
        tuple(duration or ()),
        tuple(frequency or ()),
        output_format,
        output,
        normalize,
        sort == "total",
        options,
    )
    _exit_after(lambda: diff(request))


@app.command("doctor", help=_paragraphs(DOCTOR_HELP))
def _doctor(
    pid: Annotated[int | None, typer.Argument(min=1, metavar="PID", help="Process to look at.")] = None,
) -> None:
    from pyflame_ebpf.commands.doctor import doctor  # noqa: PLC0415 - each command loads what it needs

    _exit_after(lambda: doctor(pid))


def _exit_after(command: Callable[[], int | None]) -> NoReturn:
    raise typer.Exit(exit_code_of(command))


def exit_code_of(command: Callable[[], int | None]) -> int:
    """Runs a command and says how it failed if it did; no exception but SystemExit leaves it."""
    try:
        code = command() or 0
        _flush()
    except PyflameError as error:
        _say_error(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:
        _discard_standard_output()
        return _READER_GONE
    except Interrupted as error:
        _say_error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _say_error("interrupted", "")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches the user
        return _defect(error)
    return code


def _say_error(message: str, hint: str) -> None:
    from pyflame_ebpf.commands.terminal import say_error  # noqa: PLC0415 - only when there is an error

    say_error(message, hint)


def _defect(error: Exception) -> int:
    from pyflame_ebpf.commands.defects import EXIT_CODE, save_defect_report  # noqa: PLC0415 - only when there is one

    path = save_defect_report(error)
    hint = f"What is known of it is in {path}; please send it to the project." if path else ""
    _say_error(f"a defect in pyflame-ebpf: {type(error).__name__}: {error}", hint)
    return EXIT_CODE


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_standard_output() -> None:
    """Let the interpreter's own flush at exit find a writable file."""
    with contextlib.suppress(OSError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def run(arguments: Sequence[str]) -> int:
    """Runs a command line; gives the exit code."""

    def parse_and_run() -> int:
        try:
            app(args=list(arguments), prog_name="pyflame-ebpf")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        return 0

    return exit_code_of(parse_and_run)
