"""The profile for the Firefox Profiler: its processed format, with a track for each thread, compressed with gzip.

Version 46 of that format keeps each thread's tables in the thread.  The Profiler upgrades older versions than its own.
A sample stands in the second in which it was counted; the samples of a second are spread over it by their weight.  The
format groups by process and thread; other groups of ``group_by`` stand at the root of the stacks.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from pyflame_ebpf.outputs.labelled_stacks import group_labels, shown_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import NAMELESS, Label, visible
from pyflame_ebpf.profile.model import Frame, FrameKind, Profile

_VERSION = 46
_GECKO_VERSION = 24
_MILLISECONDS = 1000
_MICROSECONDS = 1_000_000
_COLORS = {"Other": "grey", "Python": "yellow", "Native": "blue", "Library": "lightblue", "Kernel": "orange"}
_OTHER, _PYTHON, _NATIVE, _LIBRARY, _KERNEL = range(len(_COLORS))
_FILE_RESOURCE = 1  # a library
_TRACKS = ("process", "thread")

_Counts = Counter[tuple[int, int]]  # samples by second and stack


def write_firefox(profile: Profile, stream: BinaryIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the profile.

    Weights are samples, with their CPU time where the frequency is known; of a profile in nanoseconds milliseconds.
    """
    document = {"meta": _meta(profile), "libs": [], "pages": [], "counters": [], "profilerOverhead": []}
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
        packed.write(f'{_json(document)[:-1]},"threads":['.encode("ascii"))
        for at, thread in enumerate(_threads(profile, options)):  # one at a time in memory
            packed.write(f"{',' if at else ''}{_json(thread)}".encode("ascii"))
        packed.write(b"]}")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _meta(profile: Profile) -> dict[str, Any]:
    recording, unit = profile.recording, profile.unit
    return {
        "version": _GECKO_VERSION,
        "preprocessedProfileVersion": _VERSION,
        "product": f"pyflame-ebpf {visible(recording.profiler_version)}".rstrip(),
        "startTime": recording.started * _MILLISECONDS,
        "interval": 1 if unit.is_time or not unit.per_second else _MILLISECONDS / unit.per_second,
        "processType": 0,
        "debug": False,
        "stackwalk": 1,
        "oscpu": visible(recording.kernel),
        "logicalCPUs": recording.cpus,
        "arguments": visible(" ".join(recording.arguments)),
        "categories": [{"name": name, "color": color, "subcategories": ["Other"]} for name, color in _COLORS.items()],
        "extensions": {"length": 0, "id": [], "name": [], "baseURL": []},
        "markerSchema": [],
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
        "symbolicated": True,
        "usesOnlyOneStackType": True,
        "doesNotUseFrameImplementation": True,
        "sourceCodeIsNotOnSearchfox": True,
    }


def _threads(profile: Profile, options: OutputOptions) -> Iterator[dict[str, Any]]:
    """The threads, those of the busiest process first, then by their samples."""
    counts: dict[tuple[int, int], _Counts] = {}
    of_process: Counter[int] = Counter()
    for key, count in profile.samples.items():
        counts.setdefault((key.process, key.thread), Counter())[key.second, key.stack] += count
        of_process[key.process] += count
    order = sorted(counts, key=lambda at: (-of_process[at[0]], at[0], -counts[at].total(), at[1]))
    options = replace(options, group_by=tuple(group for group in options.group_by if group not in _TRACKS))
    shown = shown_stacks(profile, options)
    for owner in order:
        yield _Track(profile, options, shown, *owner).document(counts.pop(owner))


class _Table(Numbering[tuple[Any, ...]]):
    """Distinct rows by their number."""

    __slots__ = ()

    def columns(self, *names: str) -> dict[str, Any]:
        """The table as the format has it."""
        return {"length": len(self)} | {name: [row[at] for row in self.distinct] for at, name in enumerate(names)}


_FRAME_BITS = 32


class _Nodes(Numbering[int]):
    """The stacks as a tree.  A node is one number, its caller's plus one and its frame's: there may be millions."""

    __slots__ = ()

    def of(self, caller: int | None, frame: int) -> int:
        """The number of a node."""
        return self[(0 if caller is None else caller + 1) << _FRAME_BITS | frame]

    def columns(self, categories: list[int]) -> dict[str, Any]:
        """The table as the format has it, by the category of each frame."""
        frames = [node & (1 << _FRAME_BITS) - 1 for node in self.distinct]
        return {
            "length": len(self),
            "prefix": [(node >> _FRAME_BITS) - 1 if node >> _FRAME_BITS else None for node in self.distinct],
            "frame": frames,
            "category": [categories[frame] for frame in frames],
            "subcategory": [0] * len(self),
        }


class _Track:
    """One thread with its tables."""

    def __init__(
        self, profile: Profile, options: OutputOptions, shown: Callable[[int], list[int]], process: int, thread: int
    ) -> None:
        self._profile = profile
        self._shown = shown
        self._process, self._thread = profile.processes[process], profile.threads[thread]
        self._texts: Numbering[str] = Numbering()
        self._frames, self._functions, self._resources = _Table(), _Table(), _Table()
        self._nodes = _Nodes()
        self._known: dict[int, int] = {}  # index by a frame's number in the profile
        self._ends: dict[int, int | None] = {}
        self._owners = [self._owner(label) for label in group_labels(profile, options, process, thread)]

    def document(self, counts: _Counts) -> dict[str, Any]:
        """The thread as the format has it."""
        samples = self._samples(counts)
        name = visible(self._thread.name) or NAMELESS
        duration = self._profile.recording.duration * _MILLISECONDS
        return {
            "processType": "default",
            "processName": visible(self._process.name) or NAMELESS,
            "processStartupTime": 0,
            "processShutdownTime": duration,
            "registerTime": 0,
            "unregisterTime": duration,
            "pausedRanges": [],
            "name": name,
            "isMainThread": self._thread.tid == self._process.pid,
            "pid": str(self._process.pid),
            "tid": self._thread.tid,
            "samples": samples,
            "markers": _Table().columns("data", "name", "startTime", "endTime", "phase", "category"),
            "stackTable": self._nodes.columns([row[1] for row in self._frames.distinct]),
            "frameTable": self._frame_table(),
            "funcTable": self._functions.columns("name", "fileName", "lineNumber", "resource")
            | self._constant(len(self._functions), isJS=False, relevantForJS=False, columnNumber=None),
            "resourceTable": self._resources.columns("name", "type")
            | self._constant(len(self._resources), lib=None, host=None),
            "nativeSymbols": _Table().columns("libIndex", "address", "name", "functionSize"),
            "stringArray": self._texts.distinct,
        }

    def _frame_table(self) -> dict[str, Any]:
        constant = {"address": -1, "inlineDepth": 0, "subcategory": 0, "nativeSymbol": None, "innerWindowID": 0}
        return self._frames.columns("func", "category", "line") | self._constant(
            len(self._frames), **constant, implementation=None, column=None
        )

    @staticmethod
    def _constant(length: int, **values: Any) -> dict[str, Any]:
        return {name: [value] * length for name, value in values.items()}

    def _samples(self, counts: _Counts) -> dict[str, Any]:
        ordered = sorted(counts.items())
        samples = {
            "length": len(ordered),
            "stack": [self._end(stack) for (_, stack), _ in ordered],
            "time": _times(ordered),
            "weight": [count for _, count in ordered],
            "weightType": "samples",
        }
        unit = self._profile.unit
        if unit.is_time:
            samples["weight"] = [unit.seconds(count) * _MILLISECONDS for _, count in ordered]
            samples["weightType"] = "tracing-ms"
        elif unit.per_second:
            samples["threadCPUDelta"] = [round(count * _MICROSECONDS / unit.per_second) for _, count in ordered]
        return samples

    def _end(self, stack: int) -> int | None:
        """The innermost node of a stack, None where nothing of it is shown."""
        if stack not in self._ends:
            node = None
            for frame in [*self._owners, *map(self._frame, self._shown(stack))]:
                node = self._nodes.of(node, frame)
            self._ends[stack] = node
        return self._ends[stack]

    def _frame(self, number: int) -> int:
        """The index of a frame of the profile."""
        known = self._known.get(number)
        if known is None:
            frame = self._profile.frames[number]
            category = self._category(frame)
            row = self._function(frame), category, frame.line or frame.first_line or None
            known = self._known[number] = self._frames[row]
        return known

    def _function(self, frame: Frame) -> int:
        is_python = frame.kind is FrameKind.PYTHON
        file = self._texts[visible(frame.file)] if frame.file else None
        library = visible(frame.file.rpartition("/")[2])
        resource = -1 if is_python or not library else self._resources[self._texts[library], _FILE_RESOURCE]
        return self._functions[self._texts[visible(frame.name) or NAMELESS], file, frame.first_line or None, resource]

    def _category(self, frame: Frame) -> int:
        if frame.kind is FrameKind.NATIVE:
            is_library = ".so" in frame.file.rpartition("/")[2] and frame.file != self._process.interpreter_file
            return _LIBRARY if is_library else _NATIVE
        return {FrameKind.PYTHON: _PYTHON, FrameKind.KERNEL: _KERNEL}.get(frame.kind, _OTHER)

    def _owner(self, label: Label) -> int:
        function = self._functions[self._texts[label.text], None, None, -1]
        return self._frames[function, _OTHER, None]


def _times(ordered: list[tuple[tuple[int, int], int]]) -> list[float]:
    """The time of each sample in milliseconds; the samples of a second share it in proportion to their counts."""
    totals: Counter[int] = Counter()
    for (second, _), count in ordered:
        totals[second] += count
    times, before = [], Counter[int]()
    for (second, _), count in ordered:
        share = (before[second] + count / 2) / totals[second]
        times.append(round((second + share) * _MILLISECONDS, 3))
        before[second] += count
    return times
