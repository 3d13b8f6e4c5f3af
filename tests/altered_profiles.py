"""Saved profiles as a stranger may alter them, and every output that has to cope with what is read of them."""

from __future__ import annotations

import copy
import gzip
import io
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from pyflame_ebpf.compare.comparison import Measure, compare
from pyflame_ebpf.outputs.comparison.formats import COMPARISON_FORMATS
from pyflame_ebpf.outputs.comparison.options import ComparisonOptions
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.options import GROUPS, OutputOptions
from pyflame_ebpf.profile.file_writer import document_of
from pyflame_ebpf.profile.model import Profile, Recording
from pyflame_ebpf.profile.selection import Selection

MISSING = object()
VALUES: tuple[Any, ...] = (
    MISSING,
    None,
    True,
    -1,
    0,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
    10**23,
    10**40,
    1e308,
    -1e308,
    5e-324,
    0.5,
    1e400,
    float("nan"),
    "",
    "a" * 5000,
    "\ud800\x00\x1b[31m;\u202e",
    [],
    {},
    [[[[]]]],
    {"a": {"a": {}}},
)
OPTIONS = (
    OutputOptions(),
    OutputOptions(lines=True, group_by=GROUPS, all_frames=True),
    OutputOptions(group_by=(), python_only=True),
)
SELECTIONS = (
    Selection(),
    Selection(begin=1.0, end=3.0),
    Selection(end=1e9),
    Selection(processes=("gunicorn", "1201", "a.*b")),
    Selection(python=True),
)


class Nowhere(io.RawIOBase):
    """A stream that counts what is written, and keeps nothing."""

    size = 0

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def write(self, data: Any) -> int:
        """Count the bytes."""
        count = memoryview(data).nbytes
        self.size += count
        return count


def document(profile: Profile) -> dict[str, Any]:
    """The JSON object of a profile's file, with a unit, so that every field is there."""
    made = document_of(replace(profile, recording=replace(profile.recording, in_nanoseconds=True)))
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def packed(content: Any) -> bytes:
    """The object as a file."""
    return gzip.compress(json.dumps(content).encode("ascii"), compresslevel=1)


def fields(content: Any) -> Iterator[tuple[str | int, ...]]:
    """The path of every member; of a list, of its first and last entry."""
    if isinstance(content, dict):
        steps: list[Any] = list(content)
    elif isinstance(content, list):
        steps = sorted({0, len(content) - 1}) if content else []
    else:
        return
    for step in steps:
        yield (step,)
        yield from ((step, *deeper) for deeper in fields(content[step]))


def altered(content: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy with another value in one place; MISSING removes it."""
    changed = copy.deepcopy(content)
    place: Any = changed
    for step in path[:-1]:
        place = place[step]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def damaged_files(content: dict[str, Any], seed: int, number: int) -> Iterator[bytes]:
    """Files with flipped bits, cut short, or with a part twice, before or after compression."""
    chosen = random.Random(seed)
    text, whole = json.dumps(content).encode("ascii"), packed(content)
    for _ in range(number):
        data = bytearray(chosen.choice((text, whole)))
        is_text = data[:1] == b"{"
        at = chosen.randrange(len(data))
        how = chosen.randrange(4)
        if how == 0:
            data[at] ^= 1 << chosen.randrange(8)
        elif how == 1:
            del data[at:]
        elif how == 2:
            data[at:at] = data[at : at + chosen.randrange(1, 400)]
        else:
            data[at] = chosen.choice(b'0123456789-e.,:[]{}"\\')
        yield gzip.compress(bytes(data), compresslevel=1) if is_text else bytes(data)


def write_every_output(profile: Profile) -> int:
    """Write the profile in every format, whole and in parts, and compare the parts.  Returns the bytes."""
    stream = Nowhere()
    buffered: BinaryIO = io.BufferedWriter(stream)
    for form, options in itertools.product(OUTPUT_FORMATS.values(), OPTIONS):
        form.write(profile, buffered, options)
    parts = [selection.of(profile) for selection in SELECTIONS]
    for part, form in itertools.product(parts[1:], OUTPUT_FORMATS.values()):
        form.write(part, buffered, OPTIONS[0])
    for other, measure in ((profile, Measure.CORES), (parts[1], Measure.CORES), (profile, Measure.SHARE)):
        comparison = compare(other, profile, measure)
        for each in COMPARISON_FORMATS.values():
            each.write(comparison, buffered, ComparisonOptions())
    buffered.flush()
    return stream.size


def content_of_one_process(*, depth: int, stacks: int, seconds: int) -> dict[str, Any]:
    """A file of few bytes: stacks that share all frames but the innermost, each sampled once in each second."""
    made = document(Profile(Recording(1.0, float(seconds), 99, 1)))
    rows = stacks * seconds
    columns = ("process", "thread", "kernel_mode", "gil", "outcome", "native")
    return {
        **made,
        "texts": ["name", "/srv/app.py", ""],
        "processes": {
            "pid": [1],
            "name": [0],
            "command": [0],
            "interpreter": [2],
            "interpreter_file": [2],
            "scheduler_cpu": [None],
        },
        "threads": {"tid": [1], "name": [0]},
        "frames": dict.fromkeys(("kind", "name", "plumbing"), [0] * depth)
        | {"file": [1] * depth, "first_line": list(range(depth)), "line": list(range(depth))},
        "nodes": {
            "caller": [*range(-1, depth - 1), *[depth - 2] * (stacks - 1)],
            "frame": [*range(depth), *(index % depth for index in range(stacks - 1))],
        },
        "stacks": list(range(depth - 1, depth - 1 + stacks)),
        "samples": {column: [0] * rows for column in columns}
        | {
            "second": [second for second in range(seconds) for _ in range(stacks)],
            "stack": list(range(stacks)) * seconds,
            "count": [1] * rows,
        },
    }
