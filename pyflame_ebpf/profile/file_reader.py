"""The JSON object of a profile's file as a profile, every value checked; ``file_layout`` describes it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

from pyflame_ebpf.profile import columns as checked
from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.file_layout import (
    CLOCKS,
    CPU_SECONDS_MAX,
    CPUS_MAX,
    DURATION_MIN,
    FLAGS,
    FREQUENCY_MAX,
    GILS,
    ID_MAX,
    KINDS,
    LINE_MAX,
    LINE_MIN,
    NATIVE_OUTCOMES,
    NO_NODE,
    NUMBER_MAX,
    OUTCOMES,
    SECONDS_AFTER_END_MAX,
    SECONDS_MAX,
    STARTED_MAX,
    VERSION_OF_TICKS,
)
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import (
    Clock,
    Frame,
    NativeOutcome,
    NumberedStack,
    Process,
    Profile,
    Recording,
    SampleKey,
    Thread,
)
from pyflame_ebpf.profile.size_limits import STACK_FRAMES_MAX, check_texts

_HEXADECIMAL = re.compile(r"[0-9a-f]{2,128}")
_CPU_SECONDS = checked.numbers_or_none_within(-CPU_SECONDS_MAX, CPU_SECONDS_MAX)
_IDS = checked.integers_within(0, ID_MAX)
_LINES = checked.integers_within(LINE_MIN, LINE_MAX)


def profile_of(document: dict[str, Any]) -> Profile:
    """The profile in an object of this version or an older one.  Raises WrongContentError."""
    if document["version"] <= 1:
        _fill_version_1(document)
    if document["version"] <= 2:  # noqa: PLR2004 - a version
        document |= {"build_ids": {"file": [], "build_id": []}, "sources": {"file": [], "line": [], "text": []}}
    if document["version"] <= VERSION_OF_TICKS:
        checked.table(document, "recording")["unit"] = {"clock": CLOCKS.index(Clock.CPU), "nanoseconds": 0}
    recording = _recording(checked.table(document, "recording"))
    texts = checked.texts(checked.listed(document, "texts"))
    check_texts(chain(texts, _texts_of(recording)))
    processes = _processes(checked.table(document, "processes"), texts)
    threads = _threads(checked.table(document, "threads"), texts)
    frames, stacks = _frames_and_stacks(document, texts)
    samples = _samples(
        checked.table(document, "samples"),
        recording,
        processes=len(processes),
        threads=len(threads),
        stacks=len(stacks),
    )
    return Profile(
        recording=recording,
        processes=processes,
        threads=threads,
        frames=frames,
        stacks=stacks,
        samples=samples,
        build_ids=_build_ids(checked.table(document, "build_ids"), texts),
        sources=_sources(checked.table(document, "sources"), texts),
    )


def _texts_of(recording: Recording) -> Iterable[str]:
    return (recording.host, recording.kernel, recording.profiler_version, *recording.arguments, *recording.counters)


def _frames_and_stacks(document: dict[str, Any], texts: list[str]) -> tuple[list[Frame], list[NumberedStack]]:
    """The distinct frames, and the stacks as their numbers.  Removes their columns, whose memory the stacks need."""
    frames: Numbering[Frame] = Numbering()
    numbers = [frames[frame] for frame in _frames(checked.table(document, "frames"), texts)]
    nodes = _Nodes(checked.table(document, "nodes"), numbers)
    del document["frames"], document["nodes"]
    return frames.distinct, _stacks(checked.listed(document, "stacks"), nodes)


def _fill_version_1(document: dict[str, Any]) -> None:
    """Adds the columns that the first version had not."""
    frames, samples = checked.table(document, "frames"), checked.table(document, "samples")
    frames["plumbing"] = [0] * len(checked.listed(frames, "kind"))
    samples["native"] = [NATIVE_OUTCOMES.index(NativeOutcome.NONE)] * len(checked.listed(samples, "count"))


def _recording(table: dict[str, Any]) -> Recording:
    unit = checked.table(table, "unit")
    (clock,) = checked.chosen_from(CLOCKS)([unit.get("clock")])
    (in_nanoseconds,) = checked.chosen_from(FLAGS)([unit.get("nanoseconds")])
    return Recording(
        started=checked.number(table.get("started"), 0, STARTED_MAX),
        duration=_duration(table),
        frequency=checked.integer(table.get("frequency"), 0, FREQUENCY_MAX),
        cpus=checked.integer(table.get("cpus"), 0, CPUS_MAX),
        host=checked.text(table.get("host")),
        kernel=checked.text(table.get("kernel")),
        arguments=tuple(checked.texts(checked.listed(table, "arguments"))),
        profiler_version=checked.text(table.get("profiler_version")),
        scheduler_cpu=_CPU_SECONDS([table.get("scheduler_cpu")])[0],
        lost=checked.integer(table.get("lost"), 0, NUMBER_MAX),
        counters={
            name: checked.integer(value, 0, NUMBER_MAX) for name, value in checked.table(table, "counters").items()
        },
        clock=clock,
        in_nanoseconds=in_nanoseconds,
    )


def _duration(table: dict[str, Any]) -> float:
    duration = checked.number(table.get("duration"), 0, SECONDS_MAX)
    if 0 < duration < DURATION_MIN:
        raise WrongContentError("its duration is not one")
    return duration


def _processes(table: dict[str, Any], texts: list[str]) -> list[Process]:
    text = checked.chosen_from(texts)
    columns = checked.columns(
        table,
        pid=_IDS,
        name=text,
        command=text,
        interpreter=text,
        interpreter_file=text,
        scheduler_cpu=_CPU_SECONDS,
    )
    return [Process(*row) for row in zip(*columns, strict=True)]


def _threads(table: dict[str, Any], texts: list[str]) -> list[Thread]:
    columns = checked.columns(table, tid=_IDS, name=checked.chosen_from(texts))
    return [Thread(*row) for row in zip(*columns, strict=True)]


def _frames(table: dict[str, Any], texts: list[str]) -> list[Frame]:
    text = checked.chosen_from(texts)
    columns = checked.columns(
        table,
        kind=checked.chosen_from(KINDS),
        name=text,
        file=text,
        first_line=_LINES,
        line=_LINES,
        plumbing=checked.chosen_from(FLAGS),
    )
    return [Frame(*row) for row in zip(*columns, strict=True)]


class _Nodes:
    """The tree of stacks as columns: a node's caller, its frame's number, and its frames from the root inwards."""

    def __init__(self, table: dict[str, Any], numbers: list[int]) -> None:
        self._callers, self._frames = checked.columns(
            table, caller=checked.integers_within(NO_NODE, NUMBER_MAX), frame=checked.chosen_from(numbers)
        )
        self._depths: list[int] = []
        for caller in self._callers:
            if caller >= len(self._depths):
                raise WrongContentError("a stack's frames are out of order")
            self._depths.append(1 if caller == NO_NODE else self._depths[caller] + 1)

    def __len__(self) -> int:
        """Count the nodes."""
        return len(self._depths)

    def depth(self, end: int) -> int:
        """How many frames the stack has that ends at a node."""
        return 0 if end == NO_NODE else self._depths[end]

    def stack(self, end: int) -> NumberedStack:
        """The stack that ends at a node."""
        callers, frames = self._callers, self._frames
        inwards = []
        while end != NO_NODE:
            inwards.append(frames[end])
            end = callers[end]
        return tuple(inwards[::-1])


def _stacks(ends: list[Any], nodes: _Nodes) -> list[NumberedStack]:
    """The stacks.  Their frames are counted before they are built: some nodes can stand for very many."""
    allowance = STACK_FRAMES_MAX
    stacks = []
    for end in checked.integers_within(NO_NODE, NUMBER_MAX)(ends):
        if end >= len(nodes):
            raise WrongContentError("a stack refers to frames that are not there")
        allowance -= nodes.depth(end)
        if allowance < 0:
            raise WrongContentError(f"its stacks have more than {STACK_FRAMES_MAX:,} frames")
        stacks.append(nodes.stack(end))
    return stacks


def _samples(
    table: dict[str, Any], recording: Recording, *, processes: int, threads: int, stacks: int
) -> Counter[SampleKey]:
    last = math.ceil(recording.duration) + SECONDS_AFTER_END_MAX
    *keys, counts = checked.columns(
        table,
        second=checked.integers_within(0, last),
        process=checked.indices_into(processes),
        thread=checked.indices_into(threads),
        stack=checked.indices_into(stacks),
        kernel_mode=checked.chosen_from(FLAGS),
        gil=checked.chosen_from(GILS),
        outcome=checked.chosen_from(OUTCOMES),
        native=checked.chosen_from(NATIVE_OUTCOMES),
        count=checked.integers_within(1, NUMBER_MAX),
    )
    samples: Counter[SampleKey] = Counter()
    for key, count in zip(map(SampleKey, *keys), counts, strict=True):
        samples[key] = samples.get(key, 0) + count
    return samples


def _build_ids(table: dict[str, Any], texts: list[str]) -> dict[str, str]:
    files, build_ids = checked.columns(table, file=checked.chosen_from(texts), build_id=checked.texts)
    if not all(_HEXADECIMAL.fullmatch(build_id) for build_id in build_ids):
        raise WrongContentError("a build id is not one")
    return dict(zip(files, build_ids, strict=True))


def _sources(table: dict[str, Any], texts: list[str]) -> dict[str, dict[int, str]]:
    sources: dict[str, dict[int, str]] = {}
    columns = checked.columns(table, file=checked.chosen_from(texts), line=_LINES, text=checked.texts)
    check_texts(columns[2])
    for file, line, text in zip(*columns, strict=True):
        sources.setdefault(file, {})[line] = text
    return sources
