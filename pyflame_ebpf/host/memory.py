"""The memory of other processes."""

from __future__ import annotations

import ctypes
import errno
import os

from pyflame_ebpf.host.process_directory import PidOrDirectory, ProcessDirectory, ProcessGone, directory_of

_MEMORY_MAX = 64 << 20  # bytes of one read


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_process_vm_readv = _libc.process_vm_readv
_process_vm_readv.restype = ctypes.c_ssize_t
_process_vm_readv.argtypes = (
    ctypes.c_int,
    ctypes.POINTER(_IoVector),
    ctypes.c_ulong,
    ctypes.POINTER(_IoVector),
    ctypes.c_ulong,
    ctypes.c_ulong,
)


def read_memory(process: PidOrDirectory, address: int, size: int) -> bytes:
    """Exactly ``size`` bytes of a process's memory.  Raises OSError when not all can be read, ProcessGone."""
    if not 0 <= size <= _MEMORY_MAX or not 0 <= address < 1 << 64:
        raise OSError(errno.EINVAL, f"{size} bytes at {address:#x} cannot be asked for")
    directory = directory_of(process)
    buffer = ctypes.create_string_buffer(size)
    local = _IoVector(ctypes.addressof(buffer), size)
    remote = _IoVector(address, size)
    done = _process_vm_readv(directory.pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    number = 0 if done == size else ctypes.get_errno() if done < 0 else errno.EFAULT
    if number == errno.ESRCH:
        raise ProcessGone(directory.pid)
    directory.confirm()  # the call takes a PID: it read this process if this process still has it
    if not number:
        return buffer.raw
    if number in (errno.EPERM, errno.ENOSYS):  # a seccomp filter of a container; /proc may still be open to us
        return _read_memory_file(directory, address, size)
    raise OSError(number, f"{size} bytes at {address:#x} of process {directory.pid}: {os.strerror(number)}")


def _read_memory_file(directory: ProcessDirectory, address: int, size: int) -> bytes:
    handle = directory.open("mem")
    try:
        data = os.pread(handle, size, address)
    except OverflowError as error:
        raise OSError(errno.EFAULT, f"no memory of a process is at {address:#x}") from error
    finally:
        os.close(handle)
    if len(data) != size:
        raise OSError(errno.EFAULT, f"{size} bytes at {address:#x} of process {directory.pid} cannot be read")
    return data
