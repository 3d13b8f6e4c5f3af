"""One recording from start to end: samples, watches processes, and hands out the Profile."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TextIO

from pyflame_ebpf import __version__
from pyflame_ebpf.host.cpus import host_cpu_seconds, online_cpus
from pyflame_ebpf.host.open_files import allow_open_files
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, FrameKind, Process, Profile, Recording
from pyflame_ebpf.profile.source_text import ReadFile, sampled_sources
from pyflame_ebpf.recording.host_lock import only_one_profiler
from pyflame_ebpf.recording.priority import urgent
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
from pyflame_ebpf.sampling.sampler import Sampler, SamplerOptions
from pyflame_ebpf.stacks.profile_builder import Counted, Window
from pyflame_ebpf.stacks.raw_stacks import KEPT_FOR_SAVING
from pyflame_ebpf.stacks.symbolize import Symbolizer
from pyflame_ebpf.stacks.unfinished_stacks import UnfinishedStacks
from pyflame_ebpf.symbols.kallsyms import KernelSymbols
from pyflame_ebpf.tracking.native_frames import NativeFrames
from pyflame_ebpf.tracking.process_table import ProcessTable
from pyflame_ebpf.tracking.source_files import SourceFiles

POLL = 0.1  # seconds between two looks at what is not urgent
SOON = 0.01  # ... while there is work to be done
FINISH = 0.03  # seconds of a step that may go into stacks that the programs could not walk to the root
FINISH_LAST = 2.0  # seconds at the end of the recording
DRAIN = 1.0  # seconds of samples that are counted together
NAME = 0.02  # seconds of a step that may go into naming the last of them for a live view


class BrokenOff(Exception):
    """A defect, the ``__cause__``, broke the recording off; ``profile`` is what there was until then."""

    def __init__(self, profile: Profile) -> None:
        super().__init__("the recording broke off")
        self.profile = profile


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What to record: ``frequency`` in samples per second and CPU, ``duration`` in seconds (None: until stopped).

    With ``pids`` only these processes are sampled; ``follow_children`` adds what they start.
    """

    frequency: int = 99
    duration: float | None = None
    pids: tuple[int, ...] = ()
    follow_children: bool = False
    kernel: bool = True
    native: bool = True
    arguments: tuple[str, ...] = ()
    source: bool = False  # whether the sampled functions' source text is taken along

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


class Recorder:
    """A recording under way.  Call ``start``, then ``step`` until done, then ``finish``."""

    def __init__(
        self, options: RecordOptions, sampler: Sampler, *, live: bool = False, lock: TextIO | None = None
    ) -> None:
        self._options = options
        self._live = live
        self._lock = lock
        self._window: Window | None = None
        self._sampler = sampler
        self._table = ProcessTable(sampler)
        self._native = NativeFrames(self._table, live=live)
        self._kernel_symbols = KernelSymbols()
        self._symbolizer = Symbolizer(
            self._table.read_memory,
            self._native.name,
            self._name_kernel_address,
            self._native.expect,
            KEPT_FOR_SAVING if live else None,
        )
        self._unfinished = UnfinishedStacks(
            self._table.rows_of, self._symbolizer.finish_stack, self._table.without_copies
        )
        self._source_files = SourceFiles(self._table.directories.of) if options.source else None
        self._started = self._started_at = self._drained = 0.0
        self._host_cpu = 0.0
        self._counters_before: tuple[dict[str, int], dict[str, int]] = {}, {}  # ... the two generations that are kept
        self._duration: float | None = None

    def start(self) -> None:
        """Takes stock of the host and begins to sample."""
        self._table.scan()
        for pid in self._options.pids:
            self._sampler.add_target(pid)
        if self._live:
            self._kernel_symbols.lookup(0)  # reads them all, while nothing waits for it
        self._host_cpu = host_cpu_seconds()
        self._started_at = time.time()
        self._started = self._drained = time.monotonic()
        self._sampler.start()

    @property
    def elapsed(self) -> float:
        """Seconds since the first tick."""
        return time.monotonic() - self._started

    def step(self) -> None:
        """Waits for what is new, at most a tenth of a second, and takes it in."""
        now = time.monotonic()
        more = self._unfinished.finish(FINISH) or self._window is not None
        wait = min(SOON if more else POLL, DRAIN - (now - self._started) % DRAIN)
        if (due := self._table.next_look()) is not None:
            wait = min(wait, max(0.0, due - now))
        self._take_events(wait)
        now = time.monotonic()
        self._table.look_again(now)
        self._symbolizer.settle()
        if self._is_drain_due(now):
            self._drain()
            self._sampler.attach_new_cpus()

    def _is_drain_due(self, now: float) -> bool:
        """Whether another second has begun, each of which has its samples, and nobody waits for those of the last."""
        return self._window is None and (now - self._started) // DRAIN > (self._drained - self._started) // DRAIN

    def window(self) -> Profile | None:
        """The samples of the last second, once they are named; None until then.  For a ``live`` recorder."""
        late = time.monotonic() - self._drained >= DRAIN - POLL
        if self._window is None or not (self._window.name(NAME) or late):
            return None
        profile, self._window = self._window.profile(), None
        return profile

    def _take_events(self, wait: float) -> None:
        for event in sorted(self._sampler.poll(math.ceil(wait * 1000)), key=_urgency):
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, StackEvent):
            layout = self._table.layout_of(event.identity)
            self._symbolizer.add_stack(event, layout)
            if self._source_files and layout is not None:
                self._source_files.watch(event.identity)
        elif isinstance(event, CodeEvent):
            self._symbolizer.add_code(event, self._table.layout(event.layout))
        elif isinstance(event, ProcessEvent):
            self._table.process_met(event)
            self._native.watch(event.identity)
        elif isinstance(event, ThreadEvent):
            self._symbolizer.add_thread(event.identity, event.tid, event.name)
        elif isinstance(event, MissEvent):
            self._table.code_missed(event)
            if not event.file:
                self._native.watch(event.identity)
        elif isinstance(event, StackCopyEvent):
            self._unfinished.add(event)
        elif isinstance(event, ExitEvent):
            self._table.process_ended(event)

    def _drain(self) -> None:
        before = self._drained
        second = int(before - self._started)
        if self._duration is not None:  # what was counted last, while it ended
            second = min(second, max(0, math.ceil(self._duration) - 1))
        self._drained = time.monotonic()
        counts = self._symbolizer.add_counts(second, self._sampler.drain_counts())
        if self._live:
            self._make_room(counts)
            self._native.look_again()
            recording = self._recording(before - self._started, self._drained - before)
            self._window = self._symbolizer.window(counts, recording, self._table.profile_processes())

    def _make_room(self, counts: Iterable[Counted]) -> None:
        """Bounds what a live view keeps, which has no end; these samples were the last, of the second before."""
        for stack_id in self._symbolizer.missing(counts):
            self._sampler.forget_stack(stack_id)
        if (kept := self._symbolizer.make_room(int(self._drained - self._started))) is not None:
            over = self._table.ended(kept)
            self._table.forget(over)
            self._symbolizer.forget(over)
            self._native.forget(over)
            self._unfinished.forget(over)
            codes, threads = self._symbolizer.forget_unsampled()
            self._sampler.forget_codes(codes)
            self._sampler.forget_threads(threads)
            self._counters_before = self._counters_before[1], self._counters()

    def progress(self) -> Progress:
        """Where the recording stands."""
        met, python = self._table.counts()
        return Progress(self.elapsed, self._symbolizer.samples, met, python, _lost(self._sampler.counters()))

    def stop(self) -> None:
        """Ends the sampling."""
        if self._duration is None:
            self._duration = self.elapsed
            self._sampler.stop()

    def finish(self) -> Profile:
        """Ends the sampling and makes the profile of all that was sampled."""
        self.stop()
        self._live = False
        host_cpu = host_cpu_seconds() - self._host_cpu
        self._table.finish()
        self._take_events(0)
        self._unfinished.finish_all(FINISH_LAST)
        for _ in range(2):  # both maps of counts
            self._drain()
        try:
            return self._profile(self._duration or 0.0, host_cpu)
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of what names and source text are taken from; also for a recording whose profile nobody wants."""
        self._native.close()
        self._table.close()
        if self._source_files:
            self._source_files.close()

    @property
    def kept(self) -> tuple[float, float]:
        """Where what ``profile_so_far`` has begins and ends, in seconds of the recording."""
        return self._symbolizer.begin, self._drained - self._started

    def profile_so_far(self) -> Profile:
        """The profile of what was sampled until the last drain and is kept.  Only for a forked copy of this process.

        It names everything, which takes long, and changes nothing that the copy shares with the recording.  The host's
        lock and what samples it are let go of first: the recording may end meanwhile, and another begin.
        """
        if self._lock is not None:
            self._lock.close()  # not unlocked, which would be for the recording too
        self._sampler.let_go()
        self._native.begin_anew()
        self._symbolizer.forget_names()
        begin, end = self.kept
        return self._profile(end - begin, None)

    def _profile(self, duration: float, host_cpu: float | None) -> Profile:
        begin = self._symbolizer.begin
        before, _ = self._counters_before
        counters = {name: number - before.get(name, 0) for name, number in self._counters().items()}
        recording = replace(
            self._recording(begin, duration),
            scheduler_cpu=host_cpu if self._options.whole_host else None,
            lost=_lost(counters),
            counters=counters,
        )
        known = self._table.profile_processes()
        if begin:  # the scheduler's figures are of all the time
            known = {identity: replace(process, scheduler_cpu=None) for identity, process in known.items()}
        profile = self._symbolizer.profile(recording, known)
        files = {frame.file for frame in profile.frames}
        profile.build_ids = {file: build_id for file, build_id in self._native.build_ids.items() if file in files}
        if self._source_files:
            profile.sources = sampled_sources(profile, _reader(self._source_files, known))
        return profile

    def _counters(self) -> dict[str, int]:
        """What was counted since the recording began."""
        return self._sampler.counters() | {
            "codes_unnamed": self._symbolizer.unnamed_codes,
            "codes_without_lines": self._symbolizer.codes_without_lines,
        }

    def _recording(self, begin: float, duration: float) -> Recording:
        return Recording(
            started=self._started_at + begin,
            duration=duration,
            frequency=self._options.frequency,
            cpus=len(online_cpus()),
            host=platform.node(),
            kernel=platform.release(),
            arguments=self._options.arguments,
            profiler_version=__version__,
        )

    def _name_kernel_address(self, address: int) -> Frame:
        name, module = self._kernel_symbols.lookup(address) or (f"0x{address:x}", "")
        return Frame(FrameKind.KERNEL, name, module)


def _reader(files: SourceFiles, known: dict[Identity, Process]) -> ReadFile:
    identities = {id(process): identity for identity, process in known.items()}

    def read(process: Process, file: str) -> bytes:
        identity = identities.get(id(process))
        return files.read(identity, file) if identity else b""

    return read


def _urgency(event: Event) -> int:
    """Sorts first what makes stacks whole that are sampled meanwhile: where code is mapped, then rows."""
    return 0 if isinstance(event, ProcessEvent) else 1 if isinstance(event, MissEvent) else 2


def _lost(counters: dict[str, int]) -> int:
    return counters["counts_full"] + counters["tail_calls_failed"]


def record(
    options: RecordOptions, stop: Callable[[], bool], progress: Callable[[Progress], None], ready: Callable[[], None]
) -> Profile:
    """Records until the duration is over or ``stop()``; ``ready`` is called once sampling has begun; BrokenOff."""
    with contextlib.ExitStack() as urgency, prepared(options, urgency) as recorder:
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
def prepared(options: RecordOptions, urgency: contextlib.ExitStack, *, live: bool = False) -> Iterator[Recorder]:
    """A recorder that is yet to be started, with the programs loaded; what hurries it is taken back by ``urgency``."""
    sampler_options = SamplerOptions(
        frequency=options.frequency,
        kernel=options.kernel,
        native=options.native,
        targets_only=not options.whole_host,
        follow_children=options.follow_children,
    )
    allow_open_files()
    with only_one_profiler() as lock:
        urgency.enter_context(urgent(with_session=options.whole_host))
        with Sampler(sampler_options) as sampler:
            yield Recorder(options, sampler, live=live, lock=lock)


def _step_until_over(
    recorder: Recorder, duration: float | None, stop: Callable[[], bool], progress: Callable[[Progress], None]
) -> None:
    shown = 0.0
    while not stop() and (duration is None or recorder.elapsed < duration):
        recorder.step()
        if recorder.elapsed - shown >= 1:
            shown = recorder.elapsed
            progress(recorder.progress())
