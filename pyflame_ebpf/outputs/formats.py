"""The output formats of a profile, in one table: the name and the file of each, and its writer.

A writer is imported at its first use, so that a recording does not wait for modules that only its end needs.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import import_module
from typing import BinaryIO, Protocol

from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile.model import Profile


class Writer(Protocol):
    """Writes a profile to a binary stream, which it leaves open."""

    def __call__(self, profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
        """Write it."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """One kind of output.

    ``name`` is what ``--format`` calls it, and ``file_name`` its file in the output directory.  ``recorded`` says
    whether a recording writes it unasked.
    """

    name: str
    file_name: str
    write: Writer
    recorded: bool = True


def _bytes(module: str, function: str) -> Writer:
    """The writer to a binary stream in a module of this package."""

    def write(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
        getattr(import_module(f"pyflame_ebpf.outputs.{module}"), function)(profile, stream, options)

    return write


def _utf8(module: str, function: str) -> Writer:
    """The writer to a text stream in a module of this package; the text is written as UTF-8."""
    write_text = _bytes(module, function)

    def write(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        try:
            write_text(profile, text, options)  # type: ignore[arg-type]
        finally:
            text.detach()  # flushes, and leaves the stream open for its owner to close

    return write


def _write_profile(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
    from pyflame_ebpf.profile.file import save_profile  # noqa: PLC0415 - as all writers

    del options  # a saved profile is always whole
    save_profile(profile, stream)


OUTPUT_FORMATS: dict[str, OutputFormat] = {
    each.name: each
    for each in (
        OutputFormat("profile", "profile.json.gz", _write_profile),
        OutputFormat("folded", "stacks.folded", _utf8("folded", "write_folded")),
        OutputFormat("svg", "flamegraph.svg", _utf8("flamegraph", "write_flamegraph")),
        OutputFormat("html", "report.html", _utf8("html_report", "write_html_report")),
        OutputFormat("csv", "processes.csv", _utf8("processes", "write_processes_csv")),
        OutputFormat("table", "processes.txt", _utf8("terminal_table", "write_process_table"), recorded=False),
        OutputFormat("pprof", "profile.pb.gz", _bytes("pprof", "write_pprof"), recorded=False),
        OutputFormat("speedscope", "speedscope.json", _utf8("speedscope", "write_speedscope"), recorded=False),
        OutputFormat("firefox", "firefox-profile.json.gz", _bytes("firefox", "write_firefox"), recorded=False),
        OutputFormat("jsonl", "stacks.jsonl", _utf8("jsonl", "write_jsonl"), recorded=False),
    )
}

ALIASES = {"flamegraph": "svg", "processes": "csv"}
