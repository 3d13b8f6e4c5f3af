"""The process that runs ``read_worker``, as it is seen from the process that asks it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pyflame_ebpf.host import read_worker
from pyflame_ebpf.host.process_stat import parse_stat

_START_PATIENCE = 5.0  # seconds until a new worker is ready; 0.05 are usual
_BUSY_HOST, _BUSY_HOST_TURNS = 0.1, 5  # more seconds, times so many, for a worker that is ready to run and gets no CPU
_NICENESS = -10  # as the recording: the worker is waited for
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # they end the recording, not its reads
_ANSWER_PATIENCE = 1.0  # seconds for the rest of an answer of which the beginning is there
_PACKAGE = Path(__file__).parents[1]
_PROGRAM = """
import sys
sys.path.append(sys.argv[1])  # behind the standard library, which nothing beside the package may replace
from pyflame_ebpf.host.read_worker import main
main(int(sys.argv[2]))
"""


class WorkerProcess:
    """A process that runs ``read_worker``.  It inherits no descriptor but its end of a socket.  Raises OSError."""

    def __init__(self) -> None:
        self._socket, end = socket.socketpair()
        self._ready = False
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            # -I -S: nothing of the environment or the current directory decides what is run.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_PACKAGE.parent), str(end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(end.fileno(),),
                cwd="/",
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            end.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)

    def ask(self, request: bytes, directory: int | None, patience: float) -> tuple[bytes, int]:
        """The answer, and the descriptor that came with it.  Raises TimeoutError; OSError, EOFError if it has ended."""
        if not self._ready:
            self._await_start()
        handles = [] if directory is None else [directory]
        socket.send_fds(self._socket, [read_worker.LENGTH.pack(len(request))], handles)
        self._socket.sendall(request)
        self._wait(patience)
        flags = socket.MSG_CMSG_CLOEXEC
        head, received, _, _ = socket.recv_fds(self._socket, read_worker.LENGTH.size, 1, flags)
        handle = received[0] if received else -1
        try:
            return self._exactly(_size(head), _ANSWER_PATIENCE), handle
        except BaseException:
            if handle >= 0:
                os.close(handle)
            raise

    def _await_start(self) -> None:
        """Waits until it is ready.  Raises EOFError: that it is not, is the fault of nothing that it is asked for."""
        try:
            self._exactly(read_worker.LENGTH.size, _START_PATIENCE)
        except TimeoutError as error:
            raise EOFError from error
        self._ready = True

    def _exactly(self, size: int, patience: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            self._wait(patience)
            part = self._socket.recv(size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _wait(self, patience: float) -> None:
        """Waits for news.  A worker that only gets no CPU has some times the patience.  Raises TimeoutError."""
        readable = select.poll()  # select() takes no descriptor from 1024 on, and a recording has many files open
        readable.register(self._socket, select.POLLIN)
        for _ in range(_BUSY_HOST_TURNS):
            if readable.poll(patience * 1000):
                return
            if not self._is_runnable():
                break
            patience = _BUSY_HOST
        if not readable.poll(0):  # answered a moment ago, or while this process was stopped
            raise TimeoutError

    def _is_runnable(self) -> bool:
        try:
            return parse_stat(Path(f"/proc/{self._process.pid}/stat").read_bytes()).state == "R"
        except (OSError, IndexError):
            return False

    def kill(self) -> None:
        """Ends it, if anything can."""
        self._socket.close()
        self._process.kill()

    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None


def _size(head: bytes) -> int:
    """The length in front of an answer.  Raises EOFError."""
    if len(head) < read_worker.LENGTH.size:
        raise EOFError
    return int(read_worker.LENGTH.unpack(head)[0])
