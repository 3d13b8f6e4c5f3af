"""Kept samples to profiles: many segments at once, or one segment a little at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, FrameKind, NativeOutcome, Process, Profile, Recording, Stack
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import Count, StackEvent
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.naming import UNREADABLE, FrameNames
from pyflame_ebpf.stacks.profile_builder import ProfileBuilder, SegmentNaming, StackKey
from pyflame_ebpf.stacks.segments import Segment
from pyflame_ebpf.tracking.mishaps import OF_ALL, Mishaps

ExpectAddresses = Callable[[Identity, Iterable[int]], None]  # is told which native addresses are to be named together
DEFECT = Frame(FrameKind.MARK, "[not named: a defect in pyflame-ebpf]")
STACKS_MAX = 4096  # named stacks that are kept from one segment to the next, or twice as many


class ProfileNaming:
    """Makes profiles of what was collected.

    Stacks that were named for a segment stay named for the next ones.  ``plain`` names stacks without any file, where
    naming them by files has a defect.  ``expect`` is told the native addresses before
    the first of them is named.
    """

    def __init__(
        self,
        collected: Collected,
        names: FrameNames,
        expect: ExpectAddresses = lambda _identity, _addresses: None,
        mishaps: Mishaps | None = None,
        plain: FrameNames | None = None,
    ) -> None:
        self._plain = plain
        self._mishaps = mishaps or Mishaps()
        self._threads = collected.threads
        self._kept = collected.kept
        self._settle = collected.settle
        self._names = names
        self._expect = expect
        self._recent: dict[StackKey, Stack] = {}
        self._older: dict[StackKey, Stack] = {}

    def profile(
        self, segments: Sequence[Segment], recording: Recording, processes: Mapping[Identity, Process]
    ) -> Profile:
        """All samples of the kept segments; seconds count from the whole second in which the first of them began.

        ``processes`` has what is known of each process.
        """
        try:
            self._settle()
            self._expect_names(self._kept.stacks())
        except Exception as error:  # noqa: BLE001 - the samples can be named without
            self._mishaps.defect(error, OF_ALL)
        builder = ProfileBuilder(Profile(recording), processes, self._threads, lambda key: self._stack(key, processes))
        for sample in self._samples(segments):
            try:
                builder.add(*sample)
            except Exception as error:  # noqa: BLE001, PERF203 - one process's defect costs that process alone
                self._mishaps.defect(error, sample[1].identity)
        return builder.profile

    def begin(self, segment: Segment, recording: Recording, processes: Mapping[Identity, Process]) -> SegmentNaming:
        """The naming of a segment, which is to be done now, a little at a time."""
        self._names.bound()
        if len(self._recent) >= STACKS_MAX:
            self._older, self._recent = self._recent, {}
        samples = list(self._samples([segment]))
        keys = {(count.stack_id, abi.OUTCOMES[count.outcome], native) for _, count, native in samples}
        unnamed = {stack_id for stack_id, _, _ in keys - self._recent.keys() - self._older.keys()}
        self._expect_names(event for stack_id in unnamed if (event := self._kept.stack(stack_id)) is not None)
        builder = ProfileBuilder(
            Profile(recording), processes, self._threads, lambda key: self._recent_stack(key, processes)
        )
        return SegmentNaming(builder, samples)

    def _samples(self, segments: Sequence[Segment]) -> Iterator[tuple[int, Count, NativeOutcome]]:
        """(second from the first segment's on, samples, how their native walk ended at last)."""
        first = int(segments[0].begin)
        for segment in segments:
            for second, count in segment.counts:
                native = self._kept.end_of_walk(count.stack_id) or abi.NATIVE_OUTCOMES[count.native]
                yield second - first, count, native

    def _recent_stack(self, key: StackKey, processes: Mapping[Identity, Process]) -> Stack | None:
        stack = self._recent.get(key) or self._older.get(key) or self._stack(key, processes)
        if stack is not None and not any(frame is UNREADABLE for frame in stack):  # its code object may come yet
            self._recent[key] = stack
        return stack

    def _stack(self, key: StackKey, processes: Mapping[Identity, Process]) -> Stack | None:
        stack_id, outcome, native = key
        event = self._kept.stack(stack_id)
        if event is None:
            return None
        process = processes.get(event.identity)
        for names in (self._names, self._plain):
            try:
                if names is not None:
                    return names.stack(event, outcome, native, process.interpreter_file if process else "")
            except Exception as error:  # noqa: BLE001, PERF203 - one process's defect costs that process alone
                self._mishaps.defect(error, event.identity)
        return (DEFECT,)

    def _expect_names(self, stacks: Iterable[StackEvent]) -> None:
        wanted: dict[Identity, set[int]] = {}
        for event in stacks:
            wanted.setdefault(event.identity, set()).update(
                address for address, _, _, kind in event.frames() if kind == abi.FRAME_NATIVE
            )
        for identity, addresses in wanted.items():
            try:
                self._expect(identity, addresses)
            except Exception as error:  # noqa: BLE001, PERF203 - one process's defect costs that process alone
                self._mishaps.defect(error, identity)
