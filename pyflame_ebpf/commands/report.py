"""``report``: make every output again from a saved profile, without root."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pyflame_ebpf.commands.written_outputs import (
    View,
    format_name,
    format_writer,
    print_table,
    write_recorded,
    write_to_standard_output,
)
from pyflame_ebpf.errors import UsageError
from pyflame_ebpf.host.output_directory import OutputDirectory, write_new_file
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.profile.file import UnusableProfileError, load_profile
from pyflame_ebpf.profile.folded_file import load_folded
from pyflame_ebpf.profile.model import Profile

STANDARD_OUTPUT = "-"
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of one report; ``source`` is a file, or the directory of a recording."""

    source: Path
    format: str | None
    output: str | None
    view: View


def report(request: Request) -> None:
    """Make the outputs.  Raises UnusableProfileError, UsageError, NothingSampled and the errors of writing."""
    request.view.selection.check()
    name = _format(request)
    profile = load(request.source)
    request.view.check_shown(profile)
    if name is None and request.output is None:
        print_table(request.view.of(profile))
    elif name is None:
        _write_directory(profile, request)
    elif request.output in (None, STANDARD_OUTPUT):
        write_to_standard_output(format_writer(name, profile, request.view))
    else:
        write_new_file(Path(str(request.output)), format_writer(name, profile, request.view))


def _format(request: Request) -> str | None:
    if request.format is None:
        if request.output == STANDARD_OUTPUT:
            raise UsageError("which output is to go to standard output?", "Say it: --format folded --output -")
        return None
    return format_name(request.format)


def _write_directory(profile: Profile, request: Request) -> None:
    with OutputDirectory(Path(str(request.output))) as directory:
        written = write_recorded(directory, profile, request.view)
        for path in written.paths:
            print(path)  # noqa: T201 - the output of the command
        if written.failure is not None:
            raise written.failure


def load(source: Path) -> Profile:
    """Load a profile: an output directory's, a saved file, or folded stacks.  Raises UnusableProfileError."""
    path = source / OUTPUT_FORMATS["profile"].file_name if source.is_dir() else source
    try:
        with _open(path) as stream:
            is_packed = stream.peek(2)[:2] == _GZIP
            return load_profile(stream, str(path)) if is_packed else load_folded(stream, str(path))
    except OSError as error:
        raise UnusableProfileError(
            f"{path} cannot be read: {error.strerror or error}",
            "Give the directory that 'pyflame-ebpf record' wrote, its profile.json.gz, or folded stacks.",
        ) from error


def _open(path: Path) -> io.BufferedReader:
    """Open a regular file; O_NONBLOCK, since a named pipe would wait for its writer.  Raises UnusableProfileError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnusableProfileError(f"{path} is not a regular file", "Give a saved profile.json.gz or folded stacks.")
    return os.fdopen(descriptor, "rb")
