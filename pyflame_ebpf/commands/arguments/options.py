"""Options that several commands have: their help, and how their values are read."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from pyflame_ebpf.errors import UsageError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([smh]?)")
_CLOCK = re.compile(r"(?:(\d+):(?=\d\d:))?(\d+):([0-5]\d(?:\.\d*)?)")


def parse_duration(text: str) -> float:
    """Return the seconds in ``90``, ``1.5``, ``90s``, ``5m`` or ``1h``.  Raises typer.BadParameter."""
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise typer.BadParameter(f"{text!r} is not a duration; say seconds (60), or 90s, 5m, 1h")
    return seconds


def parse_moment(text: str) -> float:
    """Return the seconds in ``1:30``, ``1:00:00``, or any duration; 0 is a moment, too.  Raises typer.BadParameter."""
    found = _CLOCK.fullmatch(text)
    if found:
        return int(found[1] or 0) * 3600 + int(found[2]) * 60 + float(found[3])
    return 0.0 if re.fullmatch(r"0+(\.0*)?s?", text) else parse_duration(text)


def grouping(text: str, threads: bool) -> tuple[str, ...]:
    """Return the groups in ``process,thread``, outermost first; none for ``none``.  Raises UsageError."""
    from pyflame_ebpf.outputs.options import GROUPS  # noqa: PLC0415 - each command loads what it needs

    groups = tuple(part.strip() for part in text.split(",")) if text != "none" else ()
    if not set(groups) <= set(GROUPS) or len(set(groups)) < len(groups):
        raise UsageError(f"{text!r} is nothing to group by", f"Give some of {', '.join(GROUPS)}, each once; or none.")
    return (*groups, "thread") if threads and "thread" not in groups else groups


Frequency = Annotated[int, typer.Option("--frequency", "-F", min=1, metavar="HZ", help="Samples a second and CPU.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for another recording on this host to end, where it would be refused.")
]
Force = Annotated[bool, typer.Option("--force", help="Allow more than 1,000 Hz.")]
ShowKernel = Annotated[bool, typer.Option(help="Show kernel frames, or leave them out.")]
ShowNative = Annotated[bool, typer.Option(help="Show frames of C functions, or leave them out.")]
Python = Annotated[bool, typer.Option("--python", help="Show only processes that run Python.")]
From = Annotated[
    float | None,
    typer.Option(
        "--from", metavar="TIME", parser=parse_moment, help="Show samples from this time of the recording on: 90, 1:30."
    ),
]
To = Annotated[
    float | None,
    typer.Option("--to", metavar="TIME", parser=parse_moment, help="Show samples before this time of the recording."),
]
Processes = Annotated[
    list[str] | None,
    typer.Option(
        "--process",
        metavar="PATTERN",
        help="Show processes with this PID, or a name or command line that it matches; repeatable.",
    ),
]
GroupBy = Annotated[
    str,
    typer.Option(
        "--group-by",
        metavar="WHAT",
        help="What stands above the frames, in this order: host, interpreter, command, process, thread; or none.",
    ),
]
Lines = Annotated[bool, typer.Option("--lines", help="Label Python frames with the line that was executing.")]
Threads = Annotated[bool, typer.Option("--threads", help="Put a frame for the thread under the others of --group-by.")]
PythonOnly = Annotated[bool, typer.Option("--python-only", help="Show Python frames only.")]
AllFrames = Annotated[
    bool, typer.Option("--all-frames", help="Show the interpreter's own evaluation loop and call plumbing, too.")
]
