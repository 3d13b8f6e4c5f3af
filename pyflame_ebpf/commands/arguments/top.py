"""The arguments of ``top``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pyflame_ebpf.commands.arguments.options import Force, Frequency, Wait, parse_duration
from pyflame_ebpf.commands.exits import exit_after

Pid = Annotated[
    list[int] | None,
    typer.Option("--pid", "-p", min=1, metavar="PID", help="Show this process; repeatable. [default: all]"),
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration",
        "-d",
        metavar="TIME",
        parser=parse_duration,
        help="Seconds, or 90s, 5m, 1h. [default: until q]",
    ),
]
Interval = Annotated[float, typer.Option("--interval", "-i", min=1, metavar="SECONDS", help="Time between two looks.")]


def top_arguments(  # noqa: PLR0913, PLR0917 - one for each option
    pid: Pid = None,
    duration: Duration = None,
    interval: Interval = 1,
    frequency: Frequency = 99,
    force: Force = False,
    wait: Wait = False,
) -> None:
    """Make the request of a live view, and show it."""
    from pyflame_ebpf.commands.top import Request, top  # noqa: PLC0415 - each command loads what it needs

    request = Request(
        pids=tuple(pid or ()),
        duration=duration,
        interval=interval,
        frequency=frequency,
        force=force,
        wait=wait,
        arguments=tuple(sys.argv[1:]),
    )
    exit_after(lambda: top(request))
