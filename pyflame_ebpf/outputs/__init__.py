"""The outputs: one writer per format, each a function from a Profile to a stream, and the one table of them all."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TextIO

from pyflame_ebpf.outputs.flamegraph import write_flamegraph
from pyflame_ebpf.outputs.folded import write_folded
from pyflame_ebpf.outputs.html_report import write_html_report
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.outputs.process_table import print_process_table, write_process_table
from pyflame_ebpf.outputs.processes import closing_line, write_processes_csv
from pyflame_ebpf.profile import Profile
from pyflame_ebpf.profile_file import save_profile

__all__ = [
    "DEFAULT_OPTIONS",
    "OUTPUT_FORMATS",
    "OutputFormat",
    "OutputOptions",
    "closing_line",
    "print_process_table",
]

Writer = Callable[[Profile, BinaryIO, OutputOptions], None]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """One kind of output.

    ``name`` is what ``--format`` calls it, ``file_name`` its file in the output directory, ``write`` takes a binary
    stream, ``recorded`` says whether a recording writes it unasked.
    """

    name: str
    file_name: str
    description: str
    write: Writer
    recorded: bool = True


def _as_utf8(write: Callable[[Profile, TextIO, OutputOptions], None]) -> Writer:
    def write_bytes(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        try:
            write(profile, text, options)
        finally:
            text.detach()  # flushes, and leaves the stream open for its owner to close

    return write_bytes


def _write_profile(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
    del options  # a saved profile is always whole
    save_profile(profile, stream)


OUTPUT_FORMATS: dict[str, OutputFormat] = {
    each.name: each
    for each in (
        OutputFormat("profile", "profile.json.gz", "the recording itself, for later reports", _write_profile),
        OutputFormat("folded", "stacks.folded", "folded stacks for other flame-graph tools", _as_utf8(write_folded)),
        OutputFormat("flamegraph", "flamegraph.svg", "interactive flame graph", _as_utf8(write_flamegraph)),
        OutputFormat("html", "report.html", "everything, to explore in a browser", _as_utf8(write_html_report)),
        OutputFormat("processes", "processes.csv", "CPU use of every process", _as_utf8(write_processes_csv)),
        OutputFormat(
            "table", "processes.txt", "the same as a table of plain text", _as_utf8(write_process_table), recorded=False
        ),
    )
}
