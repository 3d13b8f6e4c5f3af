"""The process that does reads which may hang, one after the other, as it is asked over a socket.

It imports nothing but what it needs, so that a new one starts within some milliseconds.  A request is (operation of
``read_operations``, arguments) and an answer (error number, value), both marshalled behind their length; a directory
comes with the request, and the descriptor of a file goes with the answer.
"""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import signal
import socket
import struct
from pathlib import Path

from pyflame_ebpf.host.confinement import keep_only
from pyflame_ebpf.host.read_operations import OPERATIONS, WITH_FILE

LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
# What a worker keeps: CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE, before which
# there was CAP_SYS_ADMIN (include/uapi/linux/capability.h).
_KEPT, _CHECKPOINT_RESTORE, _SYS_ADMIN = (2, 6, 7, 19, 40), 40, 21
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")


def _serve(asked: socket.socket) -> None:
    """Answers requests until nobody asks any more."""
    asked.sendall(LENGTH.pack(0))  # ready
    while True:
        head, handles, _, _ = socket.recv_fds(asked, LENGTH.size, 1, socket.MSG_CMSG_CLOEXEC)
        if len(head) < LENGTH.size:
            return
        operation, arguments = marshal.loads(_exactly(asked, LENGTH.unpack(head)[0]))  # noqa: S302 - our own process
        sent: list[int] = []
        try:
            value = OPERATIONS[operation](handles[0] if handles else None, *arguments)
            if operation in WITH_FILE:
                handle, value = value
                sent = [handle] if handle >= 0 else []
            answer = marshal.dumps((0, value))
        except (OSError, OverflowError, ValueError, MemoryError) as error:
            number = getattr(error, "errno", None) or errno.EINVAL
            answer = marshal.dumps((number, getattr(error, "strerror", None) or str(error)))
        socket.send_fds(asked, [LENGTH.pack(len(answer))], sent)
        asked.sendall(answer)
        for handle in (*handles, *sent):
            os.close(handle)


def _exactly(asked: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = asked.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _rights() -> int:
    """A bit for each capability that reads need."""
    try:
        stands_for_it = int(_LAST_CAPABILITY.read_bytes()) < _CHECKPOINT_RESTORE
    except OSError:
        stands_for_it = False
    return sum(1 << bit for bit in (*_KEPT, *([_SYS_ADMIN] if stands_for_it else ())))


def main(descriptor: int) -> None:
    """Serves the socket that a descriptor is; ends with the process that asked for it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    keep_only(_rights())
    with socket.socket(fileno=descriptor) as asked:
        _serve(asked)
