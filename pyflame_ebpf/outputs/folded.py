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
    lines: Counter[str] = Counter()
    for stack, count in named.samples.items():
        lines[";".join([names[index] for index in stack])] += count
    stream.writelines(f"{line} {lines[line]}\n" for line in sorted(lines))


def folded_name(label: str) -> str:
    r"""The label with ``;`` spelled ``\x3b``, and blanks that a reader would misread spelled ``\x20``."""
    return _MISREAD_BLANK.sub(r"\\x20", label).replace(";", r"\x3b")
