"""``top``: the live view of a recording that goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group
from rich.region import Region

from pyflame_ebpf.commands.background_save import BackgroundSave, SaveOutcome
from pyflame_ebpf.commands.defect_report import save_defect_report
from pyflame_ebpf.commands.host_checks import check_force, check_host, give_up_rights_of_set_up
from pyflame_ebpf.commands.keyboard import Keyboard
from pyflame_ebpf.commands.record import default_directory
from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.commands.targets import RunningProcesses, Targets, WholeHost
from pyflame_ebpf.commands.terminal import say, say_waiting, warn
from pyflame_ebpf.commands.top_screen import Situation, screen
from pyflame_ebpf.errors import Interrupted, PyflameError, UsageError
from pyflame_ebpf.host.cpus import online_cpus
from pyflame_ebpf.host.guarded_reads import guarded
from pyflame_ebpf.live.totals import LiveTotals
from pyflame_ebpf.live.view import Action, Shown, ViewState, pressed
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.recording.named_segments import NamedSegments
from pyflame_ebpf.recording.recorder import POLL, SOON, Progress, RecordOptions, prepared
from pyflame_ebpf.recording.segment_cutter import SegmentPlan
from pyflame_ebpf.stacks.profile_builder import SegmentNaming
from pyflame_ebpf.stacks.segments import Segment
from pyflame_ebpf.tracking.mishaps import Mishaps

PLAN = SegmentPlan(length=1.0, kept=64 << 20)
NAME = 0.02  # seconds between two steps of the recorder that may go into naming the last second's samples
_SMALLEST = 20, 8  # columns and lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A live view as the command line asks for it.

    ``interval`` is in seconds between two looks, ``duration`` in seconds, ``pids`` () for all processes.
    """

    pids: tuple[int, ...] = ()
    duration: float | None = None
    interval: float = 1.0
    frequency: int = 99
    force: bool = False
    wait: bool = False
    arguments: tuple[str, ...] = ()


class ViewedRecorder(Protocol):
    """A recorder as the view needs it: ``Recorder``."""

    @property
    def elapsed(self) -> float:
        """Seconds since the first tick."""

    @property
    def kept(self) -> tuple[float, float]:
        """Where what ``profile_so_far`` has begins and ends, in seconds of the recording."""

    def step(self, wait: float, /) -> Segment | None:
        """Take in what is new.  Returns a segment if one has ended."""

    def begin_naming(self, segment: Segment, /) -> SegmentNaming:
        """The naming of a segment."""

    def progress(self) -> Progress:
        """Where the recording stands."""

    def profile_so_far(self) -> Profile:
        """The profile of what is kept, in a forked copy of this process."""


def top(request: Request) -> None:
    """Show what runs until a key, a signal or the duration ends it.

    Raises PyflameError, also for the last saving that failed.
    """
    check_force(request.frequency, request.force)
    check_terminal()
    check_host(request.frequency)
    targets: RunningProcesses | WholeHost = RunningProcesses(request.pids) if request.pids else WholeHost()
    options = RecordOptions(
        frequency=request.frequency,
        duration=request.duration,
        pids=targets.pids,
        arguments=request.arguments,
        wait=say_waiting if request.wait else None,
    )
    warnings: list[str] = []
    with (
        guarded(),
        StopSignals() as signals,
        targets,
        contextlib.ExitStack() as urgency,
        prepared(options, urgency, PLAN, Mishaps(warnings.append, save_defect_report)) as recorder,
        contextlib.closing(recorder),
    ):
        recorder.start()
        signals.note_only()
        give_up_rights_of_set_up()
        targets.sampling_began()
        view = LiveScreen(request, recorder, targets)
        view.run(signals)
    for warning in warnings:  # not over the screen
        warn(warning)
    _tell_savings(view.saved)


def _tell_savings(saved: list[SaveOutcome]) -> None:
    """Tell how each saving ended.  Raises the error of the last one, which was to hold what the others hold."""
    for outcome in saved:
        if outcome.failure is not None and outcome is saved[-1]:
            raise outcome.failure
        say(outcome.message)


def check_terminal() -> None:
    """Raises UsageError if there is no terminal to draw on or to take keys from."""
    streams = (sys.stdin, sys.stdout)
    if any(stream is None or not stream.isatty() for stream in streams) or os.environ.get("TERM") in ("dumb", "", None):
        raise UsageError(
            "top needs a terminal that it can draw on, for its keys as well",
            "Without one, record: pyflame-ebpf record --all --duration 60; over ssh, ssh -t gives a terminal.",
        )


def _kept(recorder: ViewedRecorder) -> str:
    """The length of the part of the view that a saving has, "" if it has all."""
    begin, end = recorder.kept
    minutes, seconds = divmod(int(end - begin), 60)
    return f" (the last {minutes}:{seconds:02})" if begin else ""


@contextlib.contextmanager
def _whole_screen() -> Iterator[Console]:
    """A console on the terminal's second screen; the first screen comes back whatever happens."""
    console = Console(force_terminal=True)
    with console.screen():
        yield console


class LiveScreen:
    """The view while it runs.  ``saved`` has the outcome of each saving."""

    def __init__(self, request: Request, recorder: ViewedRecorder, targets: Targets) -> None:
        self.saved: list[SaveOutcome] = []
        self._request = request
        self._recorder = recorder
        self._targets = targets
        self._state = ViewState()
        self._totals = self._showing = LiveTotals()
        self._names = NamedSegments(recorder.begin_naming, PLAN.length - POLL)
        self._profiles: list[Profile] = []  # of the segments of an interval that is not full yet
        self._situation = self._look_around()
        self._shown = Shown()
        self._drawn_size = (0, 0)
        self._stale = True
        self._ended = False
        self._save: BackgroundSave | None = None

    def run(self, signals: StopSignals) -> None:
        """Sample, show and obey until it is to end, or its terminal is gone."""
        try:
            self._run(signals)
        except OSError as error:
            if error.errno != errno.EIO:  # as a terminal that is gone answers
                raise
        if self._save is not None:
            self._wait_for(self._save, signals)

    def _wait_for(self, save: BackgroundSave, signals: StopSignals) -> None:
        """Wait until it is saved.  Raises Interrupted if another signal comes first; then the saving goes on."""
        say(f"still saving to {save.path}")
        try:
            with signals.raising(len(signals.noted)):
                outcome = save.outcome(None)
        except Interrupted as error:
            for earlier in self.saved:
                say(earlier.message)
            raise Interrupted(error.signal_number, f"not waited for: the saving to {save.path} goes on") from error
        if outcome is not None:
            self.saved.append(outcome)

    def _run(self, signals: StopSignals) -> None:
        with Keyboard() as keyboard, _whole_screen() as console:
            while not (signals.noted or self._is_over()) and self._obey(keyboard):
                self._draw(console)
                segment = self._recorder.step(SOON if self._names.under_way else POLL)
                if segment is not None:
                    self._names.add(segment)
                self._take_in()

    def _is_over(self) -> bool:
        return self._request.duration is not None and self._recorder.elapsed >= self._request.duration

    # ---- what is sampled ----

    def _take_in(self) -> None:
        """Show what was sampled once an interval is full, how a saving ended, and the end of the targets."""
        profile = self._names.name(NAME)
        if profile is not None:
            self._profiles.append(profile)
            if sum(each.recording.duration for each in self._profiles) >= self._request.interval - POLL:
                self._totals.add(self._profiles)
                self._profiles = []
                self._refresh()
        if self._save is not None and (outcome := self._save.outcome()) is not None:
            self._save = None
            self.saved.append(outcome)
            self._tell(outcome.message)
        if not self._ended and self._targets.have_ended():
            self._ended = True
            self._tell(self._targets.ending)

    def _refresh(self) -> None:
        if not self._state.paused:
            self._showing = self._totals
            self._situation = self._look_around()
            self._stale = True

    def _look_around(self) -> Situation:
        return Situation(
            self._targets.text,
            platform.node(),
            self._request.frequency,
            len(online_cpus()),
            self._recorder.progress(),
        )

    def _tell(self, message: str) -> None:
        self._state = replace(self._state, message=message)
        self._stale = True

    # ---- keys ----

    def _obey(self, keyboard: Keyboard) -> bool:
        """Do what the keys ask for.  Returns whether to go on."""
        for key in keyboard.pressed():
            self._stale = True
            was_paused = self._state.paused
            self._state, action = pressed(self._state, key, self._shown, default_directory(time.time()))
            if action is Action.QUIT:
                return False
            if action is Action.SAVE:
                self._begin_save()
            elif action is Action.RESET:
                self._totals.reset()
            if self._state.paused != was_paused:
                self._showing = self._totals.frozen()
                self._refresh()
        return True

    def _begin_save(self) -> None:
        path, self._state = Path(self._state.typed or ""), replace(self._state, typed=None)
        if self._save is not None:
            self._tell(f"still saving to {self._save.path}")
            return
        if not self._recorder.progress().samples:
            self._tell("there is nothing to save yet")
            return
        try:
            self._save = BackgroundSave(path, self._recorder.profile_so_far)
        except PyflameError as error:
            self.saved.append(SaveOutcome(error.message, error))
            self._tell(error.message)
        else:
            self._tell(f"saving to {path}{_kept(self._recorder)} …")

    # ---- the screen ----

    def _draw(self, console: Console) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        if not self._stale and size == self._drawn_size:
            return
        width, height = max(size.columns, _SMALLEST[0]), max(size.lines, _SMALLEST[1])
        drawn = screen(self._state, self._showing, self._situation, width, height)
        console.update_screen(Group(*drawn.lines), region=Region(0, 0, width, height))
        self._shown, self._drawn_size, self._stale = drawn.shown, size, False
