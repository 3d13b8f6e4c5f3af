"""The outputs of a comparison: one writer per format, in one table."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import BinaryIO, TextIO

from pyflame_ebpf.compare.comparison import Comparison
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions

Write = Callable[[Comparison, TextIO, ComparisonOptions], None]


@dataclass(frozen=True, slots=True)
class ComparisonFormat:
    """One kind of output: its name for ``--format``, its file in a directory, and its writer of text."""

    name: str
    file_name: str
    write_text: Write

    def write(self, comparison: Comparison, stream: BinaryIO, options: ComparisonOptions) -> None:
        """Write it as UTF-8 to a stream, which is left open."""
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        try:
            self.write_text(comparison, text, options)
        finally:
            text.detach()


def _writer(module: str, function: str) -> Write:
    def write(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
        getattr(import_module(f"pyflame_ebpf.outputs.{module}"), function)(comparison, stream, options)

    return write


_write_graph = _writer("comparison.differential", "write_differential_flamegraph")


def _write_graph_of_before(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
    _write_graph(comparison, stream, replace(options, reversed_graph=True))


COMPARISON_FORMATS: dict[str, ComparisonFormat] = {
    each.name: each
    for each in (
        ComparisonFormat("table", "changes.txt", _writer("comparison.table", "write_comparison_table")),
        ComparisonFormat("svg", "difference.svg", _write_graph),
        ComparisonFormat("html", "difference.html", _writer("html_report", "write_html_comparison")),
        ComparisonFormat("json", "changes.json", _writer("comparison.files", "write_comparison_json")),
        ComparisonFormat("csv", "changes.csv", _writer("comparison.files", "write_comparison_csv")),
        ComparisonFormat(
            "folded", "difference.folded", _writer("comparison.differential", "write_differential_folded")
        ),
    )
}

# In a directory stands the other direction, too: by what was before.
DIRECTORY_FORMATS = (
    *COMPARISON_FORMATS.values(),
    ComparisonFormat("svg", "difference-reversed.svg", _write_graph_of_before),
)
