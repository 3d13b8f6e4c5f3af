"""The profile in pprof's format: protobuf, compressed with gzip.

Samples of all seconds are one, since the format knows no time of a sample.  Names are spelled as in the other outputs,
so that no terminal that pprof prints them on is driven by them.
"""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pyflame_ebpf.outputs.labelled_stacks import NOTHING_SHOWN, group_labels, shown_frames
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.outputs.pprof_messages import profile_class
from pyflame_ebpf.profile.labels import NAMELESS, Label, visible
from pyflame_ebpf.profile.model import Frame, FrameKind, Profile

_NANOSECONDS = 1_000_000_000
_KERNEL = "[kernel.kallsyms]"  # what perf calls the kernel's own mapping


def write_pprof(profile: Profile, stream: BinaryIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile; values are samples and nanoseconds of CPU, the latter only where the frequency is known."""
    message = _Message(profile, options).finished()
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
        packed.write(message.SerializeToString(deterministic=True))


@dataclass(slots=True)
class _Numbers:
    """Gives each distinct key the next number, from 1 on, since 0 says in this format that there is none."""

    known: dict[Any, int] = field(default_factory=dict)

    def of(self, key: Any) -> tuple[int, bool]:
        """The number of a key, and whether it is new."""
        number = self.known.setdefault(key, len(self.known) + 1)
        return number, number == len(self.known)


class _Message:
    """The message under construction."""

    def __init__(self, profile: Profile, options: OutputOptions) -> None:
        self._profile = profile
        self._options = options
        self._is_shown = shown_frames(options)
        self._message = profile_class()()
        self._texts: dict[str, int] = {"": 0}
        self._functions, self._locations, self._mappings = _Numbers(), _Numbers(), _Numbers()
        self._frames: dict[int, int] = {}  # locations by identity, since hashing a frame is slow
        self._seen: dict[tuple[Any, ...], int] = {}

    def finished(self) -> Any:
        """The whole message."""
        self._circumstances()
        samples: Counter[tuple[int, int, int]] = Counter()
        for key, count in self._profile.samples.items():
            samples[key.process, key.thread, key.stack] += count
        for (process, thread, stack), count in sorted(samples.items()):
            self._sample(process, thread, stack, count)
        self._message.string_table.extend(self._texts)
        return self._message

    def _circumstances(self) -> None:
        recording = self._profile.recording
        self._message.sample_type.add(type=self._text("samples"), unit=self._text("count"))
        if recording.frequency:
            self._message.sample_type.add(type=self._text("cpu"), unit=self._text("nanoseconds"))
            self._message.period_type.type = self._text("cpu")
            self._message.period_type.unit = self._text("nanoseconds")
            self._message.period = round(_NANOSECONDS / recording.frequency)
            self._message.default_sample_type = self._text("cpu")
        self._message.time_nanos = _bounded(recording.started * _NANOSECONDS)
        self._message.duration_nanos = _bounded(recording.duration * _NANOSECONDS)
        comments = (f"host {recording.host}", f"kernel {recording.kernel}", " ".join(recording.arguments))
        self._message.comment.extend(self._text(visible(comment)) for comment in comments)

    def _sample(self, process: int, thread: int, stack: int, count: int) -> None:
        owners = [self._owner(label) for label in group_labels(self._profile, self._options, process, thread)]
        frames = [self._location(frame) for frame in self._profile.stacks[stack] if self._is_shown(frame)]
        locations = [*owners, *frames] or [self._owner(NOTHING_SHOWN)]
        values = [count]
        if self._profile.recording.frequency:
            values.append(count * _NANOSECONDS // self._profile.recording.frequency)
        sample = self._message.sample.add(location_id=locations[::-1], value=values)  # leaf first
        self._label(sample, process, thread)

    def _label(self, sample: Any, process: int, thread: int) -> None:
        owner, task = self._profile.processes[process], self._profile.threads[thread]
        texts = {
            "process": owner.name,
            "command": owner.command,
            "interpreter": owner.interpreter,
            "thread_name": task.name,
        }
        sample.label.add(key=self._text("pid"), num=owner.pid)
        sample.label.add(key=self._text("tid"), num=task.tid)
        for key, text in texts.items():
            if text:
                sample.label.add(key=self._text(key), str=self._text(visible(text)))

    def _owner(self, label: Label) -> int:
        function = self._function(label.text, "", 0)
        return self._location_of(function, 0, 0)

    def _location(self, frame: Frame) -> int:
        known = self._frames.get(id(frame))
        if known is None:
            known = self._frames[id(frame)] = self._new_location(frame)
        return known

    def _new_location(self, frame: Frame) -> int:
        is_python = frame.kind is FrameKind.PYTHON
        function = self._function(visible(frame.name) or NAMELESS, visible(frame.file), frame.first_line)
        mapping = 0 if is_python or frame.kind is FrameKind.MARK else self._mapping(frame)
        return self._location_of(function, mapping, frame.line or frame.first_line)

    def _location_of(self, function: int, mapping: int, line: int) -> int:
        number, is_new = self._locations.of((function, mapping, line))
        if is_new:
            location = self._message.location.add(id=number, mapping_id=mapping)
            location.line.add(function_id=function, line=line)
        return number

    def _function(self, name: str, file: str, first_line: int) -> int:
        number, is_new = self._functions.of((name, file, first_line))
        if is_new:
            text = self._text(name)
            self._message.function.add(
                id=number, name=text, system_name=text, filename=self._text(file), start_line=first_line
            )
        return number

    def _mapping(self, frame: Frame) -> int:
        file = frame.file
        if frame.kind is FrameKind.KERNEL:
            file = f"[{file}]" if file else _KERNEL
        if not file:
            return 0
        number, is_new = self._mappings.of((frame.kind, file))
        if is_new:
            self._message.mapping.add(
                id=number,
                filename=self._text(visible(file)),
                build_id=self._text(self._profile.build_ids.get(frame.file, "")),
                has_functions=True,
            )
        return number

    def _text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))


def _bounded(nanoseconds: float) -> int:
    """A time as the format can hold it."""
    return min(max(round(nanoseconds), 0), (1 << 63) - 1)
