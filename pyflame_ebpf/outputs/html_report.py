"""The report: one self-contained HTML file of the whole recording, to be explored by second, process and line.

The page is built from ``report_page/`` (scripts/build_report_page.sh), and joined here with the data.  Its policy
forbids every request, and every script but its own, which is known by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import TextIO

from pyflame_ebpf.compare.alignment import side_by_side
from pyflame_ebpf.compare.comparison import Comparison, Measure
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions
from pyflame_ebpf.outputs.comparison.words import doubts, headline, saving
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.outputs.processes import closing_line
from pyflame_ebpf.outputs.report_data import packed_comparison, packed_report
from pyflame_ebpf.profile.labels import visible
from pyflame_ebpf.profile.model import Profile

_NEEDS_SCRIPTS = "This report needs a browser that runs scripts; the SVG and CSV files of the same recording do not."
_LINE = 1 << 16  # characters of the packed data on one line: editors and mail gateways choke on longer ones


def write_html_report(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the whole profile as one page; ``options`` are its first view."""
    unopened = f"{escape(_title(profile))}. {escape(closing_line(profile))}. {_NEEDS_SCRIPTS}"
    _write_page(stream, _title(profile), unopened, packed_report(profile, options, profile.sources))


def write_html_comparison(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
    """Write both recordings as one page that shows the change."""
    before, after = side_by_side(comparison.before, comparison.after)
    words = [headline(comparison), *doubts(comparison)]
    if options.core_hour_price is not None:
        words.insert(1, saving(comparison, options.core_hour_price))
    thresholds = {
        "function": comparison.functions.threshold,
        "line": comparison.lines.threshold,
        "process": comparison.processes.threshold,
    }
    first = {
        "side": 0 if options.reversed_graph else 1,
        "shares": comparison.measure is Measure.SHARE,
        "callees": comparison.functions.by_total,
    }
    compared = {"words": words, "thresholds": thresholds, "first": first}
    packed = packed_comparison(before, after, options.output, compared)
    _write_page(stream, "CPU before and after", f"{escape(' '.join(words))} {_NEEDS_SCRIPTS}", packed)


def _write_page(stream: TextIO, title: str, unopened: str, data: bytes) -> None:
    """Write the page.  ``unopened`` is the HTML that stands there until the script runs, or where none may run."""
    script, style = _resource("page.js"), _resource("page.css")
    stream.write(_head(title, script, style))
    stream.write(f'<body>\n<div id="page"><p class="unopened">{unopened}</p></div>\n')
    stream.write('<script type="application/octet-stream" id="report-data">\n')
    packed = base64.b64encode(data).decode("ascii")
    stream.writelines(f"{packed[at : at + _LINE]}\n" for at in range(0, len(packed), _LINE))
    stream.write(f"</script>\n<script>{script}</script>\n</body>\n</html>\n")


def _head(title: str, script: str, style: str) -> str:
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
    )


def _hash(content: str) -> str:
    """The name of an inline script or style in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _resource(name: str) -> str:
    return files("pyflame_ebpf.outputs").joinpath("report_page", name).read_text(encoding="utf-8")


def _title(profile: Profile) -> str:
    host = visible(profile.recording.host)
    return f"CPU of {host}" if host else "CPU report"
