"""The CPU use of each process: computed once, shown as ``processes.csv`` and as the table on the terminal."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO, TypeVar

from pyflame_ebpf.outputs.labelled_stacks import python_files
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.labels import short_files, time_name, visible
from pyflame_ebpf.profile.model import (
    Clock,
    FrameKind,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    Recording,
    SampleKey,
)

# What spreadsheets take for the beginning of a formula, the full-width forms included.
_FORMULA_STARTS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")


@dataclass(frozen=True, slots=True)
class HotLine:
    """The line that was executing most often in the innermost Python frame of a process, and its samples."""

    file: str
    short_file: str
    line: int
    function: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process, or several processes summed up (``pid`` is None).

    Of ``samples``, ``truncated`` miss Python frames, ``native_cut_short`` miss native frames towards the root, and
    ``kernel_samples`` interrupted the kernel.  ``gil_known`` tell whether the thread held the GIL; ``gil_held`` held
    it.  ``cpu_percent`` is of one core over the whole recording.  ``scheduler_cpu`` is in seconds, None if unknown.
    """

    pid: int | None
    name: str
    command: str
    interpreter: str
    samples: int
    truncated: int
    native_cut_short: int
    kernel_samples: int
    gil_known: int
    gil_held: int
    cpu_percent: float
    hot_line: HotLine | None
    scheduler_cpu: float | None

    @property
    def kernel_percent(self) -> float:
        """Share of the samples that interrupted the kernel."""
        return _percent(self.kernel_samples, self.samples)

    @property
    def user_percent(self) -> float:
        """Share of the samples that interrupted user code."""
        return _percent(self.samples - self.kernel_samples, self.samples)

    @property
    def gil_percent(self) -> float | None:
        """Share of samples with the GIL held, among the samples that can tell; None if none can."""
        return _percent(self.gil_held, self.gil_known) if self.gil_known else None


def process_rows(profile: Profile) -> list[ProcessRow]:
    """One row for each sampled process, most samples first."""
    files = short_files(python_files(profile))
    places = _innermost_python(profile)
    return [
        _row(profile, process, samples, _hot_line(samples, places, files)) for process, samples in profile.by_process()
    ]


def summed_row(rows: Sequence[ProcessRow], name: str = "total") -> ProcessRow:
    """The processes of the rows as one, without a hottest line."""
    charged = [row.scheduler_cpu for row in rows if row.scheduler_cpu is not None]
    return ProcessRow(
        pid=None,
        name=name,
        command="",
        interpreter="",
        samples=sum(row.samples for row in rows),
        truncated=sum(row.truncated for row in rows),
        native_cut_short=sum(row.native_cut_short for row in rows),
        kernel_samples=sum(row.kernel_samples for row in rows),
        gil_known=sum(row.gil_known for row in rows),
        gil_held=sum(row.gil_held for row in rows),
        cpu_percent=sum(row.cpu_percent for row in rows),
        hot_line=None,
        scheduler_cpu=sum(charged) if charged else None,
    )


def _row(profile: Profile, process: Process, samples: Counter[SampleKey], hot_line: HotLine | None) -> ProcessRow:
    total = sum(samples.values())
    duration = profile.recording.duration
    return ProcessRow(
        pid=process.pid,
        name=process.name,
        command=process.command or process.name,
        interpreter=process.interpreter,
        samples=total,
        truncated=_count(samples, lambda key: key.outcome.truncated),
        native_cut_short=_count(samples, lambda key: key.native.cut_short),
        kernel_samples=_count(samples, lambda key: key.kernel_mode),
        gil_known=_count(samples, lambda key: key.gil is not Gil.UNKNOWN),
        gil_held=_count(samples, lambda key: key.gil is Gil.HELD),
        cpu_percent=100 * profile.unit.seconds(total) / duration if duration > 0 else 0.0,
        hot_line=hot_line,
        scheduler_cpu=process.scheduler_cpu,
    )


def _count(samples: Counter[SampleKey], wanted: Callable[[SampleKey], bool]) -> int:
    return sum(count for key, count in samples.items() if wanted(key))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


_Place = tuple[str, int, str]  # file, line, function


def _innermost_python(profile: Profile) -> list[_Place | None]:
    """The line that executes in the innermost Python frame of each stack, None where a stack has no such frame."""
    places = [
        (frame.file, frame.line or frame.first_line, frame.name) if frame.kind is FrameKind.PYTHON else None
        for frame in profile.frames
    ]
    return [next(filter(None, [places[number] for number in reversed(stack)]), None) for stack in profile.stacks]


def _hot_line(samples: Counter[SampleKey], places: list[_Place | None], files: dict[str, str]) -> HotLine | None:
    by_place: Counter[_Place] = Counter()
    for key, count in samples.items():
        place = places[key.stack]
        if place is not None:
            by_place[place] += count
    if not by_place:
        return None
    file, line, function = hottest = min(by_place, key=lambda place: (-by_place[place], place))
    return HotLine(file, files[file], line, function, by_place[hottest])


def closing_line(profile: Profile) -> str:
    """All samples by outcome, lost samples, native stacks, and the CPU time beside what the scheduler charged."""
    outcomes = profile.outcomes()
    truncated = {outcome: outcomes[outcome] for outcome in Outcome if outcome.truncated and outcomes[outcome]}
    parts = [
        f"{outcomes[Outcome.COMPLETE]:,} complete",
        f"{sum(truncated.values()):,} truncated{_by_reason(truncated)}",
        f"{outcomes[Outcome.NOT_PYTHON]:,} not Python",
    ]
    if outcomes[Outcome.STACK_LOST]:
        parts.append(f"{outcomes[Outcome.STACK_LOST]:,} without a stack")
    parts.append(f"{profile.recording.lost:,} lost{_of_whole(profile.recording)}")
    noun = "sample" if profile.total == 1 else "samples"
    return "; ".join(
        [
            f"{profile.total:,} {noun}: {', '.join(parts)}",
            *_native_clause(profile.native_outcomes()),
            *_kernel_clause(profile),
            *_cost_clauses(profile.recording.counters),
            *([_cpu_clause(profile)] if profile.unit.per_second else []),
            *_mishaps(profile.recording),
        ]
    )


def _mishaps(recording: Recording) -> Iterator[str]:
    """What went wrong for single processes; nothing if all went well."""
    if given_up := recording.counters.get("reads_given_up", 0):
        yield f"{given_up:,} given up: reading did not return"
    if defects := recording.counters.get("defects", 0):
        yield f"{defects:,} {'defect' if defects == 1 else 'defects'} in pyflame-ebpf, which may cost names"
    if files := recording.counters.get("files_over_budget", 0):
        yield f"{files:,} {'file' if files == 1 else 'files'} over budget: stacks may end in them"
    if tables := recording.counters.get("line_tables_given_up", 0):
        yield f"{tables:,} line tables given up for lack of room"
    if codes := recording.counters.get("codes_given_up", 0):
        yield f"{codes:,} code objects given up for lack of room"


def _of_whole(recording: Recording) -> str:
    """For a part of a recording, the samples of the whole recording, of which the lost ones are told."""
    return f" of the whole recording's {recording.part_of:,}" if recording.part_of and recording.lost else ""


_ADDRESS = re.compile("0x[0-9a-f]{1,16}")
_Reason = TypeVar("_Reason", Outcome, NativeOutcome)


def _by_reason(counts: Mapping[_Reason, int]) -> str:
    """The reasons in brackets, the most frequent first; nothing for none."""
    reasons = sorted(counts.items(), key=lambda item: -item[1])
    return f" ({', '.join(f'{count:,} {reason.value}' for reason, count in reasons)})" if reasons else ""


def _native_clause(outcomes: Counter[NativeOutcome]) -> Iterator[str]:
    """The native stacks that reach their roots and those cut short; nothing if none were walked."""
    cut_short = {outcome: outcomes[outcome] for outcome in NativeOutcome if outcome.cut_short and outcomes[outcome]}
    whole = outcomes[NativeOutcome.COMPLETE]
    if whole or cut_short:
        yield f"native stacks: {whole:,} whole, {sum(cut_short.values()):,} cut short{_by_reason(cut_short)}"


def _kernel_clause(profile: Profile) -> Iterator[str]:
    """Why kernel frames are numbers, if there are some and all are."""
    names = {frame.name for frame in profile.frames if frame.kind is FrameKind.KERNEL}
    if names and all(map(_ADDRESS.fullmatch, names)):
        yield "kernel functions unnamed, as kernel.kptr_restrict hides their addresses"


def _cost_clauses(counters: Mapping[str, int]) -> Iterator[str]:
    """That stacks were walked for some of the samples only, and that children were not followed; nothing if neither."""
    samples, walked = counters.get("samples", 0), counters.get("stacks_walked", 0)
    if 0 < walked < samples:
        yield f"rate lowered to bound the cost: {walked:,} stacks were walked, and stand for {samples:,} samples"
    if not_followed := counters.get("targets_full", 0):
        yield f"{not_followed:,} child {'process' if not_followed == 1 else 'processes'} not followed: too many at once"


def _cpu_clause(profile: Profile) -> str:
    unit = profile.unit
    accounted = f"they account for {unit.seconds(profile.total):,.1f} s of {time_name(unit.clock)}"
    if unit.clock is not Clock.CPU:
        return accounted
    if profile.recording.scheduler_cpu is not None:
        return f"{accounted}, the scheduler charged {profile.recording.scheduler_cpu:,.1f} s"
    charged = [profile.processes[index].scheduler_cpu for index in {key.process for key in profile.samples}]
    known = [cpu for cpu in charged if cpu is not None]
    if not known:
        return accounted
    whose = "these processes" if len(known) == len(charged) else f"{len(known):,} of {len(charged):,} processes"
    return f"{accounted}, the scheduler charged {whose} {sum(known):,.1f} s"


_COLUMNS = (
    "pid",
    "name",
    "command",
    "interpreter",
    "samples",
    "truncated_samples",
    "native_cut_short_samples",
    "cpu_percent",
    "user_percent",
    "kernel_percent",
    "gil_held_percent",
    "hottest_file",
    "hottest_line",
    "hottest_function",
    "hottest_samples",
    "scheduler_cpu_seconds",
)


def write_processes_csv(profile: Profile, stream: TextIO, options: OutputOptions = DEFAULT_OPTIONS) -> None:
    """Write the rows as comma-separated values, then a row named ``total``; unknown values are empty."""
    del options  # nothing in this file depends on them
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    rows = process_rows(profile)
    writer.writerows(_cells(row) for row in [*rows, summed_row(rows)])


def _cells(row: ProcessRow) -> list[str | int]:
    hot = row.hot_line
    return [
        row.pid or "",
        spreadsheet_text(row.name),
        spreadsheet_text(row.command),
        spreadsheet_text(row.interpreter),
        row.samples,
        row.truncated,
        row.native_cut_short,
        f"{row.cpu_percent:.2f}",
        f"{row.user_percent:.2f}",
        f"{row.kernel_percent:.2f}",
        "" if row.gil_percent is None else f"{row.gil_percent:.2f}",
        spreadsheet_text(hot.file) if hot else "",
        hot.line if hot else "",
        spreadsheet_text(hot.function) if hot else "",
        hot.samples if hot else "",
        "" if row.scheduler_cpu is None else f"{row.scheduler_cpu:.3f}",
    ]


def spreadsheet_text(text: str) -> str:
    """The text on one line, with an apostrophe first if a spreadsheet would take it for a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip()[:1] in _FORMULA_STARTS and shown.strip() else shown
