"""Samples in the sampler's terms to a Profile: gives processes, threads, frames and stacks their numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import (
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    NumberedStack,
    Outcome,
    Process,
    Profile,
    SampleKey,
    Stack,
    Thread,
)

StackKey = tuple[int, Outcome, NativeOutcome]
StackOf = Callable[[int, Outcome, NativeOutcome], Stack | None]
NOT_NAMED = Frame(FrameKind.MARK, "[not named in time]")


class Counted(NamedTuple):
    """What samples that are counted together have in common, in the sampler's terms."""

    second: int
    identity: Identity
    tid: int
    stack_id: int
    outcome: Outcome
    native: NativeOutcome
    gil: Gil
    kernel_mode: bool

    @property
    def stack_key(self) -> StackKey:
        """What the frames of its stack depend on."""
        return self.stack_id, self.outcome, self.native


class ProfileBuilder:
    """Gives processes, threads, frames and stacks their numbers as they come; ``profile`` has what came until now."""

    def __init__(
        self,
        profile: Profile,
        processes: dict[Identity, Process],
        stack_of: StackOf,
        thread_names: dict[tuple[Identity, int], str],
    ) -> None:
        self.profile = profile
        self._known_processes = processes
        self._stack_of = stack_of
        self._numbers: dict[StackKey, int] = {}  # of stacks by what they depend on; many are named alike
        self._lost = -1  # the number of the stack that stands for those that never arrived
        self._thread_names = thread_names
        self._processes: Numbering[Identity] = Numbering()
        self._threads: Numbering[tuple[Identity, int]] = Numbering()
        self._frames: Numbering[Frame] = Numbering()
        self._stacks: Numbering[NumberedStack] = Numbering()
        profile.frames, profile.stacks = self._frames.distinct, self._stacks.distinct

    def add(self, counted: Counted, samples: int) -> None:
        """Adds samples that have all of this in common."""
        process = self._process(counted.identity)
        outcome = counted.outcome
        if outcome is Outcome.NOT_IDENTIFIED and not self.profile.processes[process].is_python:
            outcome = Outcome.NOT_PYTHON  # it was not known then; it is now
        woven = counted.stack_id, outcome, counted.native
        stack = self._numbers.get(woven)
        if stack is None:
            stack = self._numbers[woven] = self._number(self._stack_of(*woven))
        if stack == self._lost:
            outcome = Outcome.STACK_LOST
        key = SampleKey(
            counted.second,
            process,
            self._thread(counted.identity, counted.tid),
            stack,
            counted.kernel_mode,
            counted.gil,
            outcome,
            counted.native,
        )
        self.profile.samples[key] += samples

    def leave_unnamed(self) -> None:
        """From now on stacks that are not named yet get a mark in place of their frames."""
        self._stack_of = lambda _stack_id, _outcome, _native: (NOT_NAMED,)

    def _process(self, identity: Identity) -> int:
        number = self._processes[identity]
        if number == len(self.profile.processes):
            self.profile.processes.append(self._known_processes.get(identity) or Process(identity.tgid, "?"))
        return number

    def _thread(self, identity: Identity, tid: int) -> int:
        number = self._threads[identity, tid]
        if number == len(self.profile.threads):
            self.profile.threads.append(Thread(tid, self._thread_names.get((identity, tid), "")))
        return number

    def _number(self, stack: Stack | None) -> int:
        if stack is None:
            self._lost = self._number((Frame(FrameKind.MARK, f"[{Outcome.STACK_LOST.value}]"),))
            return self._lost
        frames = self._frames
        return self._stacks[tuple([frames[frame] for frame in stack])]


class Window:
    """Samples of a short time, named a little at a time while others wait to be taken in."""

    def __init__(self, builder: ProfileBuilder, samples: list[tuple[Counted, int]]) -> None:
        self._builder = builder
        self._left = samples

    def name(self, seconds: float) -> bool:
        """Names for so long; whether all is named."""
        end = time.monotonic() + seconds
        while self._left:
            if time.monotonic() >= end:
                return False
            self._builder.add(*self._left.pop())
        return True

    def profile(self) -> Profile:
        """The samples; the stacks of those that are not named yet are a mark, and stay to be named when met again."""
        self._builder.leave_unnamed()
        self.name(float("inf"))
        return self._builder.profile
