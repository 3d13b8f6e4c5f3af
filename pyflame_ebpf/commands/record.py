"""``record``: check the host, sample, write the outputs."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyflame_ebpf.commands.defect_report import save_defect_report
from pyflame_ebpf.commands.host_checks import check_force, check_host, give_up_rights_of_set_up, say_what_is_lacking
from pyflame_ebpf.commands.progress_line import ProgressLine
from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.commands.targets import RunningProcesses, StartedProgram, Targets, WholeHost
from pyflame_ebpf.commands.terminal import say, say_waiting, warn
from pyflame_ebpf.commands.written_outputs import (
    NothingSampled,
    View,
    check_standard_output,
    format_name,
    format_writer,
    print_table,
    saved_elsewhere,
    write_recorded,
    write_to_standard_output,
)
from pyflame_ebpf.errors import PyflameError, UsageError
from pyflame_ebpf.host.guarded_reads import guarded
from pyflame_ebpf.host.output_directory import OutputDirectory
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.recording import recorder
from pyflame_ebpf.tracking.mishaps import Mishaps

STANDARD_OUTPUT = "-"
_STDERR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of one recording; ``output`` None means a new directory named after the time."""

    everything: bool
    pids: tuple[int, ...]
    command: tuple[str, ...]
    duration: float | None
    frequency: int
    output: str | None
    view: View
    arguments: tuple[str, ...] = ()
    source: bool = False
    force: bool = False
    wait: bool = False
    formats: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises UsageError unless there is exactly one kind of target, and frequency, formats, range are possible."""
        check_force(self.frequency, self.force)
        self.view.selection.check()
        for name in self.formats:
            format_name(name)
        if self.output == STANDARD_OUTPUT and len(self.formats) > 1:
            raise UsageError("only one format can go to standard output", "Give --output a directory.")
        if self.duration is not None and self.view.selection.begin >= self.duration:
            raise UsageError(f"the recording is to last {self.duration:g} s only", "Give an earlier --from.")
        kinds = [self.everything, bool(self.pids), bool(self.command)]
        if sum(kinds) != 1:
            said = "none of them is given" if not any(kinds) else "more than one of them is given"
            raise UsageError(
                f"record takes one of --all, --pid PID and -- COMMAND; {said}",
                "For the whole host: pyflame-ebpf record --all --duration 60",
            )


def default_directory(now: float) -> str:
    """Return the default name of the output directory; ``now`` is in seconds since the epoch."""
    return time.strftime("pyflame-%Y%m%dT%H%M%SZ", time.gmtime(now))


def record(request: Request) -> None:
    """Record, and write everything.  Raises PyflameError, and Interrupted for a signal before the first tick."""
    request.check()
    check_host(request.frequency)
    say_what_is_lacking()
    with guarded(), StopSignals() as signals, _destination(request) as directory, _targets(request) as targets:
        profile, defect = _sample(request, targets, signals, directory)
        try:
            _write(profile, request, directory, signals)
        finally:
            targets.recording_ended(signals)
        if defect is not None:
            raise defect
        _check_sampled(profile, request.view)


def _destination(request: Request) -> contextlib.AbstractContextManager[OutputDirectory | None]:
    if request.output == STANDARD_OUTPUT:
        check_standard_output()
        return contextlib.nullcontext()
    return OutputDirectory(Path(request.output) if request.output else _unused(default_directory(time.time())))


def _unused(name: str) -> Path:
    """Return the path of this name, numbered if another recording began in the same second."""
    candidates = (Path(f"{name}-{number}" if number else name) for number in itertools.count())
    return next(path for path in candidates if not os.path.lexists(path))


def _targets(request: Request) -> contextlib.AbstractContextManager[Targets]:
    if request.command:
        return StartedProgram(request.command, _STDERR if request.output == STANDARD_OUTPUT else None)
    return RunningProcesses(request.pids) if request.pids else WholeHost()


def _sample(
    request: Request, targets: Targets, signals: StopSignals, directory: OutputDirectory | None
) -> tuple[Profile, BaseException | None]:
    """Record.  Returns the profile, and the defect that broke the recording off; None without one."""
    line = ProgressLine()
    options = recorder.RecordOptions(
        frequency=request.frequency,
        duration=request.duration,
        pids=targets.pids,
        follow_children=bool(request.command),
        kernel=request.view.options.kernel,
        native=request.view.options.native,
        arguments=request.arguments,
        source=request.source,
        wait=say_waiting if request.wait else None,
    )

    def sampling_began() -> None:
        signals.note_only()
        give_up_rights_of_set_up()
        say(_announcement(request, targets, directory))
        targets.sampling_began()

    try:
        mishaps = Mishaps(warn, save_defect_report)
        return recorder.record(options, _stop(signals, targets, line), line.show, sampling_began, mishaps), None
    except recorder.BrokenOff as broken:
        return broken.profile, broken.__cause__
    finally:
        line.clear()


def _stop(signals: StopSignals, targets: Targets, line: ProgressLine) -> Callable[[], bool]:
    """Return the function that says whether to end the recording; it prints the reason once."""

    def stop() -> bool:
        if signals.noted:
            return True
        if not targets.have_ended():
            return False
        line.clear()
        say(f"{targets.ending}; so does the recording")
        return True

    return stop


def _announcement(request: Request, targets: Targets, directory: OutputDirectory | None) -> str:
    until = "until Ctrl-C" if request.duration is None else f"for {request.duration:g} s; Ctrl-C ends it"
    where = "standard output" if directory is None else str(directory.path)
    return f"recording {targets.text} at {request.frequency} Hz {until}; output: {where}"


def _write(profile: Profile, request: Request, directory: OutputDirectory | None, signals: StopSignals) -> None:
    view = request.view
    if directory is None:
        _write_alone(profile, view, request.formats)
        return
    # A further signal, after the one that ended the recording: the user waits for the profile and no longer.
    written = write_recorded(directory, profile, view, signals.raising(min(len(signals.noted), 1)), request.formats)
    print_table(view.of(profile))
    for path in written.paths:
        print(path)  # noqa: T201 - the output of the command
    if written.failure is not None:
        raise written.failure


def _write_alone(profile: Profile, view: View, formats: tuple[str, ...]) -> None:
    """Write one format to standard output; folded stacks by default."""
    try:
        write_to_standard_output(format_writer(format_name((*formats, "folded")[0]), profile, view))
    except PyflameError as error:
        raise saved_elsewhere(profile, error) from error
    finally:
        print_table(view.of(profile), on_stderr=True)


def _check_sampled(profile: Profile, view: View) -> None:
    view.check_shown(profile)
    if not profile.total:
        raise NothingSampled(
            f"nothing was sampled in {profile.recording.duration:.1f} s: what was recorded used no CPU",
            "Only running code is sampled, not waiting. Record for longer, or while there is work to do.",
        )
