"""The profile in speedscope's format: one ``sampled`` profile for each process, or whatever it is grouped by.

Samples stand in the order of the seconds in which they were counted, so that the view in time order shows when a
process did what, to the second.  Schema: https://www.speedscope.app/file-format-schema.json.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TextIO

from pyflame_ebpf.outputs.labelled_stacks import NOTHING_SHOWN, group_labels, python_files, shown_frames
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.labels import NAMELESS, frame_label, short_files, visible
from pyflame_ebpf.profile.model import Frame, FrameKind, Profile

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"

_Counts = Counter[tuple[int, int]]  # samples by second and stack


def write_speedscope(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile; weights are seconds of CPU, or samples where the frequency is unknown."""
    frames = _Frames(profile, options)
    groups = sorted(_grouped(profile, options).items(), key=lambda item: (-item[1].total(), item[0]))
    document = {
        "$schema": _SCHEMA,
        "name": visible(profile.recording.host) or "CPU profile",
        "exporter": f"pyflame-ebpf {visible(profile.recording.profiler_version)}".rstrip(),
        "activeProfileIndex": 0,
        "profiles": [_sampled(name, counts, frames, profile.recording.frequency) for name, counts in groups],
        "shared": {"frames": frames.table},
    }
    json.dump(document, stream, separators=(",", ":"))


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


def _sampled(name: str, counts: _Counts, frames: _Frames, frequency: int) -> dict[str, Any]:
    ordered = sorted(counts.items())
    weights = [count / frequency if frequency else count for _, count in ordered]
    return {
        "type": "sampled",
        "name": name,
        "unit": "seconds" if frequency else "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": [frames.of(stack) for (_, stack), _ in ordered],
        "weights": weights,
    }


@dataclass(slots=True)
class _Frames:
    """The table of frames, and stacks as indices into it, outermost first."""

    profile: Profile
    options: OutputOptions
    table: list[dict[str, Any]] = field(default_factory=list)
    _files: dict[str, str] = field(default_factory=dict)
    _known: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _stacks: dict[int, list[int]] = field(default_factory=dict)
    _frames: dict[int, int] = field(default_factory=dict)  # by identity, since naming a frame is slow

    def of(self, stack: int) -> list[int]:
        """The frames of a stack that are shown."""
        if stack not in self._stacks:
            is_shown = shown_frames(self.options)
            indices = [self._index(frame) for frame in self.profile.stacks[stack] if is_shown(frame)]
            self._stacks[stack] = indices or [self._add(NOTHING_SHOWN.text, "", 0)]
        return self._stacks[stack]

    def _index(self, frame: Frame) -> int:
        known = self._frames.get(id(frame))
        if known is None:
            known = self._frames[id(frame)] = self._named(frame)
        return known

    def _named(self, frame: Frame) -> int:
        if frame.kind is FrameKind.PYTHON:
            line = frame.line if self.options.lines else frame.first_line
            return self._add(visible(frame.name) or NAMELESS, visible(frame.file), line)
        if not self._files:
            self._files = short_files(python_files(self.profile)) or {"": ""}
        return self._add(frame_label(frame, self._files, lines=False).text, visible(frame.file), 0)

    def _add(self, name: str, file: str, line: int) -> int:
        index = self._known.setdefault((name, file, line), len(self._known))
        if index == len(self.table):
            entry: dict[str, Any] = {"name": name}
            if file:
                entry["file"] = file
            if line > 0:
                entry["line"] = line
            self.table.append(entry)
        return index
