"""The stacks of two recordings in one graph: a differential flame graph, and folded stacks with two counts.

A box is as wide as its CPU after the change.  What is gone would have no width, so the graph is also drawn by the CPU
before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from pyflame_ebpf.compare.alignment import side_by_side
from pyflame_ebpf.compare.comparison import STANDARD_ERRORS, Change, Comparison, Measure
from pyflame_ebpf.compare.tallies import Tally
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions
from pyflame_ebpf.outputs.comparison.words import doubts, headline, shown_change
from pyflame_ebpf.outputs.flame_tree import Boxes, flame_boxes
from pyflame_ebpf.outputs.flamegraph import BOXES_MAX, NARROWEST, Graph, Words, draw, resource
from pyflame_ebpf.outputs.folded import FoldedLines, folded_name
from pyflame_ebpf.outputs.labelled_stacks import TalliedStacks, tallied_stacks
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import Label

_STEPS = (STANDARD_ERRORS, 6.0, 12.0, 24.0)  # standard errors from which on a change has the next deeper shade
_LEGEND = [
    ("less3", "much less CPU", ""),
    ("less1", "less", ""),
    ("same", "no change beyond noise", ""),
    ("more1", "more", ""),
    ("more3", "much more", ""),
]


@dataclass(frozen=True, slots=True)
class BothStacks:
    """The stacks of both recordings, indices into the same labels."""

    before: TalliedStacks
    after: TalliedStacks


def both_stacks(comparison: Comparison, options: OutputOptions) -> BothStacks:
    """Name every stack of both recordings; file names are as short as they can be among the files of both."""
    before, after = side_by_side(comparison.before, comparison.after)
    named = [tallied_stacks(side, options) for side in (before, after)]
    labels = Numbering(label for stacks in named for label in stacks.labels)
    return BothStacks(*(_by_common_labels(stacks, labels) for stacks in named))


def _by_common_labels(stacks: TalliedStacks, labels: Numbering[Label]) -> TalliedStacks:
    place = [labels[label] for label in stacks.labels]
    return TalliedStacks(
        labels.distinct, {tuple([place[index] for index in stack]): tally for stack, tally in stacks.tallies.items()}
    )


# Folded


def write_differential_folded(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
    """Write ``stack before after`` lines, as difffolded.pl does and flamegraph.pl reads.

    Counts are as sampled.  If the recordings differ in length or rate, or shares are compared, counts before are scaled
    to the exposure of the later recording.
    """
    both = both_stacks(comparison, options.output)
    lines = FoldedLines(folded_name(label.text) for label in both.after.labels)
    scale = _scale_to_after(comparison)
    found: dict[tuple[int, ...], list[int]] = {}
    for column, stacks in enumerate((both.before, both.after)):
        for stack, count in stacks.stacks.samples.items():
            counts = found.setdefault(lines.key(stack), [0, 0])
            counts[column] += count
    for key in sorted(found):
        before, after = found[key]
        if round(before * scale) or after:
            stream.write(f"{lines.text(key)} {round(before * scale)} {after}\n")


def _scale_to_after(comparison: Comparison) -> float:
    before, after = comparison.sides
    if not before.span.samples or not after.span.samples:
        return 1.0
    return after.exposure / before.exposure


# The graph


def write_differential_flamegraph(comparison: Comparison, stream: TextIO, options: ComparisonOptions) -> None:
    """Write both recordings as one interactive SVG; ``reversed_graph`` gives boxes their widths before."""
    both = both_stacks(comparison, options.output)
    widths = both.before if options.reversed_graph else both.after
    boxes = flame_boxes(widths.stacks, NARROWEST, BOXES_MAX)
    change_of = comparison.change_of()
    pairs = zip(tallies_at(boxes, both.before), tallies_at(boxes, both.after), strict=True)
    draw(_graph(comparison, boxes, [change_of(before, after) for before, after in pairs], options), stream)


def tallies_at(boxes: Boxes, stacks: TalliedStacks) -> list[Tally]:
    """The tally of the stacks that pass through each box; stacks and boxes have the same labels."""
    callees: dict[tuple[int, int], int] = {}
    callers: list[int] = []
    path: list[int] = []
    for box, (depth, label) in enumerate(zip(boxes.depth, boxes.label, strict=True)):
        del path[depth:]
        callers.append(path[-1] if path else box)
        callees[callers[box], label] = box
        path.append(box)
    found = [Tally() for _ in range(len(boxes))]
    for stack, tally in stacks.tallies.items():
        found[_innermost(callees, stack)].merge(tally)
    for box in range(len(boxes) - 1, 0, -1):
        found[callers[box]].merge(found[box])
    return found


def _innermost(callees: Mapping[tuple[int, int], int], stack: tuple[int, ...]) -> int:
    """The box farthest from the root on the path of a stack."""
    at = 0
    for label in stack:
        callee = callees.get((at, label))
        if callee is None:
            break
        at = callee
    return at


def _graph(comparison: Comparison, boxes: Boxes, changes: list[Change], options: ComparisonOptions) -> Graph:
    return Graph(
        boxes=boxes,
        words=_words(comparison, options),
        frequency=0,
        style=[],
        details=lambda box: f"{boxes.labels[boxes.label[box]].text}: {_in_words(changes[box], comparison.measure)}",
        box_style=[shade(change) for change in changes],
        more={"compared": _for_the_script(comparison, changes, options)},
        css=resource("comparison/differential.css"),
    )


def shade(change: Change) -> str:
    """The CSS class of a change, by its distance from noise."""
    steps = sum(abs(change.score) >= step for step in _STEPS)
    if not steps:
        return "same"
    return f"{'more' if change.change > 0 else 'less'}{steps - 1}"


def _words(comparison: Comparison, options: ComparisonOptions) -> Words:
    widths = "before" if options.reversed_graph else "after"
    unit = "shares of all samples" if comparison.measure is Measure.SHARE else "cores used"
    title = f"CPU flame graph of the change, by {unit}"
    facts = " · ".join([headline(comparison).rstrip("."), f"widths: {widths}"])
    gone = "after" if options.reversed_graph else "before"
    outcome = [f"What was sampled {gone} only has no width here.", *(f"Mind: {doubt}." for doubt in doubts(comparison))]
    return Words(title, facts, " ".join(outcome), _LEGEND)


def _in_words(change: Change, measure: Measure) -> str:
    before, after, by, error = shown_change(change, measure)
    unit = "cores" if measure is Measure.CORES else "% of all samples"
    return f"{before} → {after} {unit}, {by} {error}"


def _for_the_script(comparison: Comparison, changes: list[Change], options: ComparisonOptions) -> dict[str, Any]:
    """Figures by box: the samples on the other side, and the error of the change in ``unit``.

    ``scale`` turns samples before and after into ``unit``.
    """
    shares = comparison.measure is Measure.SHARE
    unit, digits = (100, 2) if shares else (1, 3)
    return {
        "others": [each.samples_after if options.reversed_graph else each.samples_before for each in changes],
        "widths": "before" if options.reversed_graph else "after",
        "scale": [unit / side.exposure for side in comparison.sides],
        "errors": [round(unit * each.error, digits) for each in changes],
        "unit": "% of all" if shares else "cores",
        "digits": digits,
    }
