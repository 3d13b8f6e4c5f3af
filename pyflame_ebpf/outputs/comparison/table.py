"""A comparison on the terminal: the change in words, then functions, lines and processes by change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyflame_ebpf.compare.comparison import Changes, Comparison, Measure, Row
from pyflame_ebpf.compare.tallies import PROCESS, Subject
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions
from pyflame_ebpf.outputs.comparison.words import basis, headline, saving, shown_change
from pyflame_ebpf.outputs.labelled_stacks import python_files
from pyflame_ebpf.profile.labels import frame_label, short_files, visible
from pyflame_ebpf.profile.model import Frame, FrameKind

_PLAIN_WIDTH = 140
_ROWS = 15
_NOISE_ROWS = 5  # shown where nothing else is
_GREW, _SHRANK, _SAME = "red", "cyan", "dim"


def write_comparison_table(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
    """Write it as plain text."""
    print_comparison(comparison, Console(file=stream, width=_PLAIN_WIDTH, color_system=None), options)


def print_comparison(comparison: Comparison, console: Console, options: ComparisonOptions) -> None:
    """Print the words, and the tables that were asked for."""
    console.print(Text(headline(comparison)), style="bold", soft_wrap=True)
    if options.core_hour_price is not None:
        console.print(Text(saving(comparison, options.core_hour_price)), soft_wrap=True)
    namer = _Namer(comparison)
    for name, changes in chosen_tables(comparison, options):
        console.print(_table(name, changes, namer, comparison.measure, options))
        if left := _left_out(changes, options):
            console.print(Text(left), style=_SAME)
    for line in basis(comparison):
        console.print(Text(line), style=_SAME)


def chosen_tables(comparison: Comparison, options: ComparisonOptions) -> Iterator[tuple[str, Changes]]:
    """The tables that were asked for, by the kind of their rows."""
    tables = {"function": comparison.functions, "line": comparison.lines, "process": comparison.processes}
    for name, changes in tables.items():
        if changes.rows and (not options.by or name in options.by):
            yield name, changes


def shown_rows(changes: Changes, options: ComparisonOptions) -> Sequence[Row]:
    """The rows for a reader: changes first, then a few rows of noise, or as many rows as were asked for."""
    if options.top is not None:
        return changes.rows[: options.top]
    beyond = sum(changes.is_beyond_noise(changes.of(row)) for row in changes.rows)
    return changes.rows[: min(_ROWS, max(beyond, _NOISE_ROWS))]


class _Namer:
    """Names subjects; each file name is as short as it can be."""

    def __init__(self, comparison: Comparison) -> None:
        self._files = short_files(python_files(comparison.before) | python_files(comparison.after))

    def __call__(self, subject: Subject) -> str:
        if subject.kind == PROCESS:
            return visible(subject.name)
        frame = Frame(FrameKind(subject.kind), subject.name, subject.file, subject.line, subject.line)
        return frame_label(frame, self._files, lines=True).text


def _table(name: str, changes: Changes, namer: _Namer, measure: Measure, options: ComparisonOptions) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    unit = "cores" if measure is Measure.CORES else "% of all"
    with_callees = name != "process"
    table.add_column("", no_wrap=True)
    for heading in ("Before", "After", f"Change, {unit}", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    if with_callees:
        table.add_column("With callees", justify="right", no_wrap=True)
        table.add_column("95 %", justify="right", no_wrap=True)
    table.add_column(Text(name.capitalize(), no_wrap=True, overflow="ellipsis"), min_width=12)
    for row in shown_rows(changes, options):
        table.add_row(*_cells(row, changes, namer, measure, with_callees), style=_style(row, changes))
    return table


def _style(row: Row, changes: Changes) -> str:
    change = changes.of(row)
    if not changes.is_beyond_noise(change):
        return _SAME
    return _GREW if change.change > 0 else _SHRANK


def _cells(row: Row, changes: Changes, namer: _Namer, measure: Measure, with_callees: bool) -> Iterator[Text]:
    yield Text("" if changes.is_beyond_noise(changes.of(row)) else "~")
    yield from (Text(cell) for cell in shown_change(row.own, measure))
    if with_callees:
        yield from (Text(cell) for cell in shown_change(row.total, measure)[2:])
    yield Text(namer(row.subject), no_wrap=True, overflow="ellipsis")


def _left_out(changes: Changes, options: ComparisonOptions) -> str:
    rest = changes.rows[len(shown_rows(changes, options)) :]
    beyond = sum(changes.is_beyond_noise(changes.of(row)) for row in rest)
    return f"{len(rest):,} more, {beyond:,} of them beyond noise (--top {len(changes.rows)} shows all)" if rest else ""
