"""The profile in pprof's format: protobuf, compressed with gzip.

Samples of all seconds are summed, since the format has no time of a sample.  Names are spelled as in the other outputs,
so that they cannot drive a terminal on which pprof prints them.
"""

from __future__ import annotations

import gzip
from collections import Counter
from typing import Any, BinaryIO

from pyflame_ebpf.outputs.labelled_stacks import NOTHING_SHOWN, group_labels, shown_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.outputs.pprof_messages import profile_class
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import NAMELESS, Label, visible
from pyflame_ebpf.profile.model import NANOSECONDS, Frame, FrameKind, Profile

_INT64_MAX = (1 << 63) - 1
_KERNEL = "[kernel.kallsyms]"  # what perf calls the kernel's own mapping


def write_pprof(profile: Profile, stream: BinaryIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile; values are samples and nanoseconds, the latter only where the frequency is known."""
    message = _Message(profile, options).finished()
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
        packed.write(message.SerializeToString(deterministic=True))


class _Message:
    """The message under construction."""

    def __init__(self, profile: Profile, options: OutputOptions) -> None:
        self._profile = profile
        self._options = options
        self._shown = shown_stacks(profile, options)
        self._message = profile_class()()
        self._texts = Numbering([""])  # the format wants it to be the first
        # Numbers from 1 on: in this format 0 says that there is none.
        self._functions: Numbering[tuple[str, str, int]] = Numbering(first=1)
        self._locations: Numbering[tuple[int, int, int]] = Numbering(first=1)
        self._mappings: Numbering[tuple[FrameKind, str]] = Numbering(first=1)
        self._location_of_frame = [0] * len(profile.frames)

    def finished(self) -> Any:
        """The whole message."""
        self._circumstances()
        samples: Counter[tuple[int, int, int]] = Counter()
        for key, count in self._profile.samples.items():
            samples[key.process, key.thread, key.stack] += count
        for (process, thread, stack), count in sorted(samples.items()):
            self._sample(process, thread, stack, count)
        self._message.string_table.extend(self._texts.distinct)
        return self._message

    def _circumstances(self) -> None:
        recording = self._profile.recording
        unit = self._profile.unit
        if not unit.is_time:
            self._message.sample_type.add(type=self._texts["samples"], unit=self._texts["count"])
        if unit.per_second:
            self._message.sample_type.add(type=self._texts[unit.clock.value], unit=self._texts["nanoseconds"])
            self._message.period_type.CopyFrom(self._message.sample_type[-1])
            self._message.period = round(NANOSECONDS / unit.per_second)
            self._message.default_sample_type = self._texts[unit.clock.value]
        self._message.time_nanos = _bounded(recording.started * NANOSECONDS)
        self._message.duration_nanos = _bounded(recording.duration * NANOSECONDS)
        comments = (f"host {recording.host}", f"kernel {recording.kernel}", " ".join(recording.arguments))
        self._message.comment.extend(self._texts[visible(comment)] for comment in comments)

    def _sample(self, process: int, thread: int, stack: int, count: int) -> None:
        owners = [self._owner(label) for label in group_labels(self._profile, self._options, process, thread)]
        known = self._location_of_frame
        frames = [known[number] or self._location(number) for number in self._shown(stack)]
        locations = [*owners, *frames] or [self._owner(NOTHING_SHOWN)]
        unit = self._profile.unit
        values = ([] if unit.is_time else [count]) + ([_bounded(unit.nanoseconds(count))] if unit.per_second else [])
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
        sample.label.add(key=self._texts["pid"], num=_bounded(owner.pid))
        sample.label.add(key=self._texts["tid"], num=_bounded(task.tid))
        for key, text in texts.items():
            if text:
                sample.label.add(key=self._texts[key], str=self._texts[visible(text)])

    def _owner(self, label: Label) -> int:
        function = self._function(label.text, "", 0)
        return self._location_of(function, 0, 0)

    def _location(self, number: int) -> int:
        frame = self._profile.frames[number]
        is_python = frame.kind is FrameKind.PYTHON
        function = self._function(visible(frame.name) or NAMELESS, visible(frame.file), frame.first_line)
        mapping = 0 if is_python or frame.kind is FrameKind.MARK else self._mapping(frame)
        location = self._location_of(function, mapping, frame.line or frame.first_line)
        self._location_of_frame[number] = location
        return location

    def _location_of(self, function: int, mapping: int, line: int) -> int:
        number = self._locations[function, mapping, line]
        if number > len(self._message.location):
            location = self._message.location.add(id=number, mapping_id=mapping)
            location.line.add(function_id=function, line=line)
        return number

    def _function(self, name: str, file: str, first_line: int) -> int:
        number = self._functions[name, file, first_line]
        if number > len(self._message.function):
            text = self._texts[name]
            self._message.function.add(
                id=number, name=text, system_name=text, filename=self._texts[file], start_line=first_line
            )
        return number

    def _mapping(self, frame: Frame) -> int:
        file = frame.file
        if frame.kind is FrameKind.KERNEL:
            file = f"[{file}]" if file else _KERNEL
        if not file:
            return 0
        number = self._mappings[frame.kind, file]
        if number > len(self._message.mapping):
            self._message.mapping.add(
                id=number,
                filename=self._texts[visible(file)],
                build_id=self._texts[self._profile.build_ids.get(frame.file, "")],
                has_functions=True,
            )
        return number


def _bounded(number: float) -> int:
    """A time, or a number that another tool wrote, within the range of the format."""
    return min(max(round(number), 0), _INT64_MAX)
