"""One recording from start to end: samples, watches processes, and hands out what was sampled in segments."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pyflame_ebpf import __version__
from pyflame_ebpf.host.cpus import host_cpu_seconds, online_cpus
from pyflame_ebpf.host.open_files import allow_open_files
from pyflame_ebpf.host.proc import process_stat
from pyflame_ebpf.host.process_directory import ProcessGone
from pyflame_ebpf.profile.model import Profile, Recording
from pyflame_ebpf.recording.cost_watch import SHARE, Costs, CostWatch, resident_memory
from pyflame_ebpf.recording.host_lock import only_one_profiler
from pyflame_ebpf.recording.intake import Intake
from pyflame_ebpf.recording.priority import urgent
from pyflame_ebpf.recording.profiles import NameSources, SegmentProfiles, lost
from pyflame_ebpf.recording.segment_cutter import WHOLE, SegmentPlan, Segments
from pyflame_ebpf.sampling.counts import SETTLING
from pyflame_ebpf.sampling.sampler import Sampler, SamplerOptions
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.profile_builder import SegmentNaming
from pyflame_ebpf.stacks.segments import Segment
from pyflame_ebpf.stacks.unfinished_stacks import UnfinishedStacks
from pyflame_ebpf.symbols.kallsyms import KernelSymbols
from pyflame_ebpf.tracking.mishaps import OF_ALL, Mishaps
from pyflame_ebpf.tracking.native_frames import NativeFrames
from pyflame_ebpf.tracking.source_files import SourceFiles
from pyflame_ebpf.tracking.tracked_processes import ProcessTable

POLL = 0.1  # seconds that a step waits at most
SOON = 0.01  # seconds that it waits while there is work to be done
FINISH = 0.03  # seconds of a step that may go into stacks that the programs could not walk to the root
TAKE_LAST = 0.5  # seconds for the records that are left at the end of the recording
FINISH_LAST = 1.0  # seconds for stacks that could not be walked to the root, at the end of the recording


class BrokenOff(Exception):
    """A defect, the ``__cause__``, broke the recording off; ``profile`` has what was sampled until then."""

    def __init__(self, profile: Profile) -> None:
        super().__init__("the recording broke off")
        self.profile = profile


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What to record: ``frequency`` in samples per second and CPU, ``duration`` in seconds, None: until stopped.

    With ``pids`` only these processes are sampled; ``follow_children`` adds the processes that they start.
    ``source`` takes the sampled functions' source text along.  With ``wait`` another profiler's end is waited for, and
    ``wait`` is called once with who that is.
    """

    frequency: int = 99
    duration: float | None = None
    pids: tuple[int, ...] = ()
    follow_children: bool = False
    kernel: bool = True
    native: bool = True
    arguments: tuple[str, ...] = ()
    source: bool = False
    wait: Callable[[str], None] | None = None

    @property
    def whole_host(self) -> bool:
        """Whether every process is sampled."""
        return not self.pids


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a recording stands: ``elapsed`` in seconds, the rest in numbers of samples or processes."""

    elapsed: float
    samples: int
    processes: int
    python_processes: int
    lost: int


class Clock(Protocol):
    """The clocks of the host, in seconds."""

    def monotonic(self) -> float:
        """Seconds since any moment."""

    def time(self) -> float:
        """Seconds since the epoch, UTC."""


class Recorder:
    """A recording under way.  Call ``start``, then ``step`` until done, then ``finish``.

    ``let_go`` is called in a forked copy of this process, and releases what the copy shares with the recording.
    """

    def __init__(  # noqa: PLR0913 - the last two are for forked copies and tests
        self,
        options: RecordOptions,
        sampler: Sampler,
        plan: SegmentPlan = WHOLE,
        *,
        let_go: Callable[[], None] = lambda: None,
        mishaps: Mishaps | None = None,
        clock: Clock = time,
    ) -> None:
        self._options = options
        self._plan = plan
        self._sampler = sampler
        self._let_go = let_go
        self._clock = clock
        self._mishaps = mishaps or Mishaps()
        self._costs = CostWatch(options.frequency, len(online_cpus()))
        self._cpu = 0.0  # seconds that the steps took
        self._table = table = ProcessTable(sampler.maps, self._mishaps)
        self._names = names = NameSources(
            table=table,
            native=NativeFrames(table, live=plan.named_meanwhile),
            kernel=KernelSymbols(),
            source_files=SourceFiles(table.directories.of) if options.source else None,
            mishaps=self._mishaps,
        )
        self._collected = collected = Collected(table.read_memory, plan.kept, self._mishaps)
        self._unfinished = UnfinishedStacks(table.rows_of, collected.finish_stack, table.without_copies, self._mishaps)
        self._intake = Intake(
            events=sampler,
            table=table,
            native=names.native,
            collected=collected,
            unfinished=self._unfinished,
            source_files=names.source_files,
            mishaps=self._mishaps,
        )
        self._profiles = SegmentProfiles(collected, names, self._describe)
        stores = (collected, self._profiles, names.native, self._unfinished, table, sampler.maps)
        self._segments = Segments(plan, collected, sampler, table.ended, stores)
        self._started = self._started_at = 0.0
        self._host_cpu = 0.0
        self._duration: float | None = None

    def start(self) -> None:
        """Take stock of the host and begin to sample."""
        self._table.scan()
        for pid in self._options.pids:
            with contextlib.suppress(ProcessGone):  # there is nothing of it to sample
                self._sampler.maps.add_target(pid, process_stat(pid).start_ticks)
        if self._plan.named_meanwhile:
            self._names.kernel.lookup(0)  # reads them all, while nothing waits for it
        self._host_cpu = host_cpu_seconds()
        self._started_at = self._clock.time()
        self._started = self._clock.monotonic()
        self._sampler.start(self._options.duration)

    @property
    def elapsed(self) -> float:
        """Seconds since the first tick."""
        return self._clock.monotonic() - self._started

    def step(self, wait: float = POLL) -> Segment | None:
        """Wait for news, at most so many seconds, and take them in.  Returns a segment if one has ended."""
        cpu = time.thread_time()
        segment = self._step(wait)
        self._cpu += time.thread_time() - cpu
        return segment

    def _step(self, wait: float) -> Segment | None:
        if self._unfinished.finish(FINISH):
            wait = min(wait, SOON)
        wait = min(wait, self._segments.until_due(self.elapsed))
        if self._options.duration is not None:
            wait = min(wait, max(0.0, self._options.duration - self.elapsed))
        if (due := self._table.next_look()) is not None:
            wait = min(wait, max(0.0, due - self._clock.monotonic()))
        self._intake.take(wait)
        self._table.look_again(self._clock.monotonic())
        self._collected.settle()
        if not self._segments.advance(self.elapsed):
            return None
        self._mishaps.look()
        self._sampler.attach_new_cpus()
        self._bound_costs()
        return self._segments.next()

    def _bound_costs(self) -> None:
        """Slow the clock down if the recording costs more than it may."""
        costs = Costs(elapsed=self.elapsed, cpu=self._cpu, memory=resident_memory())
        if self._costs.look(costs, self._sampler.counters()):
            self._sampler.tick_for(self._costs.ticks)

    def _describe(self, begin: float, duration: float) -> Recording:
        """The circumstances of a part of the recording."""
        return Recording(
            started=self._started_at + begin,
            duration=duration,
            frequency=self._options.frequency,
            cpus=len(online_cpus()),
            host=platform.node(),
            kernel=platform.release(),
            arguments=self._options.arguments,
            profiler_version=__version__,
            counters=dict(self._costs.lowered),
        )

    def begin_naming(self, segment: Segment) -> SegmentNaming:
        """The naming of a segment that was just handed out, to be done a little at a time."""
        return self._profiles.begin(segment)

    def progress(self) -> Progress:
        """Where the recording stands."""
        met, python = self._table.counts()
        return Progress(self.elapsed, self._collected.samples, met, python, lost(self._sampler.counters()))

    # ---- the end ----

    def stop(self) -> None:
        """End the sampling."""
        if self._duration is None:
            planned = self._options.duration
            self._duration = self.elapsed if planned is None else min(self.elapsed, planned)
            self._sampler.stop()
            self._host_cpu = host_cpu_seconds() - self._host_cpu

    def end(self) -> Segment:
        """End the sampling and take in what is left.  Returns the last segment."""
        self.stop()
        for last in (self._table.finish, self._settle, lambda: self._unfinished.finish_all(FINISH_LAST)):
            try:
                last()
            except Exception as error:  # noqa: BLE001, PERF203 - what was sampled is wanted all the same
                self._mishaps.defect(error, OF_ALL)
        return self._segments.drain_last(self._duration or 0.0)

    def _settle(self) -> None:
        """Take in what the last ticks send, until their counts can be taken."""
        settled = self._clock.monotonic() + SETTLING
        while (left := settled - self._clock.monotonic()) > 0:
            self._intake.take(left)
        over = self._clock.monotonic() + TAKE_LAST
        while self._intake.take(0) and self._clock.monotonic() < over:
            pass

    def finish(self) -> Profile:
        """End the recording.  Returns the profile of all that is kept."""
        self.end()
        try:
            return self._profiles.profile(self._segments.kept, self._host_cpu if self._options.whole_host else None)
        finally:
            self.close()

    def close(self) -> None:
        """Close what names and source text are taken from; also for a recording whose profile nobody wants."""
        self._names.close()

    @property
    def kept(self) -> tuple[float, float]:
        """Where what ``profile_so_far`` has begins and ends, in seconds of the recording."""
        segments = self._segments.kept
        return segments[0].begin, segments[-1].end

    def profile_so_far(self) -> Profile:
        """The profile of what was taken so far and is kept.  Only for a forked copy of this process.

        It names everything anew, which takes long, and changes nothing that the copy shares with the recording.  The
        recording may end meanwhile, and another one begin.
        """
        self._let_go()
        return self._profiles.anew().profile(self._segments.kept)


def record(
    options: RecordOptions,
    stop: Callable[[], bool],
    progress: Callable[[Progress], None],
    ready: Callable[[], None],
    mishaps: Mishaps | None = None,
) -> Profile:
    """Record until the duration is over or ``stop()`` is true; ``ready`` is called once sampling has begun.

    Raises BrokenOff with what was sampled until then if a defect ends the recording.
    """
    with contextlib.ExitStack() as urgency, prepared(options, urgency, mishaps=mishaps) as recorder:
        recorder.start()
        ready()
        try:
            _step_until_over(recorder, options.duration, stop, progress)
        except Exception as error:
            raise BrokenOff(recorder.finish()) from error
        recorder.stop()
        urgency.close()
        return recorder.finish()


@contextlib.contextmanager
def prepared(
    options: RecordOptions,
    urgency: contextlib.ExitStack,
    plan: SegmentPlan = WHOLE,
    mishaps: Mishaps | None = None,
) -> Iterator[Recorder]:
    """A recorder that is yet to be started, with the programs loaded.

    This process comes before others until ``urgency`` is closed.  Raises AlreadyRecording, LockUnusable, BccMissing,
    LoadFailed.
    """
    sampler_options = SamplerOptions(
        frequency=options.frequency,
        kernel=options.kernel,
        native=options.native,
        targets_only=not options.whole_host,
        follow_children=options.follow_children,
        share=SHARE,
    )
    allow_open_files()
    with only_one_profiler(options.wait) as lock:
        urgency.enter_context(urgent(with_session=options.whole_host))
        with Sampler(sampler_options) as sampler:

            def let_go() -> None:
                lock.close()  # not unlocked, which would be for the recording too
                sampler.let_go()

            yield Recorder(options, sampler, plan, let_go=let_go, mishaps=mishaps)


def _step_until_over(
    recorder: Recorder, duration: float | None, stop: Callable[[], bool], progress: Callable[[Progress], None]
) -> None:
    shown = 0.0
    while not stop() and (duration is None or recorder.elapsed < duration):
        recorder.step()
        if recorder.elapsed - shown >= 1:
            shown = recorder.elapsed
            progress(recorder.progress())
