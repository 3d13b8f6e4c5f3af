"""Writing the outputs of a profile, so that a full disk or an impatient user loses no recording."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pyflame_ebpf.commands.pattern_time import limited_matching
from pyflame_ebpf.errors import Interrupted, PyflameError, UsageError
from pyflame_ebpf.host.output_directory import OutputDirectory, OutputUnwritable, save_elsewhere, write_error
from pyflame_ebpf.outputs.formats import ALIASES, OUTPUT_FORMATS
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.profile.selection import WHOLE_RECORDING, Selection


class NothingSampled(PyflameError):
    """No sample is in the part of the recording that was to be shown."""

    exit_code = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of a profile that outputs show, and how they show it; the saved profile is always whole."""

    selection: Selection = WHOLE_RECORDING
    options: OutputOptions = DEFAULT_OPTIONS

    def of(self, profile: Profile) -> Profile:
        """Return the part of the profile that is shown.  Raises UsageError if its patterns take too long."""
        with limited_matching() if self.selection.processes else contextlib.nullcontext():
            return self.selection.of(profile)

    def check_shown(self, profile: Profile) -> None:
        """Raises NothingSampled if the profile has samples and none of them is shown."""
        if not profile.total or self.of(profile).total:
            return
        if self.selection == Selection(python=True):
            raise NothingSampled(
                f"no Python process used the CPU; the {profile.total:,} samples are of others",
                "Leave out --python to see them.",
            )
        raise NothingSampled(
            f"none of the {profile.total:,} samples of {profile.recording.duration:.1f} s is in what was selected",
            "Widen --from and --to, leave out --python or --process, or see which processes there are: "
            "'pyflame-ebpf report DIR'.",
        )


def format_name(name: str) -> str:
    """Return the key in OUTPUT_FORMATS for a format's name or alias.  Raises UsageError."""
    found = ALIASES.get(name, name)
    if found not in OUTPUT_FORMATS:
        raise UsageError(f"there is no format {name!r}", f"Formats are: {', '.join(OUTPUT_FORMATS)}.")
    return found


def format_writer(name: str, profile: Profile, view: View) -> Callable[[BinaryIO], None]:
    """Return a function that writes the format to a stream."""
    shown = profile if name == "profile" else view.of(profile)
    return lambda stream: OUTPUT_FORMATS[name].write(shown, stream, view.options)


def saved_elsewhere(profile: Profile, error: PyflameError) -> PyflameError:
    """Save the profile in another directory.  Returns the error with that place, and with the command that uses it."""
    path = save_elsewhere(format_writer("profile", profile, View()), ".profile.json.gz")
    if path is None:
        return type(error)(f"{error.message}; no other place had room, the recording is lost", error.hint)
    report = shlex.join(["pyflame-ebpf", "report", str(path), "--output"])
    return type(error)(
        f"{error.message}; the recording is saved in {path}", f"Make its outputs from that: {report} DIR"
    )


@dataclass(slots=True)
class Written:
    """The paths that were written, and the first error; None without one."""

    paths: list[Path]
    failure: Exception | None = None


def write_recorded(
    directory: OutputDirectory,
    profile: Profile,
    view: View,
    hurry: AbstractContextManager[None] | None = None,
    further: Sequence[str] = (),
) -> Written:
    """Write the profile first, then all other outputs of a recording and the ``further`` formats.

    ``hurry`` is entered once the profile is saved, and may raise Interrupted to leave out the rest.  Raises Interrupted
    with the place of the profile; errors of writing are in the result.
    """
    wanted = {format_name(name) for name in further}
    formats = {each.name: each.file_name for each in OUTPUT_FORMATS.values() if each.recorded or each.name in wanted}
    file_name = formats.pop("profile")
    try:
        written = Written([directory.write(file_name, format_writer("profile", profile, view))])
    except PyflameError as error:
        return Written([], saved_elsewhere(profile, error))
    try:
        with hurry or contextlib.nullcontext():
            for name, file_name in formats.items():
                _write_one(directory, file_name, format_writer(name, profile, view), written)
    except Interrupted as error:
        _see_place(directory, profile, written)
        if not written.paths:
            raise written.failure or error from error
        raise Interrupted(
            error.signal_number,
            f"interrupted while writing; the recording is saved in {written.paths[0]}",
            f"Make all outputs from that: pyflame-ebpf report {shlex.quote(str(written.paths[0]))} --output DIR",
        ) from error
    _see_place(directory, profile, written)
    return written


def _see_place(directory: OutputDirectory, profile: Profile, written: Written) -> None:
    """Correct the paths, and note the failure, where the directory was moved or removed since it was made."""
    try:
        directory.confirm()
    except PyflameError as error:
        place = directory.place()
        if place is None:
            written.paths, written.failure = [], saved_elsewhere(profile, error)
        else:
            written.paths = [place / path.name for path in written.paths]
            written.failure = error


def _write_one(directory: OutputDirectory, file_name: str, write: Callable[[BinaryIO], None], written: Written) -> None:
    try:
        written.paths.append(directory.write(file_name, write))
    except PyflameError as error:
        report = f"pyflame-ebpf report {shlex.quote(str(written.paths[0]))} --output DIR"
        written.failure = written.failure or type(error)(
            f"{error.message}; the recording is saved in {written.paths[0]}",
            f"Make all outputs from that, where there is room: {report}",
        )
    except Exception as error:  # noqa: BLE001 - a defect of one format costs that format alone
        written.failure = written.failure or error


def check_standard_output() -> None:
    """Raises OutputUnwritable if standard output is closed."""
    if sys.stdout is None:
        raise OutputUnwritable("standard output is closed", "Give --output a directory.")


def write_to_standard_output(write: Callable[[BinaryIO], None]) -> None:
    """Write to standard output.  Raises DiskFull, OutputUnwritable, and BrokenPipeError when the reader has gone."""
    check_standard_output()
    try:
        # A stream of its own: after a failed write to sys.stdout the interpreter tries that again at its exit.
        with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
            write(stream)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise write_error("standard output", error) from error


def print_table(profile: Profile, *, on_stderr: bool = False) -> None:
    """Print the table of processes and the closing line."""
    from rich.console import Console  # noqa: PLC0415 - not before the first sample

    from pyflame_ebpf.outputs.terminal_table import print_process_table  # noqa: PLC0415 - not before the first sample

    stream = sys.stderr if on_stderr else sys.stdout
    if stream is None:
        return
    print_process_table(profile, Console(file=stream, width=None if stream.isatty() else 120))
    stream.flush()
