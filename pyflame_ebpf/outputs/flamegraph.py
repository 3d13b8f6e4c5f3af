"""The flame graph: one self-contained SVG file.

The file holds two forms of the same graph.  The widest boxes are plain rectangles, so that image viewers and sites
that run no scripts show a readable picture.  All boxes are a compact list in JSON, of which the script draws the part
that is in view, at the width of the window; it replaces the picture as soon as it runs.
"""

from __future__ import annotations

import json
import textwrap
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from typing import Any, TextIO
from xml.sax.saxutils import escape

from pyflame_ebpf.labels import Label, LabelKind, visible
from pyflame_ebpf.outputs.flame_tree import Boxes, flame_boxes
from pyflame_ebpf.outputs.labelled_stacks import LabelledStacks, labelled_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.outputs.processes import closing_line
from pyflame_ebpf.profile import Profile

_WIDTH = 1200  # of the picture, in pixels; a window's own width is the script's business
_NARROWEST = 0.1 / _WIDTH  # share of all samples
_BOXES_MAX = 150_000
_PICTURE_BOXES_MAX = 2_000
_PICTURE_NARROWEST = 1.0  # pixels
_MARGIN = 16
_HEAD = 92
_FOOT = 40
_ROW = 19
_LINE = 16  # of text
_CHARACTER = 7.0  # pixels, on the wide side, of a character at 12 pixels
_SHADES = 6
_SHADED = (LabelKind.PYTHON, LabelKind.NATIVE, LabelKind.KERNEL)
_LEGEND = {
    LabelKind.PYTHON: "Python",
    LabelKind.NATIVE: "Native",
    LabelKind.KERNEL: "Kernel",
    LabelKind.MARK: "Gap in the stack",
}


@dataclass(frozen=True, slots=True)
class _Words:
    """All that the graph says outside of its boxes; ``legend`` is class, name and share of the innermost frames."""

    title: str
    facts: str
    outcome: str
    legend: list[tuple[str, str, str]]


def write_flamegraph(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile as an interactive SVG, process at the root."""
    stacks = labelled_stacks(profile, options)
    boxes = flame_boxes(stacks, _NARROWEST, _BOXES_MAX)
    words = _Words(_title(profile), _facts(profile), _outcome(profile, boxes), _legend(stacks))
    classes = [_box_class(label) for label in boxes.labels]
    picture = list(_picture(boxes, classes, profile.recording.frequency))
    rows = 1 + max(box.depth for box in picture)
    height = _HEAD + rows * _ROW + _FOOT + (len(_wrapped(words.outcome)) - 1) * _LINE
    stream.write(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'class="page" id="pyflame">\n<title>{_xml(words.title)}</title>\n'
        f"<style>{_resource('flamegraph.css')}</style>\n"
    )
    stream.write('<g id="picture">\n')
    stream.writelines(_picture_words(words, height))
    stream.writelines(_drawn(box, rows) for box in picture)
    stream.write("</g>\n")
    document = json.dumps(_document(boxes, classes, words, profile.recording.frequency), separators=(",", ":"))
    stream.write(f'<script type="application/json" id="pyflame-data">{_inert(document)}</script>\n')
    stream.write(f"<script><![CDATA[\n{_resource('flamegraph.js')}]]></script>\n</svg>\n")


def _resource(name: str) -> str:
    return files("pyflame_ebpf.outputs").joinpath(name).read_text(encoding="utf-8")


def _inert(document: str) -> str:
    """The JSON with every character that means something to XML as an escape; such are only inside its texts."""
    return document.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _xml(text: str) -> str:
    return escape(text, {'"': "&quot;"})


# Words


def _title(profile: Profile) -> str:
    host = visible(profile.recording.host)
    return f"CPU flame graph of {host}" if host else "CPU flame graph"


def _facts(profile: Profile) -> str:
    recording = profile.recording
    processes = len({key.process for key in profile.samples})
    facts = [
        f"{profile.total:,} samples of {processes:,} process{'' if processes == 1 else 'es'}",
        f"{profile.seconds_of_cpu(profile.total):,.1f} s of CPU" if recording.frequency else "",
        f"{recording.duration:,.1f} s at {recording.frequency:,} Hz on {recording.cpus:,} CPUs"
        if recording.cpus
        else "",
        _when(recording.started) if recording.started else "",
        visible(recording.kernel),
        f"pyflame-ebpf {visible(recording.profiler_version)}".rstrip(),
    ]
    return " · ".join(fact for fact in facts if fact)


def _when(started: float) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=started)
    except OverflowError:
        return ""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _outcome(profile: Profile, boxes: Boxes) -> str:
    line = f"{closing_line(profile)}."
    if not boxes.left_out:
        return line
    share = 100 * boxes.fewest / boxes.total
    return f"{line} Too thin to show: {boxes.left_out:,} boxes of fewer than {boxes.fewest:,} samples ({share:.2g} %)."


def _legend(stacks: LabelledStacks) -> list[tuple[str, str, str]]:
    innermost: Counter[LabelKind] = Counter()
    for stack, count in stacks.samples.items():
        innermost[stacks.labels[stack[-1]].kind] += count
    total = innermost.total() or 1
    shown = {label.kind for label in stacks.labels}
    return [
        (f"{kind.value}0" if kind in _SHADED else kind.value, name, f"{100 * innermost[kind] / total:.1f} %")
        for kind, name in _LEGEND.items()
        if kind in shown
    ]


def _box_class(label: Label) -> str:
    """The CSS class that colours the box: one hue for a kind, one of its shades for a file or module."""
    if label.kind not in _SHADED:
        return label.kind.value
    distinct = label.module or label.text
    return f"{label.kind.value}{zlib.crc32(distinct.encode('utf-8', 'surrogatepass')) % _SHADES}"


# The data for the script


def _document(boxes: Boxes, classes: list[str], words: _Words, frequency: int) -> dict[str, Any]:
    """All boxes; ``rise`` is how many levels a box lies above the place right under the box before it."""
    used = sorted(set(boxes.label))
    place = {label: index for index, label in enumerate(used)}
    kinds = sorted({classes[label] for label in used})
    before = [-1, *boxes.depth]
    return {
        "title": words.title,
        "facts": words.facts,
        "outcome": words.outcome,
        "legend": words.legend,
        "frequency": frequency,
        "classes": kinds,
        "labels": [boxes.labels[label].text for label in used],
        "labelClass": [kinds.index(classes[label]) for label in used],
        "rise": [above + 1 - depth for above, depth in zip(before, boxes.depth, strict=False)],
        "label": [place[label] for label in boxes.label],
        "samples": boxes.samples,
    }


# The picture without a script


@dataclass(frozen=True, slots=True)
class _PictureBox:
    """One rectangle; ``left`` and ``width`` in pixels."""

    depth: int
    left: float
    width: float
    text: str
    details: str
    style: str


def _picture(boxes: Boxes, classes: list[str], frequency: int) -> Iterator[_PictureBox]:
    """The widest boxes."""
    scale = (_WIDTH - 2 * _MARGIN) / (boxes.total or 1)
    least = sorted(boxes.samples, reverse=True)[min(len(boxes), _PICTURE_BOXES_MAX) - 1]
    for depth, label, samples, start in zip(boxes.depth, boxes.label, boxes.samples, boxes.start, strict=True):
        width = samples * scale
        if depth and (samples < least or width < _PICTURE_NARROWEST):
            continue
        text = boxes.labels[label].text
        share = 100 * samples / (boxes.total or 1)
        details = f"{text}: {samples:,} samples, {share:.2f} % of all"
        if frequency:
            details += f", {samples / frequency:,.2f} s of CPU"
        yield _PictureBox(depth, _MARGIN + start * scale, width, text, details, classes[label])


def _drawn(box: _PictureBox, rows: int) -> str:
    top = _HEAD + (rows - 1 - box.depth) * _ROW
    text = _fitted(box.text, box.width - 8)
    words = f'<text x="{box.left + 4:.1f}" y="{top + 13}" class="words">{_xml(text)}</text>' if text else ""
    return (
        f'<g><title>{_xml(box.details)}</title><rect x="{box.left:.1f}" y="{top}" '
        f'width="{max(box.width - 1, 0.6):.1f}" height="{_ROW - 1}" rx="2" class="box {box.style}"/>{words}</g>\n'
    )


def _fitted(text: str, width: float) -> str:
    """The beginning of the text that has room in so many pixels, with an ellipsis where that is not all; or nothing."""
    room = int(width / _CHARACTER)
    taken = 0
    for index, char in enumerate(text):
        taken += _columns(char)
        if taken > room:
            return f"{text[: max(index - 1, 0)]}…" if index > 2 else ""  # noqa: PLR2004 - one letter says nothing
    return text


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _picture_words(words: _Words, height: int) -> Iterator[str]:
    yield f'<text x="{_MARGIN}" y="32" class="title">{_xml(words.title)}</text>\n'
    yield f'<text x="{_MARGIN}" y="52" class="muted">{_xml(words.facts)}</text>\n'
    left: float = _MARGIN
    for style, name, share in words.legend:
        yield f'<rect x="{left:.0f}" y="65" width="12" height="12" rx="3" class="box {style}"/>'
        yield f'<text x="{left + 18:.0f}" y="75" class="muted">{_xml(name)} {share}</text>\n'
        left += 18 + (len(name) + len(share) + 1) * _CHARACTER + 12
    for above, line in enumerate(reversed(_wrapped(words.outcome))):
        yield f'<text x="{_MARGIN}" y="{height - 16 - above * _LINE}" class="muted">{_xml(line)}</text>\n'


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, int((_WIDTH - 2 * _MARGIN) / _CHARACTER))
