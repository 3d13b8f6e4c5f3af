"""A profile's stacks as labels, process first, equal ones merged: what folded file and flame graph both show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pyflame_ebpf.labels import Label, frame_label, process_label, short_files, thread_label
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile import NATIVE_GAPS, Frame, FrameKind, Profile

_NATIVE_GAPS = frozenset(NATIVE_GAPS.values())


@dataclass(frozen=True, slots=True)
class LabelledStacks:
    """Samples by stack; a stack is indices into ``labels``: process, thread if asked for, frames, outermost first."""

    labels: list[Label]
    samples: Counter[tuple[int, ...]]


def labelled_stacks(profile: Profile, options: OutputOptions) -> LabelledStacks:
    """Name every sampled stack of the profile."""
    namer = _StackNamer(profile, options)
    grouped: Counter[tuple[int, int, int]] = Counter()
    for key, count in profile.samples.items():
        grouped[key.process, key.thread if options.threads else -1, key.stack] += count
    samples: Counter[tuple[int, ...]] = Counter()
    for (process, thread, stack), count in grouped.items():
        samples[namer.owners(process, thread) + namer.frames(stack)] += count
    return LabelledStacks(list(namer.labels), samples)


class _StackNamer:
    """Gives each distinct label an index; names each process, thread, stack and frame object once."""

    def __init__(self, profile: Profile, options: OutputOptions) -> None:
        self.labels: dict[Label, int] = {}
        self._profile = profile
        self._options = options
        self._all_frames = options.all_frames
        self._native = options.native and not options.python_only
        kernel = options.kernel and not options.python_only
        shown = {FrameKind.NATIVE: self._native, FrameKind.KERNEL: kernel}
        self._left_out = {kind for kind, is_shown in shown.items() if not is_shown}
        self._files = short_files(python_files(profile))
        self._owners: dict[tuple[int, int], tuple[int, ...]] = {}
        self._stacks: dict[int, tuple[int, ...]] = {}
        # By identity: hashing a Frame costs more than all else here, and the profile keeps every frame alive.
        self._frames: dict[int, int] = {}

    def owners(self, process: int, thread: int) -> tuple[int, ...]:
        """The labels above the frames; ``thread`` is -1 for none."""
        if (process, thread) not in self._owners:
            named = [process_label(self._profile.processes[process])]
            if thread >= 0:
                named.append(thread_label(self._profile.threads[thread]))
            self._owners[process, thread] = tuple(self._index(label) for label in named)
        return self._owners[process, thread]

    def frames(self, stack: int) -> tuple[int, ...]:
        """The labels of one stack's frames."""
        if stack not in self._stacks:
            self._stacks[stack] = self._named(stack)
        return self._stacks[stack]

    def _named(self, stack: int) -> tuple[int, ...]:
        frames = [frame for frame in self._profile.stacks[stack] if self._is_shown(frame)]
        known = self._frames
        for frame in frames:
            if id(frame) not in known:
                known[id(frame)] = self._index(frame_label(frame, self._files, lines=self._options.lines))
        return tuple([known[id(frame)] for frame in frames])

    def _is_shown(self, frame: Frame) -> bool:
        if frame.plumbing and not self._all_frames:
            return False
        if frame.kind is FrameKind.MARK:
            return self._native or frame not in _NATIVE_GAPS
        return frame.kind not in self._left_out

    def _index(self, label: Label) -> int:
        return self.labels.setdefault(label, len(self.labels))


def python_files(profile: Profile) -> set[str]:
    """The file names of all Python frames of the profile."""
    python = FrameKind.PYTHON
    return {frame.file for stack in profile.stacks for frame in stack if frame.kind is python}
