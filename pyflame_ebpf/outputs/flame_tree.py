"""Labelled stacks as a tree of boxes: the content of a flame graph, whatever draws it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyflame_ebpf.outputs.labelled_stacks import LabelledStacks
from pyflame_ebpf.profile.labels import Label, LabelKind

ALL = Label("all", LabelKind.ALL)


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of a flame graph as columns; a box stands before its callees, the busiest callee first.

    ``label`` indexes ``labels``.  ``start`` and ``samples`` place a box on the horizontal axis, in samples.  ``depth``
    is 0 for the one box at the root.  ``total`` counts all samples.  A box of fewer than ``fewest`` samples is left out
    with everything that it calls; ``left_out`` counts such boxes whose caller is shown.
    """

    labels: list[Label]
    total: int
    fewest: int
    left_out: int
    depth: list[int]
    label: list[int]
    samples: list[int]
    start: list[int]

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.depth)


_Counted = list[tuple[tuple[int, ...], int]]  # stacks with their samples


def flame_boxes(stacks: LabelledStacks, narrowest: float, boxes_max: int) -> Boxes:
    """Merge the stacks from the root; leave out boxes of less than the share ``narrowest`` of all samples.

    If more than ``boxes_max`` boxes would be left, the narrowest of them are left out as well.
    """
    fewest = max(1, math.ceil(narrowest * stacks.samples.total()))
    boxes = _laid_out(stacks, fewest)
    if len(boxes) <= boxes_max:
        return boxes
    return _laid_out(stacks, sorted(boxes.samples, reverse=True)[boxes_max] + 1)


def _laid_out(stacks: LabelledStacks, fewest: int) -> Boxes:
    """Place all boxes of at least ``fewest`` samples.  The callees of a box that is left out are not looked at."""
    total = stacks.samples.total()
    columns: list[tuple[int, int, int, int]] = []
    left_out = 0
    pending = [(0, len(stacks.labels), total, 0, list(stacks.samples.items()))]  # the next box is the last
    while pending:
        depth, label, samples, start, through = pending.pop()
        columns.append((depth, label, samples, start))
        callees = _callees(through, depth)
        kept = [callee for callee in callees if callee[1] >= fewest]
        left_out += len(callees) - len(kept)
        kept.sort(key=lambda callee: (-callee[1], stacks.labels[callee[0]].text))
        placed = []
        for callee, count, onwards in kept:
            placed.append((depth + 1, callee, count, start, onwards))
            start += count
        pending.extend(reversed(placed))
    return Boxes(
        [*stacks.labels, ALL], total, fewest, left_out, *(list(column) for column in zip(*columns, strict=True))
    )


def _callees(through: _Counted, depth: int) -> list[tuple[int, int, _Counted]]:
    """The stacks that go on beyond this depth, by their next label: the label, its samples, its stacks."""
    onwards: dict[int, _Counted] = {}
    for counted in through:
        stack = counted[0]
        if len(stack) > depth:
            onwards.setdefault(stack[depth], []).append(counted)
    return [(label, sum(count for _, count in stacks), stacks) for label, stacks in onwards.items()]
