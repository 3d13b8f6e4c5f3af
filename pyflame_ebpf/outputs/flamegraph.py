"""The flame graph: one self-contained SVG file.

The file holds two forms of the graph.  The widest boxes are plain rectangles, so that image viewers and sites that run
no scripts show a readable picture.  All boxes are a compact list in JSON.  The script replaces the picture as soon as
it runs, and draws the part of the list that is in view, at the width of the window.
"""

from __future__ import annotations

import json
import textwrap
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from typing import Any, TextIO
from xml.sax.saxutils import escape

from pyflame_ebpf.outputs.flame_tree import Boxes, flame_boxes
from pyflame_ebpf.outputs.labelled_stacks import LabelledStacks, labelled_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.outputs.processes import closing_line
from pyflame_ebpf.profile.labels import Label, LabelKind, time_name, visible
from pyflame_ebpf.profile.model import Profile

_WIDTH = 1200  # of the picture, in pixels; a window's own width is the script's business
NARROWEST = 0.1 / _WIDTH  # share of all samples
BOXES_MAX = 150_000
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
class Words:
    """All texts outside of the boxes.  ``legend`` has CSS class, name and share of the innermost frames, by kind."""

    title: str
    facts: str
    outcome: str
    legend: list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A flame graph to draw.

    ``style`` has the CSS class of each label; ``box_style``, if not empty, that of each box.  ``details`` gives the
    text that a viewer without scripts shows for a box, by the number of the box.  ``more`` is added to the script's
    data, and ``css`` to the common style.
    """

    boxes: Boxes
    words: Words
    frequency: int
    style: list[str]
    details: Callable[[int], str]
    box_style: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    css: str = ""

    def style_of(self, box: int) -> str:
        """The CSS class of a box."""
        return self.box_style[box] if self.box_style else self.style[self.boxes.label[box]]


def write_flamegraph(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile as an interactive SVG, process at the root."""
    stacks = labelled_stacks(profile, options)
    boxes = flame_boxes(stacks, NARROWEST, BOXES_MAX)
    words = Words(_title(profile), _facts(profile), _outcome(profile, boxes), _legend(stacks))
    frequency = profile.unit.per_second
    style = [_box_class(label) for label in boxes.labels]
    graph = Graph(
        boxes=boxes,
        words=words,
        frequency=frequency,
        style=style,
        details=lambda box: _details(boxes, box, frequency),
    )
    draw(graph, stream)


def draw(graph: Graph, stream: TextIO) -> None:
    """Write a graph as an interactive SVG."""
    picture = list(_picture(graph))
    rows = 1 + max(box.depth for box in picture)
    height = _HEAD + rows * _ROW + _FOOT + (len(_wrapped(graph.words.outcome)) - 1) * _LINE
    stream.write(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'class="page" id="pyflame">\n<title>{_xml(graph.words.title)}</title>\n'
        f"<style>{resource('flamegraph.css')}{graph.css}</style>\n"
    )
    stream.write('<g id="picture">\n')
    stream.writelines(_picture_words(graph.words, height))
    stream.writelines(_drawn(box, rows) for box in picture)
    stream.write("</g>\n")
    document = json.dumps(_document(graph), separators=(",", ":"))
    stream.write(f'<script type="application/json" id="pyflame-data">{_inert(document)}</script>\n')
    stream.write(f"<script><![CDATA[\n{resource('flamegraph.js')}]]></script>\n</svg>\n")


def resource(name: str) -> str:
    """The text of a file in the package of the outputs."""
    return files("pyflame_ebpf.outputs").joinpath(name).read_text(encoding="utf-8")


def _inert(document: str) -> str:
    """The JSON with each character that XML would interpret as an escape; such characters occur only in texts."""
    return document.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _xml(text: str) -> str:
    return escape(text, {'"': "&quot;"})


# Words


def _title(profile: Profile) -> str:
    host = visible(profile.recording.host)
    return f"CPU flame graph of {host}" if host else "CPU flame graph"


def _facts(profile: Profile) -> str:
    recording = profile.recording
    unit = profile.unit
    rate = "" if unit.is_time else f" at {recording.frequency:,} Hz"
    processes = len({key.process for key in profile.samples})
    facts = [
        f"{profile.total:,} samples of {processes:,} process{'' if processes == 1 else 'es'}",
        f"{unit.seconds(profile.total):,.1f} s of {time_name(unit.clock)}" if unit.per_second else "",
        f"{recording.duration:,.1f} s{rate} on {recording.cpus:,} CPUs" if recording.cpus else "",
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
    """The CSS class that colours a box: a hue for its kind, a shade of it for its file or module."""
    if label.kind not in _SHADED:
        return label.kind.value
    distinct = label.module or label.text
    return f"{label.kind.value}{zlib.crc32(distinct.encode('utf-8', 'surrogatepass')) % _SHADES}"


# The data for the script


def _document(graph: Graph) -> dict[str, Any]:
    """All boxes.  ``rise`` is the number of levels from a box up to the place right under the box before it."""
    boxes, words = graph.boxes, graph.words
    used = sorted(set(boxes.label))
    place = {label: index for index, label in enumerate(used)}
    kinds = sorted({graph.style_of(box) for box in range(len(boxes))})
    index = {kind: at for at, kind in enumerate(kinds)}
    before = [-1, *boxes.depth]
    by_box = {"boxClass": [index[style] for style in graph.box_style]} if graph.box_style else {}
    return {
        "title": words.title,
        "facts": words.facts,
        "outcome": words.outcome,
        "legend": words.legend,
        "frequency": graph.frequency,
        "classes": kinds,
        "labels": [boxes.labels[label].text for label in used],
        "labelClass": [] if by_box else [index[graph.style[label]] for label in used],
        "rise": [above + 1 - depth for above, depth in zip(before, boxes.depth, strict=False)],
        "label": [place[label] for label in boxes.label],
        "samples": boxes.samples,
        **by_box,
        **graph.more,
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


def _picture(graph: Graph) -> Iterator[_PictureBox]:
    """The widest boxes."""
    boxes = graph.boxes
    scale = (_WIDTH - 2 * _MARGIN) / (boxes.total or 1)
    least = sorted(boxes.samples, reverse=True)[min(len(boxes), _PICTURE_BOXES_MAX) - 1]
    for box, (depth, label, samples, start) in enumerate(
        zip(boxes.depth, boxes.label, boxes.samples, boxes.start, strict=True)
    ):
        width = samples * scale
        if depth and (samples < least or width < _PICTURE_NARROWEST):
            continue
        text = boxes.labels[label].text
        yield _PictureBox(depth, _MARGIN + start * scale, width, text, graph.details(box), graph.style_of(box))


def _details(boxes: Boxes, box: int, frequency: int) -> str:
    samples = boxes.samples[box]
    share = 100 * samples / (boxes.total or 1)
    details = f"{boxes.labels[boxes.label[box]].text}: {samples:,} samples, {share:.2f} % of all"
    return f"{details}, {samples / frequency:,.2f} s of CPU" if frequency else details


def _drawn(box: _PictureBox, rows: int) -> str:
    top = _HEAD + (rows - 1 - box.depth) * _ROW
    text = _fitted(box.text, box.width - 8)
    words = f'<text x="{box.left + 4:.1f}" y="{top + 13}" class="words">{_xml(text)}</text>' if text else ""
    return (
        f'<g><title>{_xml(box.details)}</title><rect x="{box.left:.1f}" y="{top}" '
        f'width="{max(box.width - 1, 0.6):.1f}" height="{_ROW - 1}" rx="2" class="box {box.style}"/>{words}</g>\n'
    )


def _fitted(text: str, width: float) -> str:
    """The beginning of a text that fits so many pixels, with an ellipsis if that is not all; "" if too little fits."""
    room = int(width / _CHARACTER)
    taken = 0
    for index, char in enumerate(text):
        taken += _columns(char)
        if taken > room:
            return f"{text[: max(index - 1, 0)]}…" if index > 2 else ""  # noqa: PLR2004 - one letter says nothing
    return text


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _picture_words(words: Words, height: int) -> Iterator[str]:
    yield f'<text x="{_MARGIN}" y="32" class="title">{_xml(words.title)}</text>\n'
    yield f'<text x="{_MARGIN}" y="52" class="muted">{_xml(words.facts)}</text>\n'
    left: float = _MARGIN
    for style, name, share in words.legend:
        yield f'<rect x="{left:.0f}" y="65" width="12" height="12" rx="3" class="box {style}"/>'
        yield f'<text x="{left + 18:.0f}" y="75" class="muted">{_xml(f"{name} {share}".rstrip())}</text>\n'
        left += 18 + (len(name) + len(share) + 1) * _CHARACTER + 12
    for above, line in enumerate(reversed(_wrapped(words.outcome))):
        yield f'<text x="{_MARGIN}" y="{height - 16 - above * _LINE}" class="muted">{_xml(line)}</text>\n'


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, int((_WIDTH - 2 * _MARGIN) / _CHARACTER))
