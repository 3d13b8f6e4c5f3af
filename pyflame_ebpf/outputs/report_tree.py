"""All sampled stacks of a profile as one tree, which the report's page draws.

The tree is in depth-first order, callers before callees.  A node has an entry: a process, a thread or a frame, which
are numbered in this order.  Its rise is the number of levels from the node up to the place right under the node before
it.  Level 1 holds the processes, level 2 their threads; frames begin at level 3.  A sample belongs to the node where
its stack ends.
"""

from __future__ import annotations

from itertools import chain

from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import FrameKind, Profile

Function = tuple[FrameKind, str, str, int, bool]  # a frame without its line
StackKey = tuple[int, int, int]  # process, thread, stack


class Tree:
    """The tree as columns, and the node at which each sampled (process, thread, stack) ends."""

    def __init__(self, profile: Profile) -> None:
        self.functions: Numbering[Function] = Numbering()
        self.frame_function: list[int] = []
        self.frame_line: list[int] = []
        self.rise: list[int] = []
        self.entry: list[int] = []
        self.ends: dict[StackKey, int] = {}
        self._lay_out(self._paths(profile))

    def _paths(self, profile: Profile) -> list[tuple[tuple[int, ...], StackKey]]:
        """Each sampled stack as entries from the process inwards, in the order of the tree."""
        threads_at = len(profile.processes)
        sampled = {(key.process, key.thread, key.stack) for key in profile.samples}
        stacks = self._frames(profile, sorted({stack for _, _, stack in sampled}))
        return sorted(
            ((process, threads_at + thread, *stacks[stack]), (process, thread, stack))
            for process, thread, stack in sampled
        )

    def _frames(self, profile: Profile, sampled: list[int]) -> dict[int, tuple[int, ...]]:
        """Each sampled stack's frames as entries."""
        frames_at = len(profile.processes) + len(profile.threads)
        numbers: Numbering[tuple[int, int]] = Numbering()
        used = dict.fromkeys(chain.from_iterable(profile.stacks[index] for index in sampled))
        entries = {}
        for number in used:
            each = profile.frames[number]
            function = self.functions[each.kind, each.name, each.file, each.first_line, each.plumbing]
            entries[number] = frames_at + numbers[function, max(each.line, 0)]
        stacks = {index: tuple([entries[number] for number in profile.stacks[index]]) for index in sampled}
        self.frame_function = [function for function, _ in numbers]
        self.frame_line = [line for _, line in numbers]
        return stacks

    def _lay_out(self, paths: list[tuple[tuple[int, ...], StackKey]]) -> None:
        before: tuple[int, ...] = ()
        for path, key in paths:
            shared = _common(before, path)
            if shared < len(path):
                self.rise.append(len(before) - shared)
                self.rise.extend([0] * (len(path) - shared - 1))
                self.entry.extend(path[shared:])
                before = path
            # A path that is the beginning of another sorts before it, so it always ends at the newest node.
            self.ends[key] = len(self.entry) - 1


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The number of entries with which both begin."""
    for index, (left, right) in enumerate(zip(one, other)):  # noqa: B905 - the shorter one ends it
        if left != right:
            return index
    return min(len(one), len(other))
