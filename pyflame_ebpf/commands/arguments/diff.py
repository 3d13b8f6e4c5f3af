"""The arguments of ``diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyflame_ebpf.commands.arguments.options import (
    AllFrames,
    GroupBy,
    Lines,
    Processes,
    Python,
    PythonOnly,
    ShowKernel,
    ShowNative,
    grouping,
    parse_duration,
    parse_moment,
)
from pyflame_ebpf.commands.exits import exit_after

Before = Annotated[Path, typer.Argument(metavar="BEFORE", help="The earlier recording.")]
After = Annotated[Path | None, typer.Argument(metavar="AFTER", help="The later one; none: two ranges of BEFORE.")]
Begins = Annotated[
    list[float] | None,
    typer.Option(
        "--from",
        metavar="TIME",
        parser=parse_moment,
        help="Compare from this time of both recordings on: 90, 1:30; given twice, of each.",
    ),
]
Ends = Annotated[
    list[float] | None,
    typer.Option("--to", metavar="TIME", parser=parse_moment, help="Compare up to this time; likewise."),
]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="WHAT", help="Show this table: function, line, process; repeatable. [default: all]"),
]
Top = Annotated[int | None, typer.Option("--top", min=1, metavar="N", help="Show so many rows of each table.")]
Sort = Annotated[str, typer.Option("--sort", metavar="WHAT", help="Sort by change of: self, total.")]
Normalize = Annotated[bool, typer.Option("--normalize", help="Compare shares of all samples in place of cores.")]
CoreHourPrice = Annotated[
    float | None,
    typer.Option("--core-hour-price", min=0, metavar="PRICE", help="Tell what the change saves a month (730 h)."),
]
Duration = Annotated[
    list[float] | None,
    typer.Option(
        "--duration",
        metavar="TIME",
        parser=parse_duration,
        help="How long folded stacks were sampled; given twice, of each.",
    ),
]
Frequency = Annotated[
    list[int] | None,
    typer.Option("--frequency", min=1, metavar="HZ", help="How often folded stacks were sampled; likewise."),
]
OutputFormat = Annotated[
    str | None,
    typer.Option("--format", "-f", metavar="FORMAT", help="table, svg, html, json, csv, folded (two counts)."),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="New file for the format (standard output without, or -); with no --format a new directory for all.",
    ),
]
Reverse = Annotated[bool, typer.Option("--reverse", help="Make the boxes of the graph as wide as they were before.")]


def diff_arguments(  # noqa: PLR0913, PLR0917 - one for each option
    before: Before,
    after: After = None,
    begin: Begins = None,
    end: Ends = None,
    process: Processes = None,
    python: Python = False,
    by: By = None,
    top: Top = None,
    sort: Sort = "self",
    normalize: Normalize = False,
    core_hour_price: CoreHourPrice = None,
    duration: Duration = None,
    frequency: Frequency = None,
    output_format: OutputFormat = None,
    output: Output = None,
    reverse: Reverse = False,
    lines: Lines = False,
    group_by: GroupBy = "command",
    kernel: ShowKernel = True,
    native: ShowNative = True,
    python_only: PythonOnly = False,
    all_frames: AllFrames = False,
) -> None:
    """Make the request of a comparison, and write it.  Raises typer.BadParameter for --sort."""
    from pyflame_ebpf.commands.diff import Request, diff  # noqa: PLC0415 - each command loads what it needs
    from pyflame_ebpf.outputs.comparison.options import ComparisonOptions  # noqa: PLC0415
    from pyflame_ebpf.outputs.options import OutputOptions  # noqa: PLC0415
    from pyflame_ebpf.profile.selection import Selection  # noqa: PLC0415

    if sort not in ("self", "total"):
        raise typer.BadParameter(f"{sort!r} is neither self nor total", param_hint="--sort")
    request = Request(
        before=before,
        after=after,
        begin=tuple(begin or ()),
        end=tuple(end or ()),
        selection=Selection(processes=tuple(process or ()), python=python),
        durations=tuple(duration or ()),
        frequencies=tuple(frequency or ()),
        format=output_format,
        output=output,
        normalize=normalize,
        by_total=sort == "total",
        options=ComparisonOptions(
            output=OutputOptions(
                lines=lines,
                group_by=grouping(group_by, threads=False),
                kernel=kernel,
                native=native,
                python_only=python_only,
                all_frames=all_frames,
            ),
            by=tuple(by or ()),
            top=top,
            core_hour_price=core_hour_price,
            reversed_graph=reverse,
        ),
    )
    exit_after(lambda: diff(request))
