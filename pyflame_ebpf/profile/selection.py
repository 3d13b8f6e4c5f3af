"""The part of a recording that is looked at: a range of its time, some of its processes.

Pure: a Profile goes in and a smaller one comes out, which every output treats like a whole recording.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace

from pyflame_ebpf.errors import UsageError
from pyflame_ebpf.profile.model import Process, Profile, SampleKey


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a recording; the default is all of it.

    ``begin`` and ``end`` are seconds from the recording's start; ``end`` None is its end.  They are widened to whole
    seconds, since samples are counted by second.  ``processes`` are patterns, one of which must match.  A pattern of
    digits is a PID; any other is a regular expression, searched for in the kernel's name of the process and in its
    command line. ``python`` asks for processes in which an interpreter was found.
    """

    begin: float = 0.0
    end: float | None = None
    processes: tuple[str, ...] = ()
    python: bool = False

    def check(self) -> None:
        """Raises UsageError if no recording can have such a part."""
        if self.begin < 0 or (self.end is not None and self.end <= self.begin):
            raise UsageError(
                f"there is no time from {self.begin:g} s to {_shown(self.end)}",
                "Both count from the start of the recording: --from 60 --to 1:30.",
            )
        for pattern in self.processes:
            _check_pattern(pattern)

    def of(self, profile: Profile) -> Profile:
        """The samples of this part, as a recording of its own that begins and ends with the range of time."""
        if self == WHOLE_RECORDING:
            return profile
        wanted = [self._takes(process) for process in profile.processes]
        begin, end = self._seconds(profile.recording.duration)
        samples: Counter[SampleKey] = Counter()
        for key, count in profile.samples.items():
            if wanted[key.process] and begin <= key.second and (end is None or key.second < end):
                samples[key._replace(second=key.second - begin) if begin else key] = count
        return _part(profile, samples, begin, end)

    def _takes(self, process: Process) -> bool:
        if self.python and not process.is_python:
            return False
        return not self.processes or any(_matches(pattern, process) for pattern in self.processes)

    def _seconds(self, duration: float) -> tuple[int, int | None]:
        """The first second, and the second after the last one; None if the part goes on to the end."""
        last = None if self.end is None or self.end >= duration else math.ceil(self.end)
        return math.floor(self.begin), last


WHOLE_RECORDING = Selection()


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{pattern!r} is not a regular expression: {error}",
            "A PID or a part of the command line will do: --process 1234, --process gunicorn.",
        ) from error


def _shown(end: float | None) -> str:
    return "the end" if end is None else f"{end:g} s"


def _matches(pattern: str, process: Process) -> bool:
    if pattern.isdecimal():
        return process.pid == int(pattern)
    expression = re.compile(pattern)
    return bool(expression.search(process.name) or expression.search(process.command))


def _part(profile: Profile, samples: Counter[SampleKey], begin: int, end: int | None) -> Profile:
    """The samples as a recording of its own; its share of the CPU charged, or of the samples lost, is unknown."""
    whole = profile.recording
    last = whole.duration if end is None else min(end, whole.duration)
    recording = replace(
        whole,
        started=whole.started + begin,
        duration=max(0.0, last - begin),
        scheduler_cpu=None,
        part_of=whole.part_of or profile.total,
    )
    processes = profile.processes
    if begin or end is not None:
        processes = [replace(process, scheduler_cpu=None) for process in processes]
    return replace(profile, recording=recording, processes=processes, samples=samples)
