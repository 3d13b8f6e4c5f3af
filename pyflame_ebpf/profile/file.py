"""A profile as a file: ``profile.json.gz``, from which every output can be made again."""

from __future__ import annotations

import gzip
import json
from typing import Any, BinaryIO

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.profile import columns as checked
from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.file_layout import FORMAT, VERSION
from pyflame_ebpf.profile.file_reader import profile_of
from pyflame_ebpf.profile.file_writer import document_of
from pyflame_ebpf.profile.json_text import parsed, unpacked
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.profile.size_limits import check_size

_VERSION_MAX = 1 << 31  # a larger number is no version


class UnusableProfileError(PyflameError):
    """A saved profile that cannot be read back."""

    exit_code = 18


def save_profile(profile: Profile, stream: BinaryIO) -> None:
    """Write the profile as compressed JSON; equal profiles give equal bytes."""
    text = json.dumps(document_of(profile), separators=(",", ":"), sort_keys=True)
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
        packed.write(text.encode("ascii"))


def load_profile(stream: BinaryIO, name: str = "profile.json.gz") -> Profile:
    """Read a profile back; ``name`` is what errors call the file.  Raises UnusableProfileError."""
    try:
        profile = profile_of(_described(parsed(unpacked(stream))))
        check_size(profile)
    except _NewerVersionError as error:
        raise UnusableProfileError(
            f"{name} was written by a newer pyflame-ebpf (profile format {error.version}; this one reads {VERSION}).",
            "Upgrade pyflame-ebpf on this machine, or make the report where the recording was made.",
        ) from error
    except WrongContentError as error:
        raise UnusableProfileError(
            f"{name} is not a profile that can be read: {error}.",
            "Give the directory that `pyflame-ebpf record` wrote, or its profile.json.gz, copied whole.",
        ) from error
    return profile


class _NewerVersionError(Exception):
    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


def _described(document: dict[str, Any]) -> dict[str, Any]:
    """The document, if it is of this format and of a version that is known."""
    if document.get("format") != FORMAT:
        raise WrongContentError(f'it does not say that it is a "{FORMAT}"')
    version = checked.integer(document.get("version"), 1, _VERSION_MAX)
    if version > VERSION:
        raise _NewerVersionError(version)
    return document
