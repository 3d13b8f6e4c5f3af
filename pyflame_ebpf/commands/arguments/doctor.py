"""The arguments of ``doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from pyflame_ebpf.commands.exits import exit_after


def doctor_arguments(
    pid: Annotated[int | None, typer.Argument(min=1, metavar="PID", help="Process to look at.")] = None,
) -> None:
    """Look at the host, and at a process if one is given."""
    from pyflame_ebpf.commands.doctor import doctor  # noqa: PLC0415 - each command loads what it needs

    exit_after(lambda: doctor(pid))
