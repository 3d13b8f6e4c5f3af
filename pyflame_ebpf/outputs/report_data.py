"""A profile as the report's page wants it: every stack in one tree, every sample by second, as columns of numbers.

Layout of the packed data, before it is compressed: the length of the JSON text in bytes (32 bits, little-endian), the
JSON text, the columns one behind the other.  A column is unsigned 32-bit numbers, all their lowest bytes first, then
all their second bytes and so on: most of the high bytes are 0, and so cost nothing once compressed.  The JSON text
says of each column where it begins, counted from the first column, and how many numbers it has.

The tree is in depth-first order, callers before callees.  Each node has an entry (a process, a thread or a frame, which
are numbered in this order) and a rise: how many levels it lies above the place right under the node before it.  Level 1
holds the processes, level 2 their threads, frames begin at level 3.  A sample belongs to the node where its stack ends.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from pyflame_ebpf.outputs.labelled_stacks import python_files
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.processes import closing_line
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import command_label, frame_label, process_label, short_files, thread_label, visible
from pyflame_ebpf.profile.model import (
    NATIVE_GAPS,
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    Recording,
    SampleKey,
    Thread,
)

VERSION = 1
_KINDS = list(FrameKind)
_GILS = list(Gil)
_OUTCOMES = list(Outcome)
_NATIVE_OUTCOMES = list(NativeOutcome)
_NATIVE_GAPS = frozenset(NATIVE_GAPS.values())
# Code that came with the interpreter or was installed for it, as opposed to the program itself.
_LIBRARY = re.compile(r"(^|/)(python\d+(\.\d+)?t?|python\d+\.zip|site-packages|dist-packages)/|^<frozen ")
_NUMBER_MAX = 0xFFFFFFFF  # no honest recording has a larger one; a damaged profile may
_PLUMBING, _OF_LIBRARY, _NATIVE_GAP = 1, 2, 4

Sources = Mapping[str, Mapping[int, str]]  # file of a Python frame → line → its text


def packed_report(profile: Profile, options: OutputOptions, sources: Sources) -> bytes:
    """The data of the page, compressed with gzip; ``options`` are what it shows at first."""
    return _packed(profile, [profile], options, sources, None)


def packed_comparison(before: Profile, after: Profile, options: OutputOptions, compared: dict[str, Any]) -> bytes:
    """The same of two recordings with the same processes, threads and stacks; ``compared`` tells of the change."""
    both = replace(after, samples=before.samples + after.samples)
    return _packed(both, [before, after], options, after.sources, compared)


def _packed(
    profile: Profile,
    recordings: Sequence[Profile],
    options: OutputOptions,
    sources: Sources,
    compared: dict[str, Any] | None,
) -> bytes:
    columns = _Columns()
    tree = _Tree(profile)
    document = {
        "version": VERSION,
        "first": _first_view(options),
        "kinds": [kind.value for kind in _KINDS],
        "gils": [gil.value for gil in _GILS],
        "outcomes": [{"name": each.value, "missing": each.truncated} for each in _OUTCOMES],
        "nativeOutcomes": [{"name": each.value, "missing": each.cut_short} for each in _NATIVE_OUTCOMES],
        "processes": _processes(profile.processes),
        "threads": _threads(profile.threads),
        "functions": _functions(tree.functions, short_files(python_files(profile))),
        "frames": {"function": columns.add(tree.frame_function), "line": columns.add(tree.frame_line)},
        "nodes": {"rise": columns.add(tree.rise), "entry": columns.add(tree.entry)},
        "recordings": [_recording(each, tree, columns) for each in recordings],
        "compared": compared,
        "sources": _sources(tree.functions, sources),
    }
    text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")
    return gzip.compress(struct.pack("<I", len(text)) + text + columns.content(), compresslevel=6, mtime=0)


class _Columns:
    """Columns of numbers, transposed by bytes and put one behind the other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, numbers: Iterable[int]) -> dict[str, int]:
        """Take a column; gives what the JSON text says of it."""
        content = array("I", [min(max(number, 0), _NUMBER_MAX) for number in numbers])
        if sys.byteorder == "big":
            content.byteswap()
        place = {"at": self._size, "count": len(content)}
        whole = content.tobytes()
        self._parts += [whole[byte::4] for byte in range(4)]
        self._size += len(whole)
        return place

    def content(self) -> bytes:
        return b"".join(self._parts)


_Function = tuple[FrameKind, str, str, int, bool]  # a frame without its line
_StackKey = tuple[int, int, int]  # process, thread, stack


class _Tree:
    """The tree as columns, and the node at which each sampled (process, thread, stack) ends."""

    def __init__(self, profile: Profile) -> None:
        self.functions: Numbering[_Function] = Numbering()
        self.frame_function: list[int] = []
        self.frame_line: list[int] = []
        self.rise: list[int] = []
        self.entry: list[int] = []
        self.ends: dict[_StackKey, int] = {}
        self._lay_out(self._paths(profile))

    def _paths(self, profile: Profile) -> list[tuple[tuple[int, ...], _StackKey]]:
        """Each sampled stack as entries from the process inwards, in the order of the tree."""
        threads_at = len(profile.processes)
        sampled = {(key.process, key.thread, key.stack) for key in profile.samples}
        stacks = self._frames(profile, sorted({stack for _, _, stack in sampled}))
        return sorted(
            ((process, threads_at + thread, *stacks[stack]), (process, thread, stack))
            for process, thread, stack in sampled
        )

    def _frames(self, profile: Profile, sampled: list[int]) -> dict[int, tuple[int, ...]]:
        """Each sampled stack's frames as entries."""
        frames_at = len(profile.processes) + len(profile.threads)
        numbers: Numbering[tuple[int, int]] = Numbering()
        used = dict.fromkeys(chain.from_iterable(profile.stacks[index] for index in sampled))
        entries = {}
        for number in used:
            each = profile.frames[number]
            function = self.functions[each.kind, each.name, each.file, each.first_line, each.plumbing]
            entries[number] = frames_at + numbers[function, max(each.line, 0)]
        stacks = {index: tuple([entries[number] for number in profile.stacks[index]]) for index in sampled}
        self.frame_function = [function for function, _ in numbers]
        self.frame_line = [line for _, line in numbers]
        return stacks

    def _lay_out(self, paths: list[tuple[tuple[int, ...], _StackKey]]) -> None:
        before: tuple[int, ...] = ()
        for path, key in paths:
            shared = _common(before, path)
            if shared < len(path):
                self.rise.append(len(before) - shared)
                self.rise.extend([0] * (len(path) - shared - 1))
                self.entry.extend(path[shared:])
                before = path
            # A path that is the beginning of another sorts before it, so it always ends at the newest node.
            self.ends[key] = len(self.entry) - 1


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many entries both begin with."""
    for index, (left, right) in enumerate(zip(one, other)):  # noqa: B905 - the shorter one ends it
        if left != right:
            return index
    return min(len(one), len(other))


def _first_view(options: OutputOptions) -> dict[str, Any]:
    tops = [group for group in options.group_by if group in ("interpreter", "command", "process")]
    return {
        "top": tops[-1] if tops else "none",
        "native": options.native and not options.python_only,
        "kernel": options.kernel and not options.python_only,
        "plumbing": options.all_frames,
        "lines": options.lines,
        "threads": "thread" in options.group_by,
    }


def _processes(processes: list[Process]) -> dict[str, list[Any]]:
    return {
        "pid": [each.pid for each in processes],
        "label": [(process_label(each) if each.pid else command_label(each)).text for each in processes],
        "name": [visible(each.name) for each in processes],
        "command": [visible(each.command or each.name) for each in processes],
        "interpreter": [visible(each.interpreter) for each in processes],
        "scheduler": [each.scheduler_cpu for each in processes],
    }


def _threads(threads: list[Thread]) -> dict[str, list[Any]]:
    return {
        "tid": [each.tid for each in threads],
        "label": [thread_label(each).text for each in threads],
        "name": [visible(each.name) for each in threads],
    }


@dataclass(frozen=True, slots=True)
class _Named:
    """One function in words; ``module`` is the file of Python code, the library, or the kernel."""

    label: str
    name: str
    file: str
    module: str


def _functions(functions: Iterable[_Function], files: Mapping[str, str]) -> dict[str, list[Any]]:
    modules: Numbering[str] = Numbering()
    columns: dict[str, list[Any]] = {name: [] for name in ("kind", "label", "name", "file", "module", "line", "flags")}
    for kind, name, file, first_line, plumbing in functions:
        frame = Frame(kind, name, file, first_line, 0, plumbing)
        named = _named(frame, files)
        columns["kind"].append(_KINDS.index(kind))
        columns["label"].append(named.label)
        columns["name"].append(named.name)
        columns["file"].append(named.file)
        columns["module"].append(modules[named.module])
        columns["line"].append(max(first_line, 0))
        columns["flags"].append(_flags(frame))
    return columns | {"modules": list(modules)}


def _named(frame: Frame, files: Mapping[str, str]) -> _Named:
    label = frame_label(frame, files, lines=False)
    name = visible(frame.name) or "?"
    if frame.kind is FrameKind.PYTHON:
        file = visible(files.get(frame.file, frame.file)) or "?"
        return _Named(label.text, name, file, file)
    if frame.kind is FrameKind.KERNEL:
        module = f"[kernel: {visible(frame.file)}]" if frame.file else "[kernel]"
        return _Named(label.text, name, module, module)
    if frame.kind is FrameKind.MARK:
        return _Named(label.text, name, "", "[gaps in stacks]")
    return _Named(label.text, name, label.module, label.module or "[no file]")


def _flags(frame: Frame) -> int:
    of_library = frame.kind is FrameKind.PYTHON and _LIBRARY.search(frame.file) is not None
    is_gap = Frame(frame.kind, frame.name, frame.file) in _NATIVE_GAPS
    return _PLUMBING * frame.plumbing | _OF_LIBRARY * of_library | _NATIVE_GAP * is_gap


def _recording(profile: Profile, tree: _Tree, columns: _Columns) -> dict[str, Any]:
    facts = profile.recording
    return {
        **_circumstances(facts),
        "total": profile.total,
        "closing": closing_line(profile),
        "outcomes": [profile.outcomes()[each] for each in _OUTCOMES],
        "nativeOutcomes": [profile.native_outcomes()[each] for each in _NATIVE_OUTCOMES],
        "samples": _samples(profile.samples, tree, columns),
    }


def _circumstances(facts: Recording) -> dict[str, Any]:
    return {
        "started": facts.started,
        "duration": facts.duration,
        "frequency": facts.unit.per_second,
        "cpus": facts.cpus,
        "host": visible(facts.host),
        "kernel": visible(facts.kernel),
        "arguments": [visible(each) for each in facts.arguments],
        "version": visible(facts.profiler_version),
        "scheduler": facts.scheduler_cpu,
        "lost": facts.lost,
        "partOf": facts.part_of,
        "counters": {visible(name): value for name, value in facts.counters.items()},
    }


def _samples(samples: Counter[SampleKey], tree: _Tree, columns: _Columns) -> dict[str, Any]:
    """The samples by second and node; ``how`` indexes the distinct (kernel mode, GIL, outcome, native outcome)."""
    hows: Numbering[tuple[int, int, int, int]] = Numbering()
    rows = sorted(
        (max(key.second, 0), tree.ends[key.process, key.thread, key.stack], _how(key, hows), count)
        for key, count in samples.items()
    )
    seconds = [row[0] for row in rows]
    return {
        "second": columns.add(later - earlier for earlier, later in zip([0, *seconds], seconds, strict=False)),
        "node": columns.add(row[1] for row in rows),
        "how": columns.add(row[2] for row in rows),
        "count": columns.add(row[3] for row in rows),
        "hows": [list(each) for each in hows],
    }


def _how(key: SampleKey, hows: Numbering[tuple[int, int, int, int]]) -> int:
    return hows[
        int(key.kernel_mode),
        _GILS.index(key.gil),
        _OUTCOMES.index(key.outcome),
        _NATIVE_OUTCOMES.index(key.native),
    ]


def _sources(functions: Iterable[_Function], sources: Sources) -> dict[str, Any]:
    """The embedded lines of each Python file, by the functions that are in it."""
    texts: list[dict[str, str]] = []
    places: dict[str, int] = {}
    of_function = {}
    for index, (kind, _, file, _, _) in enumerate(functions):
        if kind is not FrameKind.PYTHON or file not in sources:
            continue
        if file not in places:
            places[file] = len(texts)
            texts.append({str(line): visible_source(text) for line, text in sources[file].items()})
        of_function[str(index)] = places[file]
    return {"ofFunction": of_function, "texts": texts}


def visible_source(text: str) -> str:
    """A line of source text: as it is, but with tabs as blanks and with nothing in it that does not print."""
    shown = text.rstrip("\r\n").expandtabs(4)
    return "\\".join(visible(part) for part in shown.split("\\"))
