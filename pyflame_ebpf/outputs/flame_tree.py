"""Labelled stacks as a tree of boxes: what a flame graph draws, whatever it is drawn with."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyflame_ebpf.labels import Label, LabelKind
from pyflame_ebpf.outputs.labelled_stacks import LabelledStacks

ALL = Label("all", LabelKind.ALL)


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of a flame graph as columns, each box before its callees, the busiest callee first.

    ``label`` indexes ``labels``; ``start`` and ``samples`` place a box on the horizontal axis, in samples; ``depth``
    is 0 for the one box at the root.  ``total`` counts all samples; boxes of fewer than ``fewest`` are left out.
    """

    labels: list[Label]
    total: int
    fewest: int
    left_out: int
    depth: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.depth)


@dataclass(slots=True)
class _Node:
    label: int
    samples: int = 0
    callees: dict[int, _Node] = field(default_factory=dict)


def flame_boxes(stacks: LabelledStacks, narrowest: float, boxes_max: int) -> Boxes:
    """Merge the stacks from the root; leave out boxes of less than the share ``narrowest`` of all samples.

    Where more than ``boxes_max`` would be left, the narrowest of those go too.
    """
    nodes = _merged(stacks)
    fewest = _fewest([node.samples for node in nodes], narrowest, boxes_max)
    root = nodes[0]
    kept = sum(node.samples >= fewest for node in nodes[1:])
    boxes = Boxes([*stacks.labels, ALL], root.samples, fewest, len(nodes) - 1 - kept)
    _lay_out(root, boxes)
    return boxes


def _merged(stacks: LabelledStacks) -> list[_Node]:
    """All nodes of the tree, the root first."""
    root = _Node(len(stacks.labels))
    nodes = [root]
    for stack, count in stacks.samples.items():
        node = root
        node.samples += count
        for label in stack:
            callee = node.callees.get(label)
            if callee is None:
                callee = node.callees[label] = _Node(label)
                nodes.append(callee)
            callee.samples += count
            node = callee
    return nodes


def _fewest(samples: list[int], narrowest: float, boxes_max: int) -> int:
    """The least number of samples of a box that is kept; a caller has no fewer than its callees."""
    fewest = max(1.0, narrowest * samples[0])
    left = sorted((count for count in samples if count >= fewest), reverse=True)
    if len(left) > boxes_max:
        return left[boxes_max] + 1
    return int(-(-fewest // 1))


def _lay_out(root: _Node, boxes: Boxes) -> None:
    pending = [(root, 0, 0)]  # node, depth, start; the next box is the last
    while pending:
        node, depth, start = pending.pop()
        boxes.depth.append(depth)
        boxes.label.append(node.label)
        boxes.samples.append(node.samples)
        boxes.start.append(start)
        callees = sorted(
            (callee for callee in node.callees.values() if callee.samples >= boxes.fewest),
            key=lambda callee: (-callee.samples, boxes.labels[callee.label].text),
        )
        starts = [start]
        for callee in callees:
            starts.append(starts[-1] + callee.samples)
        pending.extend((callee, depth + 1, at) for callee, at in reversed(list(zip(callees, starts, strict=False))))
