"""The files behind a process's mappings, opened as they are mapped, and its vDSO, which is no file."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import BinaryIO

from pyflame_ebpf.host.guarded_reads import FileStatus, ReadGivenUp
from pyflame_ebpf.host.maps import DELETED, Mapping, parse_maps
from pyflame_ebpf.host.memory import read_memory
from pyflame_ebpf.host.process_directory import PidOrDirectory, directory_of

VDSO = "[vdso]"


def open_mapped_file(process: PidOrDirectory, mapping: Mapping) -> BinaryIO:
    """The very file that is mapped, deleted or not, in whatever mount namespace, or a copy if that may stall.

    Raises OSError, BadElf, ProcessGone, ReadGivenUp.


    /proc/PID/map_files needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.  Without, the path is opened in the process's
    own root.  Either way the inode must be the mapped one, unless the devices differ too: overlayfs and btrfs show
    others in maps than stat does.
    """
    directory, place = directory_of(process), (mapping.device, mapping.inode)
    try:
        file, status = directory.open_regular(_in_map_files(mapping), place)
    except ReadGivenUp:
        raise
    except OSError:
        if mapping.deleted or not mapping.path.startswith("/"):
            raise
        file, status = directory.open_regular(f"root{mapping.path}", place)
    # The mapping may have been replaced since maps was read; a path may lead anywhere.
    if status.st_ino != mapping.inode and (status.st_dev == mapping.device or not mapping.inode):
        file.close()
        raise OSError(errno.ESTALE, "another file is mapped there now", mapping.path)
    return file


def _in_map_files(mapping: Mapping) -> str:
    return f"map_files/{mapping.start:x}-{mapping.end:x}"


def statuses_of(process: PidOrDirectory, mapped: list[Mapping]) -> dict[Mapping, FileStatus]:
    """The stat of the files behind mappings, as far as it can be had at once; of the others opening tells.

    Raises ProcessGone, ProcessDenied, ReadGivenUp.
    """
    found = directory_of(process).statuses([_in_map_files(mapping) for mapping in mapped])
    return {mapping: status for mapping, status in zip(mapped, found, strict=True) if status is not None}


def open_code(process: PidOrDirectory, mapping: Mapping) -> BinaryIO:
    """The file behind a mapping, for the vDSO its memory.  Raises OSError, BadElf, ProcessGone."""
    if mapping.path == VDSO:
        return _file_of_memory(_own_vdso() or read_memory(process, mapping.start, mapping.end - mapping.start))
    return open_mapped_file(process, mapping)


def _file_of_memory(data: bytes) -> BinaryIO:
    handle = os.memfd_create("vdso")
    os.write(handle, data)
    return os.fdopen(handle, "rb", buffering=0)


def _own_vdso() -> bytes:
    """The vDSO as this process has it, empty where it has none.

    The kernel gives the same one to all, but a process can write to its own.
    """
    for mapping in parse_maps(Path("/proc/self/maps").read_bytes()):
        if mapping.path == VDSO:
            return ctypes.string_at(mapping.start, mapping.end - mapping.start)
    return b""


def executable_identity(process: PidOrDirectory, mapped: list[Mapping]) -> tuple[int, int]:
    """(device, inode) of the process's program as its mappings have them, (0, 0) when it is not among them.

    Found by stat, else by path: under overlayfs and btrfs stat shows another device than maps.  Raises ProcessGone,
    ProcessDenied.
    """
    directory = directory_of(process)
    status = directory.status("exe")
    if any((mapping.device, mapping.inode) == (status.st_dev, status.st_ino) for mapping in mapped):
        return status.st_dev, status.st_ino
    path = directory.link("exe").removesuffix(DELETED.decode())
    return next(((mapping.device, mapping.inode) for mapping in mapped if mapping.path == path), (0, 0))
