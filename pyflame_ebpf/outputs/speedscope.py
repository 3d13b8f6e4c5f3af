"""The profile in speedscope's format: one ``sampled`` profile for each process, or for each group of ``group_by``.

Samples are ordered by the second in which they were counted, so the view in time order shows, to the second, when a
process did what.  Schema: https://www.speedscope.app/file-format-schema.json.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, TextIO

from pyflame_ebpf.outputs.labelled_stacks import NOTHING_SHOWN, group_labels, shown_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import NAMELESS, frame_label, visible
from pyflame_ebpf.profile.model import Frame, FrameKind, Profile, SampleUnit

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"

_Counts = Counter[tuple[int, int]]  # samples by second and stack


def write_speedscope(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile; weights are seconds, or samples where the frequency is unknown."""
    frames = _Frames(profile, options)
    groups = sorted(_grouped(profile, options).items(), key=lambda item: (-item[1].total(), item[0]))
    document = {
        "$schema": _SCHEMA,
        "name": visible(profile.recording.host) or "CPU profile",
        "exporter": f"pyflame-ebpf {visible(profile.recording.profiler_version)}".rstrip(),
        "activeProfileIndex": 0,
    }
    stream.write(f'{_json(document)[:-1]},"profiles":[')
    for at, (name, counts) in enumerate(groups):
        stream.write("," if at else "")
        _write_sampled(stream, name, counts, frames, profile.unit)
    stream.write(f'],"shared":{{"frames":{_json(frames.table())}}}}}')


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _grouped(profile: Profile, options: OutputOptions) -> dict[str, _Counts]:
    names: dict[tuple[int, int], str] = {}
    groups: dict[str, _Counts] = {}
    for key, count in profile.samples.items():
        owner = key.process, key.thread
        if owner not in names:
            labels = group_labels(profile, options, *owner)
            names[owner] = " / ".join(label.text for label in labels) or "everything"
        groups.setdefault(names[owner], Counter())[key.second, key.stack] += count
    return groups


def _write_sampled(stream: TextIO, name: str, counts: _Counts, frames: _Frames, unit: SampleUnit) -> None:
    ordered = sorted(counts.items())
    weights = [unit.seconds(count) if unit.per_second else count for _, count in ordered]
    facts = {
        "type": "sampled",
        "name": name,
        "unit": "seconds" if unit.per_second else "none",
        "startValue": 0,
        "endValue": sum(weights),
        "weights": weights,
    }
    stream.write(f'{_json(facts)[:-1]},"samples":[')
    for at, ((_, stack), _) in enumerate(ordered):
        stream.write("," if at else "")
        stream.write(frames.text_of(stack))
    stream.write("]}")


class _Frames:
    """The table of frames, and stacks as indices into it, outermost first."""

    def __init__(self, profile: Profile, options: OutputOptions) -> None:
        self._frames = profile.frames
        self._lines = options.lines
        self._shown = shown_stacks(profile, options)
        self._rows: Numbering[tuple[str, str, int]] = Numbering()
        self._known: list[int | None] = [None] * len(profile.frames)
        self._last: tuple[int, str] = -1, ""

    def text_of(self, stack: int) -> str:
        """The shown frames of a stack, as a JSON list of rows of the table."""
        if self._last[0] != stack:
            known = self._known
            indices = [self._row(number) if (row := known[number]) is None else row for number in self._shown(stack)]
            self._last = stack, _json(indices or [self._rows[NOTHING_SHOWN.text, "", 0]])
        return self._last[1]

    def _row(self, number: int) -> int:
        self._known[number] = row = self._rows[self._named(self._frames[number])]
        return row

    def _named(self, frame: Frame) -> tuple[str, str, int]:
        """Name, file and line of a frame."""
        if frame.kind is FrameKind.PYTHON:
            line = frame.line if self._lines else frame.first_line
            return visible(frame.name) or NAMELESS, visible(frame.file), line
        return frame_label(frame, {}, lines=False).text, visible(frame.file), 0

    def table(self) -> list[dict[str, Any]]:
        """The table as the format has it."""
        return [
            {"name": name} | ({"file": file} if file else {}) | ({"line": line} if line > 0 else {})
            for name, file, line in self._rows
        ]
