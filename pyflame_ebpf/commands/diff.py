"""``diff``: compare two recordings, or two ranges of time of one, without root."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pyflame_ebpf.commands.pattern_time import limited_matching
from pyflame_ebpf.commands.report import STANDARD_OUTPUT, load
from pyflame_ebpf.commands.terminal import warn
from pyflame_ebpf.commands.written_outputs import NothingSampled, write_to_standard_output
from pyflame_ebpf.compare.comparison import Comparison, Measure, Rules, compare, knows_cores
from pyflame_ebpf.errors import UsageError
from pyflame_ebpf.host.output_directory import OutputDirectory, write_new_file
from pyflame_ebpf.outputs.comparison.formats import COMPARISON_FORMATS, DIRECTORY_FORMATS, ComparisonFormat
from pyflame_ebpf.outputs.comparison.options import DEFAULT_COMPARISON_OPTIONS, TABLES, ComparisonOptions
from pyflame_ebpf.outputs.comparison.words import doubts
from pyflame_ebpf.outputs.labelled_stacks import shown_frames
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.profile.selection import WHOLE_RECORDING, Selection

_SIDES = ("before", "after")
_PLAIN_WIDTH = 120  # columns of a table that does not go to a terminal
_TELL_TIMES = "Say them: --duration 60 --frequency 99 (repeat an option where before and after differ)."
_BOTH_RANGES = "Give both ranges: diff DIR --from 0 --to 0:30 --from 0:30 --to 1:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of one comparison; ``after`` None compares two ranges of ``before``.

    ``begin`` and ``end`` (seconds) have no value, one for both sides, or one for each side.  So have ``durations``
    (seconds) and ``frequencies`` (Hz), which folded stacks do not hold themselves.
    """

    before: Path
    after: Path | None
    begin: tuple[float, ...] = ()
    end: tuple[float, ...] = ()
    selection: Selection = WHOLE_RECORDING  # of both sides; its times are not used
    durations: tuple[float, ...] = ()
    frequencies: tuple[float, ...] = ()
    format: str | None = None
    output: str | None = None
    normalize: bool = False
    by_total: bool = False
    options: ComparisonOptions = DEFAULT_COMPARISON_OPTIONS

    def check(self) -> None:
        """Raises UsageError for values that are unknown or do not go together."""
        for name, values in (("--from", self.begin), ("--to", self.end)):
            _side_values(name, values)
        for name, numbers in (("--duration", self.durations), ("--frequency", self.frequencies)):
            _side_values(name, numbers)
        if self.after is None and max(len(self.begin), len(self.end)) < len(_SIDES):
            raise UsageError("there is nothing to compare with: one recording and not two ranges of it", _BOTH_RANGES)
        for selection in self.selections():
            selection.check()
        for table in self.options.by:
            if table not in TABLES:
                raise UsageError(f"there is no table by {table!r}", f"Tables are by {', '.join(TABLES)}.")
        if self.format is not None and self.format not in COMPARISON_FORMATS:
            formats = ", ".join(COMPARISON_FORMATS)
            raise UsageError(f"there is no format {self.format!r} of a comparison", f"Formats are: {formats}.")
        if self.format is None and self.output == STANDARD_OUTPUT:
            raise UsageError("which output is to go to standard output?", "Say it: --format json --output -")

    def selections(self) -> tuple[Selection, Selection]:
        """Return the compared part of each recording: (before, after)."""
        begins, ends = _side_values("--from", self.begin), _side_values("--to", self.end)
        before, after = (
            replace(self.selection, begin=begin or 0.0, end=end) for begin, end in zip(begins, ends, strict=True)
        )
        return before, after


def _side_values(option: str, values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return an option's value for each side; None without one.  Raises UsageError for more than two values."""
    if len(values) > len(_SIDES):
        raise UsageError(f"{option} is given {len(values)} times", "Once for both recordings, or once for each.")
    if not values:
        return None, None
    return values[0], values[-1]


def diff(request: Request) -> None:
    """Compare and write.  Raises UsageError, UnusableProfileError, NothingSampled and the errors of writing."""
    request.check()
    before, after = _parts(request)
    measure = Measure.SHARE if request.normalize else Measure.CORES
    output = request.options.output
    rules = Rules(shown_frames(output), interpreter_apart=output.all_frames, by_total=request.by_total)
    comparison = compare(before, after, measure, rules)
    if request.options.core_hour_price is not None and comparison.total is None:
        raise UsageError("without duration and frequency of both there is no telling what is saved", _TELL_TIMES)
    for doubt in doubts(comparison):
        warn(doubt)
    _write(comparison, request)


def _parts(request: Request) -> tuple[Profile, Profile]:
    """Load the two profiles that are compared."""
    first = load(request.before)
    second = first if request.after is None else load(request.after)
    wholes = _with_times(request, (first, second))
    with limited_matching() if request.selection.processes else contextlib.nullcontext():
        parts = [selection.of(whole) for selection, whole in zip(request.selections(), wholes, strict=True)]
    for name, selection, whole in zip(_SIDES, request.selections(), wholes, strict=True):
        duration = whole.recording.duration
        if selection.begin and selection.begin >= duration:
            raise UsageError(f"the recording {name} ends after {duration:.1f} s", "Give an earlier --from.")
    if not any(part.total for part in parts):
        samples = sum(whole.total for whole in wholes)
        raise NothingSampled(
            f"none of the {samples:,} samples is in what was selected",
            "Widen --from and --to, leave out --python or --process, or see which processes there are: "
            "'pyflame-ebpf report DIR'.",
        )
    return parts[0], parts[1]


def _with_times(request: Request, profiles: tuple[Profile, Profile]) -> list[Profile]:
    """Give profiles without a duration or frequency those of the command line."""
    if (request.durations or request.frequencies) and all(knows_cores(profile) for profile in profiles):
        raise UsageError(
            "both recordings tell their duration and frequency",
            "--duration and --frequency are for folded stacks, which do not.",
        )
    durations = _side_values("--duration", request.durations)
    frequencies = _side_values("--frequency", request.frequencies)
    timed = []
    for profile, duration, frequency in zip(profiles, durations, frequencies, strict=True):
        known = profile.recording
        recording = replace(
            known,
            duration=known.duration or duration or 0.0,
            frequency=known.frequency or round(frequency or 0),
        )
        timed.append(replace(profile, recording=recording))
    return timed


def _write(comparison: Comparison, request: Request) -> None:
    if request.format is None and request.output is None:
        _print(comparison, request.options)
    elif request.format is None:
        _write_directory(comparison, request)
    elif request.output in (None, STANDARD_OUTPUT):
        write_to_standard_output(_writer(request.format, comparison, request.options))
    else:
        write_new_file(Path(str(request.output)), _writer(request.format, comparison, request.options))


def _writer(name: str, comparison: Comparison, options: ComparisonOptions) -> Callable[[BinaryIO], None]:
    return _bound(COMPARISON_FORMATS[name], comparison, options)


def _bound(each: ComparisonFormat, comparison: Comparison, options: ComparisonOptions) -> Callable[[BinaryIO], None]:
    return lambda stream: each.write(comparison, stream, options)


def _write_directory(comparison: Comparison, request: Request) -> None:
    with OutputDirectory(Path(str(request.output))) as directory:
        for each in DIRECTORY_FORMATS:
            path = directory.write(each.file_name, _bound(each, comparison, request.options))
            print(path)  # noqa: T201 - the output of the command
        directory.confirm()


def _print(comparison: Comparison, options: ComparisonOptions) -> None:
    from rich.console import Console  # noqa: PLC0415 - only for what is printed

    from pyflame_ebpf.outputs.comparison.table import print_comparison  # noqa: PLC0415

    if sys.stdout is None:
        return
    print_comparison(comparison, Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH), options)
