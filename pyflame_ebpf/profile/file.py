"""A profile as a file: ``profile.json.gz``, from which every output can be made again.

JSON of ASCII characters only, compressed with gzip.  All texts are indices into one table, all lists of records are
columns, stacks are nodes that point at their caller's node, so that common callers are stored once.  Equal profiles
give equal bytes.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.profile import columns as checked
from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.model import (
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    Recording,
    SampleKey,
    Stack,
    Thread,
)

FORMAT = "pyflame-ebpf profile"
VERSION = 3  # 2 had no build ids and no source text; 1 no native stacks: no "plumbing" of frames, "native" of samples
_JSON_BYTES_MAX = 1 << 30
_FRAMES_MAX = 50_000_000  # of all stacks together; some nodes that point at each other can stand for very many
_NO_NODE = -1
_HEXADECIMAL = re.compile(r"[0-9a-f]{2,128}")
_FLAGS = [False, True]
_KINDS = list(FrameKind)
_GILS = list(Gil)
_OUTCOMES = list(Outcome)
_NATIVE_OUTCOMES = list(NativeOutcome)


class UnusableProfileError(PyflameError):
    """A saved profile that cannot be read back."""

    exit_code = 18


def save_profile(profile: Profile, stream: BinaryIO) -> None:
    """Write the profile as compressed JSON."""
    text = json.dumps(_document(profile), separators=(",", ":"), sort_keys=True)
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
        packed.write(text.encode("ascii"))


def load_profile(stream: BinaryIO, name: str = "profile.json.gz") -> Profile:
    """Read a profile back; ``name`` is what errors call the file; raises UnusableProfileError."""
    try:
        document = _parsed(_unpacked(stream))
        return _profile(document)
    except _NewerVersionError as error:
        raise UnusableProfileError(
            f"{name} was written by a newer pyflame-ebpf (profile format {error.version}; this one reads {VERSION}).",
            "Upgrade pyflame-ebpf on this machine, or make the report where the recording was made.",
        ) from error
    except WrongContentError as error:
        raise UnusableProfileError(
            f"{name} is not a profile that can be read: {error}.",
            "Give the directory that `pyflame-ebpf record` wrote, or its profile.json.gz, copied whole.",
        ) from error


class _NewerVersionError(Exception):
    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


# Writing


@dataclass(slots=True)
class _Table:
    """Gives each distinct key the next index."""

    index: dict[Any, int] = field(default_factory=dict)

    def __call__(self, key: Any) -> int:
        return self.index.setdefault(key, len(self.index))


def _document(profile: Profile) -> dict[str, Any]:
    text, frame, node = _Table(), _Table(), _Table()
    stacks = _stack_ends(profile.stacks, frame, node)
    return {
        "format": FORMAT,
        "version": VERSION,
        "recording": _recording_document(profile.recording),
        "processes": {
            "pid": [process.pid for process in profile.processes],
            "name": [text(process.name) for process in profile.processes],
            "command": [text(process.command) for process in profile.processes],
            "interpreter": [text(process.interpreter) for process in profile.processes],
            "interpreter_file": [text(process.interpreter_file) for process in profile.processes],
            "scheduler_cpu": [process.scheduler_cpu for process in profile.processes],
        },
        "threads": {
            "tid": [thread.tid for thread in profile.threads],
            "name": [text(thread.name) for thread in profile.threads],
        },
        "frames": {
            "kind": [_KINDS.index(each.kind) for each in frame.index],
            "name": [text(each.name) for each in frame.index],
            "file": [text(each.file) for each in frame.index],
            "first_line": [each.first_line for each in frame.index],
            "line": [each.line for each in frame.index],
            "plumbing": [int(each.plumbing) for each in frame.index],
        },
        "nodes": {"caller": [caller for caller, _ in node.index], "frame": [index for _, index in node.index]},
        "stacks": stacks,
        "samples": _samples_document(profile.samples),
        "build_ids": {
            "file": [text(file) for file in sorted(profile.build_ids)],
            "build_id": [profile.build_ids[file] for file in sorted(profile.build_ids)],
        },
        "sources": _sources_document(profile.sources, text),
        "texts": list(text.index),
    }


def _sources_document(sources: dict[str, dict[int, str]], text: _Table) -> dict[str, list[Any]]:
    rows = [(text(file), line, sources[file][line]) for file in sorted(sources) for line in sorted(sources[file])]
    return {name: [row[column] for row in rows] for column, name in enumerate(("file", "line", "text"))}


def _recording_document(recording: Recording) -> dict[str, Any]:
    return {
        "started": recording.started,
        "duration": recording.duration,
        "frequency": recording.frequency,
        "cpus": recording.cpus,
        "host": recording.host,
        "kernel": recording.kernel,
        "arguments": list(recording.arguments),
        "profiler_version": recording.profiler_version,
        "scheduler_cpu": recording.scheduler_cpu,
        "lost": recording.lost,
        "counters": recording.counters,
    }


def _stack_ends(stacks: Iterable[Stack], frame: _Table, node: _Table) -> list[int]:
    """Each stack's innermost node, _NO_NODE for an empty stack."""
    known: dict[int, int] = {}  # frames by identity, since hashing one is slow
    ends = []
    for stack in stacks:
        end = _NO_NODE
        for each in stack:
            index = known.get(id(each))
            if index is None:
                index = known[id(each)] = frame(each)
            end = node((end, index))
        ends.append(end)
    return ends


def _samples_document(samples: Counter[SampleKey]) -> dict[str, list[int]]:
    rows = sorted(
        (
            key.second,
            key.process,
            key.thread,
            key.stack,
            int(key.kernel_mode),
            _GILS.index(key.gil),
            _OUTCOMES.index(key.outcome),
            _NATIVE_OUTCOMES.index(key.native),
            count,
        )
        for key, count in samples.items()
    )
    names = ("second", "process", "thread", "stack", "kernel_mode", "gil", "outcome", "native", "count")
    return {name: [row[column] for row in rows] for column, name in enumerate(names)}


# Reading


def _unpacked(stream: BinaryIO) -> bytes:
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as packed:
            content = packed.read(_JSON_BYTES_MAX + 1)
    except gzip.BadGzipFile as error:
        raise WrongContentError("it is not compressed with gzip, or damaged") from error
    except EOFError as error:
        raise WrongContentError("it is cut short") from error
    except zlib.error as error:
        raise WrongContentError("it is damaged") from error
    if len(content) > _JSON_BYTES_MAX:
        raise WrongContentError(f"it unpacks to more than {_JSON_BYTES_MAX >> 20} MiB")
    return content


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content, parse_constant=_refused_constant)
    except (ValueError, RecursionError) as error:
        raise WrongContentError("it does not hold JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise WrongContentError(f'it does not say that it is a "{FORMAT}"')
    version = checked.integer(document.get("version"))
    if version > VERSION:
        raise _NewerVersionError(version)
    return document


def _refused_constant(name: str) -> float:
    raise ValueError(name)


def _profile(document: dict[str, Any]) -> Profile:
    if document["version"] <= 1:
        _fill_version_1(document)
    if document["version"] <= 2:  # noqa: PLR2004 - a version
        document |= {"build_ids": {"file": [], "build_id": []}, "sources": {"file": [], "line": [], "text": []}}
    texts = [checked.text(each) for each in checked.listed(document, "texts")]
    processes = _processes(checked.table(document, "processes"), texts)
    threads = _threads(checked.table(document, "threads"), texts)
    frames = _frames(checked.table(document, "frames"), texts)
    nodes = _nodes(checked.table(document, "nodes"), frames)
    stacks = _stacks(checked.listed(document, "stacks"), nodes)
    samples = _samples(checked.table(document, "samples"), processes, threads, stacks)
    return Profile(
        _recording(checked.table(document, "recording")),
        processes,
        threads,
        stacks,
        samples,
        _build_ids(checked.table(document, "build_ids"), texts),
        _sources(checked.table(document, "sources"), texts),
    )


def _build_ids(table: dict[str, Any], texts: list[str]) -> dict[str, str]:
    files, build_ids = checked.columns(table, file=checked.chosen_from(texts), build_id=checked.text)
    if not all(_HEXADECIMAL.fullmatch(build_id) for build_id in build_ids):
        raise WrongContentError("a build id is not one")
    return dict(zip(files, build_ids, strict=True))


def _sources(table: dict[str, Any], texts: list[str]) -> dict[str, dict[int, str]]:
    sources: dict[str, dict[int, str]] = {}
    columns = checked.columns(table, file=checked.chosen_from(texts), line=checked.integer, text=checked.text)
    for file, line, text in zip(*columns, strict=True):
        sources.setdefault(file, {})[line] = text
    return sources


def _fill_version_1(document: dict[str, Any]) -> None:
    """Adds the columns that the first version had not."""
    frames, samples = checked.table(document, "frames"), checked.table(document, "samples")
    frames["plumbing"] = [0] * len(checked.listed(frames, "kind"))
    samples["native"] = [_NATIVE_OUTCOMES.index(NativeOutcome.NONE)] * len(checked.listed(samples, "count"))


def _recording(table: dict[str, Any]) -> Recording:
    frequency = checked.integer(table.get("frequency"))
    if frequency < 0:
        raise WrongContentError("its sampling frequency is negative")
    return Recording(
        started=checked.number(table.get("started")),
        duration=checked.number(table.get("duration")),
        frequency=frequency,
        cpus=checked.integer(table.get("cpus")),
        host=checked.text(table.get("host")),
        kernel=checked.text(table.get("kernel")),
        arguments=tuple(checked.text(each) for each in checked.listed(table, "arguments")),
        profiler_version=checked.text(table.get("profiler_version")),
        scheduler_cpu=checked.number_or_none(table.get("scheduler_cpu")),
        lost=checked.integer(table.get("lost")),
        counters={name: checked.integer(value) for name, value in checked.table(table, "counters").items()},
    )


def _processes(table: dict[str, Any], texts: list[str]) -> list[Process]:
    text = checked.chosen_from(texts)
    columns = checked.columns(
        table,
        pid=checked.integer,
        name=text,
        command=text,
        interpreter=text,
        interpreter_file=text,
        scheduler_cpu=checked.number_or_none,
    )
    return [Process(*row) for row in zip(*columns, strict=True)]


def _threads(table: dict[str, Any], texts: list[str]) -> list[Thread]:
    return [
        Thread(*row)
        for row in zip(*checked.columns(table, tid=checked.integer, name=checked.chosen_from(texts)), strict=True)
    ]


def _frames(table: dict[str, Any], texts: list[str]) -> list[Frame]:
    text = checked.chosen_from(texts)
    kind = checked.chosen_from(_KINDS)
    columns = checked.columns(
        table,
        kind=kind,
        name=text,
        file=text,
        first_line=checked.integer,
        line=checked.integer,
        plumbing=checked.chosen_from(_FLAGS),
    )
    return [Frame(*row) for row in zip(*columns, strict=True)]


_Node = tuple[int, Frame, int]  # index of the caller's node, frame, frames from here to the root


def _nodes(table: dict[str, Any], frames: list[Frame]) -> list[_Node]:
    nodes: list[_Node] = []
    for caller, frame in zip(
        *checked.columns(table, caller=checked.integer, frame=checked.chosen_from(frames)), strict=True
    ):
        if not _NO_NODE <= caller < len(nodes):
            raise WrongContentError("a stack's frames are out of order")
        nodes.append((caller, frame, 1 if caller == _NO_NODE else nodes[caller][2] + 1))
    return nodes


def _stacks(ends: list[Any], nodes: list[_Node]) -> list[Stack]:
    allowance = _FRAMES_MAX
    stacks = []
    for end in ends:
        if not _NO_NODE <= checked.integer(end) < len(nodes):
            raise WrongContentError("a stack refers to frames that are not there")
        allowance -= 0 if end == _NO_NODE else nodes[end][2]
        if allowance < 0:
            raise WrongContentError(f"its stacks have more than {_FRAMES_MAX:,} frames")
        stacks.append(_stack(end, nodes))
    return stacks


def _stack(end: int, nodes: list[_Node]) -> Stack:
    inwards = []
    while end != _NO_NODE:
        end, frame, _ = nodes[end]
        inwards.append(frame)
    return tuple(reversed(inwards))


def _samples(
    table: dict[str, Any], processes: list[Process], threads: list[Thread], stacks: list[Stack]
) -> Counter[SampleKey]:
    columns = checked.columns(
        table,
        second=checked.integer,
        process=checked.index_into(processes),
        thread=checked.index_into(threads),
        stack=checked.index_into(stacks),
        kernel_mode=checked.chosen_from(_FLAGS),
        gil=checked.chosen_from(_GILS),
        outcome=checked.chosen_from(_OUTCOMES),
        native=checked.chosen_from(_NATIVE_OUTCOMES),
        count=checked.integer,
    )
    samples: Counter[SampleKey] = Counter()
    for *key, count in zip(*columns, strict=True):
        if count < 1:
            raise WrongContentError("a sample count is not positive")
        samples[SampleKey(*key)] += count
    return samples
