"""The memory of other processes."""

from __future__ import annotations

import errno
import os

from pyflame_ebpf.host.guarded_reads import ReadGivenUp
from pyflame_ebpf.host.process_directory import PidOrDirectory, ProcessGone, directory_of

_MEMORY_MAX = 64 << 20  # bytes of one read


def read_memory(process: PidOrDirectory, address: int, size: int) -> bytes:
    """Exactly ``size`` bytes of a process's memory.

    Raises OSError when not all can be read, ReadGivenUp when that does not return, ProcessGone.
    """
    if not 0 <= size <= _MEMORY_MAX or not 0 <= address < 1 << 64:
        raise OSError(errno.EINVAL, f"{size} bytes at {address:#x} cannot be asked for")
    directory = directory_of(process)
    try:
        data = directory.memory(address, size)
    except ReadGivenUp:
        raise
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise ProcessGone(directory.pid) from error
        directory.confirm()
        place = f"{size} bytes at {address:#x} of process {directory.pid}"
        raise OSError(error.errno, f"{place}: {os.strerror(error.errno or errno.EFAULT)}") from error
    directory.confirm()  # the call takes a PID: it read this process if this process still has it
    return data
