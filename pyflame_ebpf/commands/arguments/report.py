"""The arguments of ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyflame_ebpf.commands.arguments.options import (
    AllFrames,
    From,
    GroupBy,
    Lines,
    Processes,
    Python,
    PythonOnly,
    ShowKernel,
    ShowNative,
    Threads,
    To,
    grouping,
)
from pyflame_ebpf.commands.exits import exit_after

Source = Annotated[
    Path, typer.Argument(metavar="DIR", help="Directory of a recording, its profile.json.gz, or folded stacks.")
]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="folded, svg, html, csv, table, pprof, speedscope, firefox, jsonl, profile.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="New file for the format (standard output without, or -); with no --format a new directory.",
    ),
]


def report_arguments(  # noqa: PLR0913, PLR0917 - one for each option
    source: Source,
    output_format: OutputFormat = None,
    output: Output = None,
    begin: From = None,
    end: To = None,
    process: Processes = None,
    python: Python = False,
    lines: Lines = False,
    group_by: GroupBy = "process",
    threads: Threads = False,
    kernel: ShowKernel = True,
    native: ShowNative = True,
    python_only: PythonOnly = False,
    all_frames: AllFrames = False,
) -> None:
    """Make the request of a report, and write it."""
    from pyflame_ebpf.commands.report import Request, report  # noqa: PLC0415 - each command loads what it needs
    from pyflame_ebpf.commands.written_outputs import View  # noqa: PLC0415
    from pyflame_ebpf.outputs.options import OutputOptions  # noqa: PLC0415
    from pyflame_ebpf.profile.selection import Selection  # noqa: PLC0415

    view = View(
        selection=Selection(begin=begin or 0.0, end=end, processes=tuple(process or ()), python=python),
        options=OutputOptions(
            lines=lines,
            group_by=grouping(group_by, threads),
            kernel=kernel,
            native=native,
            python_only=python_only,
            all_frames=all_frames,
        ),
    )
    request = Request(source=source, format=output_format, output=output, view=view)
    exit_after(lambda: report(request))
