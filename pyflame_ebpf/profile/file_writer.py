"""A profile as the JSON object that its file holds; ``file_layout`` describes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pyflame_ebpf.profile.file_layout import (
    CLOCKS,
    FORMAT,
    GILS,
    KINDS,
    NATIVE_OUTCOMES,
    NO_NODE,
    OUTCOMES,
    VERSION,
    VERSION_OF_TICKS,
)
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import Clock, Frame, NumberedStack, Profile, Recording, SampleKey


def document_of(profile: Profile) -> dict[str, Any]:
    """The object; frames are numbered anew, in the order in which the stacks first have them."""
    used: Numbering[int] = Numbering()
    nodes: Numbering[tuple[int, int]] = Numbering()
    texts: Numbering[str] = Numbering()
    return {
        "format": FORMAT,
        "version": VERSION_OF_TICKS if _counts_ticks_of_cpu(profile.recording) else VERSION,
        "recording": _recording(profile.recording),
        "stacks": _stack_ends(profile.stacks, used, nodes),
        "nodes": {"caller": [caller for caller, _ in nodes], "frame": [frame for _, frame in nodes]},
        "processes": _processes(profile, texts),
        "threads": {
            "tid": [thread.tid for thread in profile.threads],
            "name": [texts[thread.name] for thread in profile.threads],
        },
        "frames": _frames([profile.frames[number] for number in used], texts),
        "samples": _samples(profile.samples),
        "build_ids": {
            "file": [texts[file] for file in sorted(profile.build_ids)],
            "build_id": [profile.build_ids[file] for file in sorted(profile.build_ids)],
        },
        "sources": _sources(profile.sources, texts),
        "texts": texts.distinct,
    }


def _stack_ends(stacks: Iterable[NumberedStack], used: Numbering[int], nodes: Numbering[tuple[int, int]]) -> list[int]:
    """Each stack's innermost node."""
    ends = []
    for stack in stacks:
        end = NO_NODE
        for frame in stack:
            end = nodes[end, used[frame]]
        ends.append(end)
    return ends


def _recording(recording: Recording) -> dict[str, Any]:
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
    } | ({} if _counts_ticks_of_cpu(recording) else {"unit": _unit(recording)})


def _counts_ticks_of_cpu(recording: Recording) -> bool:
    return recording.clock is Clock.CPU and not recording.in_nanoseconds


def _unit(recording: Recording) -> dict[str, Any]:
    return {"clock": CLOCKS.index(recording.clock), "nanoseconds": int(recording.in_nanoseconds)}


def _processes(profile: Profile, texts: Numbering[str]) -> dict[str, list[Any]]:
    processes = profile.processes
    return {
        "pid": [process.pid for process in processes],
        "name": [texts[process.name] for process in processes],
        "command": [texts[process.command] for process in processes],
        "interpreter": [texts[process.interpreter] for process in processes],
        "interpreter_file": [texts[process.interpreter_file] for process in processes],
        "scheduler_cpu": [process.scheduler_cpu for process in processes],
    }


def _frames(frames: list[Frame], texts: Numbering[str]) -> dict[str, list[int]]:
    return {
        "kind": [KINDS.index(frame.kind) for frame in frames],
        "name": [texts[frame.name] for frame in frames],
        "file": [texts[frame.file] for frame in frames],
        "first_line": [frame.first_line for frame in frames],
        "line": [frame.line for frame in frames],
        "plumbing": [int(frame.plumbing) for frame in frames],
    }


_SAMPLE_COLUMNS = ("second", "process", "thread", "stack", "kernel_mode", "gil", "outcome", "native", "count")


def _samples(samples: Counter[SampleKey]) -> dict[str, list[int]]:
    gils, outcomes, natives = Numbering(GILS), Numbering(OUTCOMES), Numbering(NATIVE_OUTCOMES)
    rows = sorted(
        (
            key.second,
            key.process,
            key.thread,
            key.stack,
            int(key.kernel_mode),
            gils[key.gil],
            outcomes[key.outcome],
            natives[key.native],
            count,
        )
        for key, count in samples.items()
    )
    return {name: [row[column] for row in rows] for column, name in enumerate(_SAMPLE_COLUMNS)}


def _sources(sources: dict[str, dict[int, str]], texts: Numbering[str]) -> dict[str, list[Any]]:
    rows = [(texts[file], line, sources[file][line]) for file in sorted(sources) for line in sorted(sources[file])]
    return {name: [row[column] for row in rows] for column, name in enumerate(("file", "line", "text"))}
