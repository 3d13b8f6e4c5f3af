"""Stacks for scripts: one JSON object a line for each stack of each thread, busiest first.

Names are exact: JSON's own escapes, ASCII only, keep them harmless.  ``frames`` are outermost first.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, TextIO

from pyflame_ebpf.outputs.labelled_stacks import group_labels, shown_stacks
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.model import Frame, Profile, SampleKey

_Kind = tuple[Any, ...]  # all that a sample's key says but for the second


def write_jsonl(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write a line for samples that differ in their second alone; ``seconds`` are [second, samples]."""
    seconds: dict[_Kind, Counter[int]] = {}
    keys: dict[_Kind, SampleKey] = {}
    for key, count in profile.samples.items():
        kind = (key.process, key.thread, key.stack, key.outcome, key.native, key.gil, key.kernel_mode)
        keys.setdefault(kind, key)
        seconds.setdefault(kind, Counter())[key.second] += count
    shown = shown_stacks(profile, options)
    frames = [""] * len(profile.frames)  # each as JSON, once it is needed
    order = sorted(seconds, key=lambda kind: (-seconds[kind].total(), kind))
    for kind in order:
        key = keys[kind]
        for number in shown(key.stack):
            frames[number] = frames[number] or _json(_frame(profile.frames[number]))
        line = _json(_line(profile, options, key, seconds[kind]))
        stream.write(f'{line[:-1]},"frames":[{",".join([frames[number] for number in shown(key.stack)])}]}}\n')


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _line(profile: Profile, options: OutputOptions, key: SampleKey, seconds: Counter[int]) -> dict[str, Any]:
    """All of a line but its frames."""
    process, thread = profile.processes[key.process], profile.threads[key.thread]
    return {
        "group": [label.text for label in group_labels(profile, options, key.process, key.thread)],
        "pid": process.pid,
        "process": process.name,
        "command": process.command,
        "interpreter": process.interpreter,
        "tid": thread.tid,
        "thread": thread.name,
        "samples": seconds.total(),
        "cpu_seconds": round(profile.unit.seconds(seconds.total()), 9),
        "seconds": sorted(seconds.items()),
        "outcome": key.outcome.value,
        "native_outcome": key.native.value,
        "gil": key.gil.value,
        "kernel_mode": key.kernel_mode,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "kind": frame.kind.value,
        "name": frame.name,
        "file": frame.file,
        "first_line": frame.first_line,
        "line": frame.line,
    }
