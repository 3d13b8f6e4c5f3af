"""Samples in the programs' terms to a Profile: gives processes, threads, frames and stacks their numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from pyflame_ebpf.forgetting import ThreadOf
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import (
    Frame,
    FrameKind,
    NativeOutcome,
    NumberedStack,
    Outcome,
    Process,
    Profile,
    SampleKey,
    Stack,
    Thread,
)
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.stacks.thread_names import ThreadNames

StackKey = tuple[int, Outcome, NativeOutcome]  # a stack's id and the rest of what its frames depend on
StackOf = Callable[[StackKey], Stack | None]
NOT_NAMED = Frame(FrameKind.MARK, "[not named in time]")


class ProfileBuilder:
    """Gives processes, threads, frames and stacks their numbers as they come.  ``profile`` has what came until now.

    ``processes`` has what is known of each process.  ``stack_of`` names a stack; it returns None for one that never
    arrived.
    """

    def __init__(
        self, profile: Profile, processes: Mapping[Identity, Process], threads: ThreadNames, stack_of: StackOf
    ) -> None:
        self.profile = profile
        self._known_processes = processes
        self._stack_of = stack_of
        self._thread_names = threads
        self._numbers: dict[StackKey, int] = {}  # several keys may have one stack: those that are named alike
        self._lost = -1  # the number of the stack that stands for those that never arrived
        self._processes: Numbering[Identity] = Numbering()
        self._threads: Numbering[ThreadOf] = Numbering()
        self._frames: Numbering[Frame] = Numbering()
        self._stacks: Numbering[NumberedStack] = Numbering()
        profile.frames, profile.stacks = self._frames.distinct, self._stacks.distinct

    def add(self, second: int, count: Count, native: NativeOutcome) -> None:
        """Add samples that were counted together; ``native`` tells how their native walk ended at last."""
        process = self._process(count.identity)
        outcome = abi.OUTCOMES[count.outcome]
        if outcome is Outcome.NOT_IDENTIFIED and not self.profile.processes[process].is_python:
            outcome = Outcome.NOT_PYTHON  # it was not known then; it is now
        stack_key = count.stack_id, outcome, native
        stack = self._numbers.get(stack_key)
        if stack is None:
            stack = self._numbers[stack_key] = self._number(self._stack_of(stack_key))
        if stack == self._lost:
            outcome = Outcome.STACK_LOST
        key = SampleKey(
            second,
            process,
            self._thread(count.identity, count.tid),
            stack,
            count.kernel_mode,
            abi.GIL_STATES[count.gil],
            outcome,
            native,
        )
        self.profile.samples[key] += count.samples

    def leave_unnamed(self) -> None:
        """From now on stacks that have no number yet get a mark in place of their frames."""
        self._stack_of = lambda _key: (NOT_NAMED,)

    def _process(self, identity: Identity) -> int:
        number = self._processes[identity]
        if number == len(self.profile.processes):
            self.profile.processes.append(self._known_processes.get(identity) or Process(identity.tgid, "?"))
        return number

    def _thread(self, identity: Identity, tid: int) -> int:
        number = self._threads[identity, tid]
        if number == len(self.profile.threads):
            self.profile.threads.append(Thread(tid, self._thread_names.get(identity, tid)))
        return number

    def _number(self, stack: Stack | None) -> int:
        if stack is None:
            self._lost = self._number((Frame(FrameKind.MARK, f"[{Outcome.STACK_LOST.value}]"),))
            return self._lost
        frames = self._frames
        return self._stacks[tuple([frames[frame] for frame in stack])]


class SegmentNaming:
    """A segment that is named a little at a time, while other samples are taken in."""

    def __init__(self, builder: ProfileBuilder, samples: Iterable[tuple[int, Count, NativeOutcome]]) -> None:
        self._builder = builder
        self._left = iter(samples)

    def name(self, seconds: float) -> bool:
        """Name for so long.  Returns whether all is named."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sample = next(self._left, None)
            if sample is None:
                return True
            self._builder.add(*sample)
        return False

    def profile(self) -> Profile:
        """The segment's profile.  Stacks that are not named yet are a mark, and are named when they are met again."""
        self._builder.leave_unnamed()
        for sample in self._left:
            self._builder.add(*sample)
        return self._builder.profile
