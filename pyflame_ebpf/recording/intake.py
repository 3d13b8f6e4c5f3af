"""Takes in what the programs tell: hands each event to the stores that keep its facts."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from pyflame_ebpf.sampling.events import (
    CodeEvent,
    Event,
    ExitEvent,
    MissEvent,
    ProcessEvent,
    StackCopyEvent,
    StackEvent,
    ThreadEvent,
)
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.unfinished_stacks import UnfinishedStacks
from pyflame_ebpf.tracking.mishaps import Mishaps
from pyflame_ebpf.tracking.native_frames import NativeFrames
from pyflame_ebpf.tracking.source_files import SourceFiles
from pyflame_ebpf.tracking.tracked_processes import ProcessTable

TAKING = 0.1  # seconds of a call that go into taking in events
WAITING = 2000  # events that may wait for the next call; others stay in the programs' buffers, which are bounded


class Events(Protocol):
    """What the programs tell."""

    def poll(self, timeout_ms: int) -> list[Event]:
        """The events since the last call; waits so long for one that is urgent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The programs' events, and where they go.  ``source_files`` is None if no source text is wanted."""

    events: Events
    table: ProcessTable
    native: NativeFrames
    collected: Collected
    unfinished: UnfinishedStacks
    source_files: SourceFiles | None
    mishaps: Mishaps = field(default_factory=Mishaps)
    _waiting: deque[Event] = field(default_factory=deque)

    def take(self, wait: float) -> bool:
        """Take in the events since the last call; wait so many seconds for one that is urgent.

        It ends after ``TAKING`` seconds, and what is left is taken in by the next call, so that signals and the end of
        the recording are noticed in time.  Returns whether anything was taken.
        """
        if len(self._waiting) < WAITING:
            came = self.events.poll(0 if self._waiting else math.ceil(wait * 1000))
            waiting = sorted([*self._waiting, *came], key=_urgency)
            self._waiting.clear()
            self._waiting.extend(waiting)
        taken = bool(self._waiting)
        end = time.monotonic() + TAKING
        while self._waiting:
            event = self._waiting.popleft()
            try:
                self._take(event)
            except Exception as error:  # noqa: BLE001 - one process's defect costs that process alone
                self.mishaps.defect(error, event.identity)
            if time.monotonic() >= end:
                break
        return taken

    def _take(self, event: Event) -> None:
        if isinstance(event, StackEvent):
            layout = self.table.layout_of(event.identity)
            self.collected.add_stack(event, layout)
            if self.source_files and layout is not None:
                self.source_files.watch(event.identity)
        elif isinstance(event, CodeEvent):
            self.collected.add_code(event, self.table.layout(event.layout))
        elif isinstance(event, ProcessEvent):
            self.table.process_met(event)
            self.native.watch(event.identity)
        elif isinstance(event, ThreadEvent):
            self.collected.add_thread(event.identity, event.tid, event.name)
        elif isinstance(event, MissEvent):
            self.table.code_missed(event)
            if not event.file:
                self.native.watch(event.identity)
        elif isinstance(event, StackCopyEvent):
            self.unfinished.add(event)
        elif isinstance(event, ExitEvent):
            self.table.process_ended(event)


def _urgency(event: Event) -> int:
    """Sorts first what makes the stacks whole that are sampled meanwhile: where code is mapped, then missed pages."""
    return 0 if isinstance(event, ProcessEvent) else 1 if isinstance(event, MissEvent) else 2
