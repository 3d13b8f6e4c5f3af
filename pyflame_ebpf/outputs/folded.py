"""Folded stacks: one line per stack, ``process;frame;frame count``, as flame-graph tools read them."""

from __future__ import annotations

import re
from collections import Counter
from typing import TextIO

from pyflame_ebpf.outputs.labelled_stacks import labelled_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.model import Profile

# A number after a blank at the end of the stack would be read as a first count, as of a differential profile.
_MISREAD_BLANK = re.compile(r"^ | (?=\d+(?:\.\d*)?$)| $")


def write_folded(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile's stacks, root first, equal stacks merged, lines sorted."""
    named = labelled_stacks(profile, options)
    names = [folded_name(label.text) for label in named.labels]
    # Sorted as the lines would be, which are not kept: together they may take far more than the names.
    place = {text: at for at, text in enumerate(sorted({*names, *(f"{name};" for name in names)}))}
    inner, last = [place[f"{name};"] for name in names], [place[name] for name in names]
    lines: Counter[tuple[int, ...]] = Counter()
    for stack, count in named.samples.items():
        lines[(*[inner[index] for index in stack[:-1]], last[stack[-1]])] += count
    texts = list(place)
    stream.writelines(f"{''.join([texts[at] for at in line])} {lines[line]}\n" for line in sorted(lines))


def folded_name(label: str) -> str:
    r"""The label with ``;`` spelled ``\x3b``, and blanks that a reader would misread spelled ``\x20``."""
    return _MISREAD_BLANK.sub(r"\\x20", label).replace(";", r"\x3b")
