"""A profile as the report's page wants it: every stack in one tree, every sample by second, as columns of numbers.

The packed data, before compression: the length of the JSON text in bytes (32 bits, little-endian), the JSON text, then
the columns.  The JSON text tells of each column where it begins, in bytes from the first column, and how many numbers
it has.  ``report_tree`` describes the order of the tree, ``packed_numbers`` the bytes of a column.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyflame_ebpf.outputs.labelled_stacks import python_files
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.packed_numbers import Columns
from pyflame_ebpf.outputs.processes import closing_line
from pyflame_ebpf.outputs.report_tree import Function, Tree
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
_PLUMBING, _OF_LIBRARY, _NATIVE_GAP = 1, 2, 4

Sources = Mapping[str, Mapping[int, str]]  # file of a Python frame → line → its text


def packed_report(profile: Profile, options: OutputOptions, sources: Sources) -> bytes:
    """The data of the page, compressed with gzip.  ``options`` are its first view."""
    return _packed(profile, [profile], options, sources, None)


def packed_comparison(before: Profile, after: Profile, options: OutputOptions, compared: dict[str, Any]) -> bytes:
    """The data of two recordings with equal processes, threads, frames and stacks; ``compared`` is the change."""
    both = replace(after, samples=before.samples + after.samples)
    return _packed(both, [before, after], options, after.sources, compared)


def _packed(
    profile: Profile,
    recordings: Sequence[Profile],
    options: OutputOptions,
    sources: Sources,
    compared: dict[str, Any] | None,
) -> bytes:
    columns = Columns()
    tree = Tree(profile)
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
    """One function in words.  ``module`` is the file of Python code, the library, or the kernel."""

    label: str
    name: str
    file: str
    module: str


def _functions(functions: Iterable[Function], files: Mapping[str, str]) -> dict[str, list[Any]]:
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


def _recording(profile: Profile, tree: Tree, columns: Columns) -> dict[str, Any]:
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


def _samples(samples: Counter[SampleKey], tree: Tree, columns: Columns) -> dict[str, Any]:
    """The samples by second and node.  ``how`` indexes the distinct (kernel mode, GIL, outcome, native outcome)."""
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


def _sources(functions: Iterable[Function], sources: Sources) -> dict[str, Any]:
    """The embedded lines of each Python file, and the file of each function that has some."""
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
    """A line of source text with tabs as blanks; a character that does not print is spelled."""
    shown = text.rstrip("\r\n").expandtabs(4)
    return "\\".join(visible(part) for part in shown.split("\\"))
