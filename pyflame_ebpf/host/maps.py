"""The lines of /proc/PID/maps: what a process has mapped."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pyflame_ebpf.host.process_directory import PidOrDirectory, directory_of

DELETED = b" (deleted)"
_MAPS_MAX = 64 << 20  # bytes
_PATH_COLUMN = 73  # of a path, where the columns before it are not wider: show_vma_header_prefix, fs/proc/task_mmu.c
# Start, end, execute permission, offset, major and minor number of the device, inode.
_FIELDS = re.compile(
    rb"([0-9a-f]{1,40})-([0-9a-f]{1,40}) ..(.). ([0-9a-f]{1,40}) ([0-9a-f]{1,7}):([0-9a-f]{1,7}) (\d{1,40}) "
)


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps; ``path`` is "" for anonymous memory, ``device`` as st_dev."""

    start: int
    end: int
    offset: int
    executable: bool
    device: int
    inode: int
    path: str
    deleted: bool = False


def parse_maps(text: bytes) -> list[Mapping]:
    """The lines of /proc/PID/maps.  A line that is cut short is left out."""
    return [mapping for line in text.split(b"\n") if (mapping := _parse_mapping(line)) is not None]


def _parse_mapping(line: bytes) -> Mapping | None:
    found = _FIELDS.match(line)
    if found is None:
        return None
    start, end, execute, offset, major, minor, inode = found.groups()
    path = line[max(_PATH_COLUMN, found.end() + 1) :]  # by its place, for it may begin with blanks
    deleted = path.endswith(DELETED)
    if deleted:
        path = path[: -len(DELETED)]
    return Mapping(
        int(start, 16),
        int(end, 16),
        int(offset, 16),
        execute == b"x",
        os.makedev(int(major, 16), int(minor, 16)),
        int(inode),
        os.fsdecode(path.replace(b"\\012", b"\n")),
        deleted,
    )


def mappings(process: PidOrDirectory) -> list[Mapping]:
    """What a process has mapped, by rising address; empty for kernel threads and zombies.

    Raises ProcessGone, ProcessDenied.
    """
    return parse_maps(directory_of(process).read("maps", _MAPS_MAX))
