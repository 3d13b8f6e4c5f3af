"""The arguments of ``record``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pyflame_ebpf.commands.arguments.options import (
    AllFrames,
    Force,
    Frequency,
    From,
    GroupBy,
    Lines,
    Processes,
    Python,
    PythonOnly,
    Threads,
    To,
    Wait,
    grouping,
    parse_duration,
)
from pyflame_ebpf.commands.exits import exit_after

Command = Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND", help="Program to start and record.")]
Everything = Annotated[bool, typer.Option("--all", "-a", help="Record every process on the host.")]
Pid = Annotated[
    list[int] | None, typer.Option("--pid", "-p", min=1, metavar="PID", help="Record this process; repeatable.")
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration", "-d", metavar="TIME", parser=parse_duration, help="Seconds, or 90s, 5m, 1h. [default: Ctrl-C]"
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="New directory for the outputs; - writes folded stacks, and nothing else, to standard output. "
        "[default: pyflame-TIME]",
    ),
]
OutputFormats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="Write this, too (with --output -: alone): pprof, speedscope, firefox, jsonl, table. Repeatable.",
    ),
]
Source = Annotated[
    bool, typer.Option("--source", help="Take the source text of the sampled functions along in the profile.")
]
Kernel = Annotated[bool, typer.Option(help="Record kernel frames, or leave them out.")]
Native = Annotated[bool, typer.Option(help="Record frames of C functions, or leave them out.")]


def record_arguments(  # noqa: PLR0913, PLR0917 - one for each option
    command: Command = None,
    everything: Everything = False,
    pid: Pid = None,
    duration: Duration = None,
    frequency: Frequency = 99,
    force: Force = False,
    output: Output = None,
    output_formats: OutputFormats = None,
    source: Source = False,
    wait: Wait = False,
    begin: From = None,
    end: To = None,
    process: Processes = None,
    python: Python = False,
    lines: Lines = False,
    group_by: GroupBy = "process",
    threads: Threads = False,
    kernel: Kernel = True,
    native: Native = True,
    python_only: PythonOnly = False,
    all_frames: AllFrames = False,
) -> None:
    """Make the request of a recording, and record."""
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
        force=force,
        output=output,
        view=View(
            selection=Selection(begin=begin or 0.0, end=end, processes=tuple(process or ()), python=python),
            options=OutputOptions(
                lines=lines,
                group_by=grouping(group_by, threads),
                kernel=kernel,
                native=native,
                python_only=python_only,
                all_frames=all_frames,
            ),
        ),
        arguments=tuple(sys.argv[1:]),
        source=source,
        wait=wait,
        formats=tuple(output_formats or ()),
    )
    exit_after(lambda: record(request))
