"""The table of processes on the terminal."""

from __future__ import annotations

from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.outputs.processes import HotLine, ProcessRow, closing_line, process_rows, summed_row
from pyflame_ebpf.profile.labels import short_command, visible
from pyflame_ebpf.profile.model import Profile

_PLAIN_WIDTH = 120  # of a table that goes to a file, where no terminal tells its width
_ROWS_ON_TERMINAL = 30
_TENTHS_BELOW = 99.95


def write_process_table(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the whole table and the closing line as plain text."""
    del options  # nothing in the table depends on them
    print_process_table(profile, Console(file=stream, width=_PLAIN_WIDTH, color_system=None), rows=None)


def print_process_table(profile: Profile, console: Console, rows: int | None = _ROWS_ON_TERMINAL) -> None:
    """Print the table with its ``rows`` busiest processes (None: all), then the closing line."""
    console.print(process_table(profile, rows))
    console.print(Text(closing_line(profile)))


def process_table(profile: Profile, rows: int | None = None) -> Table:
    """The processes, busiest first; processes beyond ``rows`` are one row; totals are the last row."""
    every = process_rows(profile)
    shown = every if rows is None or len(every) <= rows + 1 else every[:rows]
    rest = every[len(shown) :]
    table = _empty_table()
    for row in shown:
        table.add_row(*_cells(row))
    if rest:
        table.add_row(*_cells(summed_row(rest, f"{len(rest):,} more")), style="dim")
    table.add_section()
    table.add_row(*_cells(summed_row(every)), style="bold")
    return table


def _empty_table() -> Table:
    """The columns.  The terminal library narrows columns of text, which may wrap, and leaves figures whole."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("PID", justify="right", no_wrap=True, style="dim")
    table.add_column("Command", min_width=8, max_width=32)
    table.add_column("Python", min_width=6, max_width=15)
    for name in ("Samples", "CPU%", "User", "Kern", "GIL", "Sched"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(Text("Hottest Python line", no_wrap=True, overflow="ellipsis"), min_width=8)
    return table


def _cells(row: ProcessRow) -> list[Text]:
    return [
        Text(str(row.pid or "")),
        _one_line(short_command(row.command or row.name)),
        _one_line(row.interpreter.removeprefix("CPython ")),
        Text(f"{row.samples:,}"),
        Text(_share(row.cpu_percent)),
        Text(_share(row.user_percent)),
        Text(_share(row.kernel_percent)),
        Text("" if row.gil_percent is None else _share(row.gil_percent)),
        Text("" if row.scheduler_cpu is None else f"{row.scheduler_cpu:,.2f}"),
        _one_line(_place(row.hot_line) if row.hot_line else ""),
    ]


def _one_line(name: str) -> Text:
    return Text(visible(name), no_wrap=True, overflow="ellipsis")


def _share(percent: float) -> str:
    return f"{percent:.1f}" if percent < _TENTHS_BELOW else f"{percent:,.0f}"


def _place(hot: HotLine) -> str:
    return f"{hot.short_file}:{hot.line} {hot.function}"
