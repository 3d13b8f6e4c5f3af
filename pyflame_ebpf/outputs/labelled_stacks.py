"""A profile's stacks as labels, process first, equal stacks merged: the content of folded stacks and flame graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pyflame_ebpf.compare.tallies import Tally, part_seconds
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import (
    Label,
    LabelKind,
    command_label,
    frame_label,
    host_label,
    interpreter_label,
    process_label,
    short_files,
    thread_label,
)
from pyflame_ebpf.profile.model import NATIVE_GAPS, Frame, FrameKind, Profile

NOTHING_SHOWN = Label("[no frame is shown]", LabelKind.MARK)  # a stack must have a name, and its samples count
_NATIVE_GAPS = frozenset(NATIVE_GAPS.values())


@dataclass(frozen=True, slots=True)
class LabelledStacks:
    """Samples by stack.  A stack is indices into ``labels``: its groups, then its frames, outermost first."""

    labels: list[Label]
    samples: Counter[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TalliedStacks:
    """Samples by stack and by part of the recording; a stack is as in LabelledStacks."""

    labels: list[Label]
    tallies: dict[tuple[int, ...], Tally]

    @property
    def stacks(self) -> LabelledStacks:
        """The samples without the parts."""
        return LabelledStacks(self.labels, Counter({stack: tally.samples for stack, tally in self.tallies.items()}))


def labelled_stacks(profile: Profile, options: OutputOptions) -> LabelledStacks:
    """Name every sampled stack of the profile."""
    namer = _StackNamer(profile, options)
    grouped: Counter[tuple[int, int, int]] = Counter()
    by_thread = "thread" in options.group_by
    for key, count in profile.samples.items():
        grouped[key.process, key.thread if by_thread else 0, key.stack] += count
    samples: Counter[tuple[int, ...]] = Counter()
    for (process, thread, stack), count in grouped.items():
        samples[namer.whole(process, thread, stack)] += count
    return LabelledStacks(namer.labels.distinct, samples)


def tallied_stacks(profile: Profile, options: OutputOptions) -> TalliedStacks:
    """Name every sampled stack of the profile, with its samples by part of the recording."""
    namer = _StackNamer(profile, options)
    width = part_seconds(profile)
    by_thread = "thread" in options.group_by
    found: dict[tuple[int, ...], Tally] = {}
    for key, count in profile.samples.items():
        stack = namer.whole(key.process, key.thread if by_thread else 0, key.stack)
        found.setdefault(stack, Tally()).add(key.second // width, count)
    return TalliedStacks(namer.labels.distinct, found)


def group_labels(profile: Profile, options: OutputOptions, process: int, thread: int) -> list[Label]:
    """The labels above the frames of a thread of a process; both are indices into the profile's lists."""
    named: dict[str, Callable[[], Label]] = {
        "host": lambda: host_label(profile.recording),
        "interpreter": lambda: interpreter_label(profile.processes[process]),
        "command": lambda: command_label(profile.processes[process]),
        "process": lambda: process_label(profile.processes[process]),
        "thread": lambda: thread_label(profile.threads[thread]),
    }
    return [named[group]() for group in options.group_by]


def shown_frames(options: OutputOptions) -> Callable[[Frame], bool]:
    """A function that tells whether a frame is shown."""
    native = options.native and not options.python_only
    kernel = options.kernel and not options.python_only
    shown = {FrameKind.PYTHON: True, FrameKind.NATIVE: native, FrameKind.KERNEL: kernel}

    def is_shown(frame: Frame) -> bool:
        if frame.plumbing and not options.all_frames:
            return False
        if frame.kind is FrameKind.MARK:
            return native or frame not in _NATIVE_GAPS
        return shown[frame.kind]

    return is_shown


def shown_stacks(profile: Profile, options: OutputOptions) -> Callable[[int], list[int]]:
    """A function from the index of a stack to the numbers of its shown frames, outermost first."""
    shown = list(map(shown_frames(options), profile.frames))
    return lambda stack: [number for number in profile.stacks[stack] if shown[number]]


class _StackNamer:
    """Gives each distinct label an index.  Each process, thread, stack and frame is named once."""

    def __init__(self, profile: Profile, options: OutputOptions) -> None:
        self.labels: Numbering[Label] = Numbering()
        self._profile = profile
        self._options = options
        self._files = short_files(python_files(profile))
        self._owners: dict[tuple[int, int], tuple[int, ...]] = {}
        self._stacks: dict[int, tuple[int, ...]] = {}
        self._frames: list[int | None] = [None] * len(profile.frames)  # a frame's label
        self._shown = shown_stacks(profile, options)

    def whole(self, process: int, thread: int, stack: int) -> tuple[int, ...]:
        """The labels of a thread's stack, owners first; at least one."""
        return self.owners(process, thread) + self.frames(stack) or self.nothing()

    def owners(self, process: int, thread: int) -> tuple[int, ...]:
        """The labels above the frames."""
        if (process, thread) not in self._owners:
            labels = group_labels(self._profile, self._options, process, thread)
            self._owners[process, thread] = tuple([self.labels[label] for label in labels])
        return self._owners[process, thread]

    def frames(self, stack: int) -> tuple[int, ...]:
        """The labels of one stack's frames."""
        if stack not in self._stacks:
            self._stacks[stack] = self._named(stack)
        return self._stacks[stack]

    def nothing(self) -> tuple[int, ...]:
        """The label of a stack that has none otherwise."""
        return (self.labels[NOTHING_SHOWN],)

    def _named(self, stack: int) -> tuple[int, ...]:
        known = self._frames
        return tuple(
            [self._label(number) if (label := known[number]) is None else label for number in self._shown(stack)]
        )

    def _label(self, number: int) -> int:
        frame = self._profile.frames[number]
        self._frames[number] = label = self.labels[frame_label(frame, self._files, lines=self._options.lines)]
        return label


def python_files(profile: Profile) -> set[str]:
    """The file names of all Python frames of the profile."""
    return {frame.file for frame in profile.frames if frame.kind is FrameKind.PYTHON}
