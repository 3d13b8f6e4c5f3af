"""Segments to profiles: adds to the named samples what is known of the host, the processes and their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, FrameKind, Process, Profile, Recording
from pyflame_ebpf.profile.source_text import ReadFile, sampled_sources
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.naming import FrameNames
from pyflame_ebpf.stacks.profile_builder import SegmentNaming
from pyflame_ebpf.stacks.profile_naming import ProfileNaming
from pyflame_ebpf.stacks.segments import Segment
from pyflame_ebpf.symbols.kallsyms import KernelSymbols
from pyflame_ebpf.tracking.mishaps import OF_ALL, Mishaps
from pyflame_ebpf.tracking.native_frames import NativeFrames
from pyflame_ebpf.tracking.source_files import SourceFiles
from pyflame_ebpf.tracking.tracked_processes import ProcessTable

Describe = Callable[[float, float], Recording]  # (begin, duration) of a part of the recording, in seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class NameSources:
    """Where the names of processes, functions and source lines come from.

    ``source_files`` is None if no source text is wanted.
    """

    table: ProcessTable
    native: NativeFrames
    kernel: KernelSymbols
    source_files: SourceFiles | None = None
    mishaps: Mishaps = field(default_factory=Mishaps)

    def kernel_frame(self, address: int) -> Frame:
        """The kernel's function at an address."""
        name, module = self.kernel.lookup(address) or (f"0x{address:x}", "")
        return Frame(FrameKind.KERNEL, name, module)

    def read_as(self, known: Mapping[Identity, Process]) -> ReadFile:
        """Reads source files as these very processes see them; without ``source_files`` nothing can be read."""
        identities = {id(process): identity for identity, process in known.items()}

        def read(process: Process, file: str) -> bytes:
            identity = identities.get(id(process))
            if not identity or not self.source_files:
                return b""
            try:
                return self.source_files.read(identity, file)
            except Exception as error:  # noqa: BLE001 - one process's defect costs that process alone
                self.mishaps.defect(error, identity)
                return b""

        return read

    def close(self) -> None:
        """Close the files and process directories that names and source text are taken from."""
        self.native.close()
        self.table.close()
        if self.source_files:
            self.source_files.close()


def plain_kernel_frame(address: int) -> Frame:
    """An address of the kernel, without a name."""
    return Frame(FrameKind.KERNEL, f"0x{address:x}")


class SegmentProfiles:
    """Names segments and makes profiles of them.  All that it remembers are names, which can be had again.

    ``describe`` gives the circumstances of a part of the recording.
    """

    def __init__(self, collected: Collected, origin: NameSources, describe: Describe) -> None:
        self._collected = collected
        self._origin = origin
        self._describe = describe
        self._names = FrameNames(collected.codes, origin.native.name, origin.kernel_frame)
        plain = FrameNames(collected.codes, origin.native.place, plain_kernel_frame)
        self._naming = ProfileNaming(collected, self._names, origin.native.expect, origin.mishaps, plain)

    def profile(self, segments: Sequence[Segment], host_cpu: float | None = None) -> Profile:
        """The profile of kept segments that follow each other, all at once.

        ``host_cpu`` is the CPU time in seconds that the scheduler charged to the whole host meanwhile.
        """
        processes = self._processes(segments[0])
        recording = replace(self._recording(segments), scheduler_cpu=host_cpu)
        profile = self._naming.profile(segments, recording, processes)
        mishaps = self._origin.mishaps
        for add in (self._add_build_ids, self._add_sources):
            try:
                add(profile, processes)
            except Exception as error:  # noqa: BLE001, PERF203 - the samples and their names are there
                mishaps.defect(error, OF_ALL)
        mishaps.look()
        profile.recording = replace(profile.recording, counters=profile.recording.counters | mishaps.counters())
        return profile

    def _add_build_ids(self, profile: Profile, _processes: Mapping[Identity, Process]) -> None:
        files = {frame.file for frame in profile.frames}
        profile.build_ids = {
            file: build_id for file, build_id in self._origin.native.build_ids.items() if file in files
        }

    def _add_sources(self, profile: Profile, processes: Mapping[Identity, Process]) -> None:
        if self._origin.source_files:
            profile.sources = sampled_sources(profile, self._origin.read_as(processes))

    def begin(self, segment: Segment) -> SegmentNaming:
        """The naming of a segment that was just handed out, to be done a little at a time."""
        self._origin.native.look_again()
        return self._naming.begin(segment, self._recording([segment]), self._processes(segment))

    def anew(self) -> SegmentProfiles:
        """The same without any names; for a forked copy of this process, which names by all that is known by then."""
        self._origin.native.begin_anew()
        return SegmentProfiles(self._collected, self._origin, self._describe)

    def forget(self, gone: Gone) -> None:
        """Drop the names of what is gone."""
        self._names.forget(gone)

    def _recording(self, segments: Sequence[Segment]) -> Recording:
        begin = segments[0].begin
        counters = _summed(segment.counters for segment in segments)
        described = self._describe(begin, segments[-1].end - begin)
        return replace(described, lost=lost(counters), counters=described.counters | counters)

    def _processes(self, first: Segment) -> dict[Identity, Process]:
        known = self._origin.table.profile_processes()
        if first.begin:  # the scheduler's figures are of all the time
            known = {identity: replace(process, scheduler_cpu=None) for identity, process in known.items()}
        return known


def _summed(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for each in counters:
        totals.update(each)
    return dict(totals)


def lost(counters: Mapping[str, int]) -> int:
    """The samples that the programs took and could not count."""
    return counters.get("counts_full", 0) + counters.get("tail_calls_failed", 0)
