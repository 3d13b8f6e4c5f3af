"""Folded stacks: one line per stack, ``process;frame;frame count``, as flame-graph tools read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TextIO

from pyflame_ebpf.outputs.labelled_stacks import labelled_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.model import Profile

# A number after a blank at the end of the stack would be read as a first count, as of a differential profile.
_MISREAD_BLANK = re.compile(r"^ | (?=\d+(?:\.\d*)?$)| $")


def write_folded(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile's stacks, root first, equal stacks merged, lines sorted."""
    named = labelled_stacks(profile, options)
    lines = FoldedLines(folded_name(label.text) for label in named.labels)
    counts: Counter[tuple[int, ...]] = Counter()
    for stack, count in named.samples.items():
        counts[lines.key(stack)] += count
    stream.writelines(f"{lines.text(key)} {counts[key]}\n" for key in sorted(counts))


class FoldedLines:
    """Lines of folded stacks as keys, equal and in the order of the lines, which may take far more memory."""

    def __init__(self, names: Iterable[str]) -> None:
        last = list(names)
        inner = [f"{name};" for name in last]
        self._texts = sorted({*last, *inner})
        place = {text: at for at, text in enumerate(self._texts)}
        self._last, self._inner = [place[name] for name in last], [place[name] for name in inner]

    def key(self, stack: Sequence[int]) -> tuple[int, ...]:
        """The key of a stack, which is a list of numbers of names."""
        inner = self._inner
        return (*[inner[index] for index in stack[:-1]], self._last[stack[-1]])

    def text(self, key: Sequence[int]) -> str:
        """The line with this key, without its count."""
        return "".join([self._texts[at] for at in key])


def folded_name(label: str) -> str:
    r"""The label with ``;`` spelled ``\x3b``, and blanks that a reader would misread spelled ``\x20``."""
    return _MISREAD_BLANK.sub(r"\\x20", label).replace(";", r"\x3b")
