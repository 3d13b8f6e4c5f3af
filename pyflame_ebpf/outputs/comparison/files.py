"""A comparison for programs: everything as JSON, the rows of all tables as CSV."""

from __future__ import annotations

import csv
import json
from typing import Any, TextIO

from pyflame_ebpf.compare.comparison import MONTH_HOURS, Change, Changes, Comparison, Row
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions
from pyflame_ebpf.outputs.comparison.table import chosen_tables
from pyflame_ebpf.outputs.comparison.words import doubts, headline, monthly_saving
from pyflame_ebpf.outputs.processes import spreadsheet_text
from pyflame_ebpf.profile.model import Profile

FORMAT = "pyflame-ebpf comparison"
VERSION = 1


def write_comparison_json(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
    """Write one JSON object of ASCII characters.  Figures are in ``measure``: cores, or shares of 1."""
    json.dump(_document(comparison, options), stream, indent=1, allow_nan=False)
    stream.write("\n")


def _document(comparison: Comparison, options: ComparisonOptions) -> dict[str, Any]:
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "measure": comparison.measure.value,
        "summary": headline(comparison),
        "doubts": list(doubts(comparison)),
        "before": _recording(comparison.before),
        "after": _recording(comparison.after),
        "moved_files": comparison.moved,
    }
    if comparison.total is not None:
        document["total"] = {
            **_figures(comparison.total),
            "relative_change": comparison.total.relative,
            "relative_error_95": comparison.total.relative_error,
            "beyond_noise": comparison.total.is_beyond_noise,
        }
        if options.core_hour_price is not None:
            document["saving"] = _saving(comparison.total, options.core_hour_price)
    for name, changes in chosen_tables(comparison, options):
        rows = changes.rows if options.top is None else changes.rows[: options.top]
        document[_PLURALS[name]] = [_row(row, changes) for row in rows]
    return document


_PLURALS = {"function": "functions", "line": "lines", "process": "processes"}


def _recording(profile: Profile) -> dict[str, Any]:
    recording = profile.recording
    return {
        "samples": profile.total,
        "lost": recording.lost,
        "lost_of": recording.part_of or profile.total,  # samples kept of the whole recording
        "started": recording.started,
        "duration": recording.duration,
        "frequency": recording.frequency,
        "cpus": recording.cpus,
        "host": recording.host,
    }


def _figures(change: Change) -> dict[str, Any]:
    return {
        "before": change.before,
        "after": change.after,
        "change": change.change,
        "error_95": change.error,
        "samples_before": change.samples_before,
        "samples_after": change.samples_after,
    }


def _saving(total: Change, core_hour_price: float) -> dict[str, float]:
    monthly, error = monthly_saving(total, core_hour_price)
    return {"core_hour_price": core_hour_price, "hours": MONTH_HOURS, "monthly": monthly, "error_95": error}


def _row(row: Row, changes: Changes) -> dict[str, Any]:
    subject = row.subject
    named: dict[str, Any] = {"kind": subject.kind, "name": subject.name}
    if not subject.has_no_callers:
        named["file"] = subject.file
    if subject.line:
        named["line"] = subject.line
    return {
        **named,
        "self": {**_figures(row.own), "beyond_noise": changes.is_beyond_noise(row.own)},
        "total": {**_figures(row.total), "beyond_noise": changes.is_beyond_noise(row.total)},
    }


_COLUMNS = ("by", "kind", "name", "file", "line", "measure")
_FIGURES = ("before", "after", "change", "error_95", "beyond_noise")


def write_comparison_csv(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
    """Write a line for each row of each table, after a line for the whole if that is known in cores."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"{part}_{figure}" for part in ("self", "total") for figure in _FIGURES)])
    if comparison.total is not None:
        cells = _cells(comparison.total, comparison.total.is_beyond_noise)
        writer.writerow(["all", "", "", "", "", "cores", *cells, *cells])
    for name, changes in chosen_tables(comparison, options):
        for row in changes.rows if options.top is None else changes.rows[: options.top]:
            subject = row.subject
            texts = [spreadsheet_text(text) for text in (subject.name, subject.file)]
            cells = [cell for each in (row.own, row.total) for cell in _cells(each, changes.is_beyond_noise(each))]
            writer.writerow([name, subject.kind, *texts, subject.line or "", comparison.measure.value, *cells])


def _cells(change: Change, beyond_noise: bool) -> list[str]:
    figures = (change.before, change.after, change.change, change.error)
    return [*(f"{figure:.6f}" for figure in figures), "yes" if beyond_noise else "no"]
