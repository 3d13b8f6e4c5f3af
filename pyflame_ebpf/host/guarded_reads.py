"""Asks a worker process for reads that may never return, and gives up what does not answer in time.

A recording reads what strangers control: memory that a file system in user space backs, files on a server that is
gone.  Such a read cannot be ended, at times not even by SIGKILL.  So a worker (``read_worker``) does it, and this one
waits for a bounded time only: a worker that does not answer is killed and replaced, and what it was asked about is not
asked again.  Without a worker (``guarded`` was not entered) the same reads are done in this process.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pyflame_ebpf.host import read_operations
from pyflame_ebpf.host.worker_process import WorkerProcess

PATIENCE = 0.2  # seconds for memory and texts of /proc, which take some microseconds
FILE_PATIENCE = 1.0  # seconds for a file, which may have to be copied from a server
LEAST_PATIENCE = 0.05  # seconds; what is left when much was waited for in vain
WAITED_MAX = 2.0  # seconds of patience that a recording has in all for reads that do not return
STUCK_MAX = 4  # workers that do not even end when they are killed; then nothing is read that may hang
DEATHS_MAX = 16  # workers that ended by themselves, as when memory is short; then likewise
OF_ONE_USER_MAX = 8  # processes and files of a user other than root; then no more of that user's are asked for
COPIES_MAX = 256 << 20  # bytes of all files that were copied from file systems that may stall
_UNKNOWN_USER, _ROOT = -1, 0


class FileStatus(NamedTuple):
    """What stat says of a file."""

    st_dev: int
    st_ino: int
    st_mode: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_uid: int


class ReadGivenUp(OSError):
    """A read did not return in time, or was not tried because the same had not returned before."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.ETIMEDOUT, f"given up: reading {what} did not return")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is given up if a read does not return: a ``key`` that no other has, the user behind it, and its name."""

    key: Hashable
    user: int = _UNKNOWN_USER
    name: str = ""


class Answer(NamedTuple):
    """What an operation of ``read_operations`` returned, and the descriptor that came with it, -1 for none."""

    value: Any
    handle: int = -1


class Reads(Protocol):
    """Whoever does reads that may hang."""

    def ask(
        self, operation: str, *arguments: Any, directory: int | None, subject: Callable[[], Subject], patience: float
    ) -> Answer:
        """The result of an operation of ``read_operations``.  Raises OSError, ReadGivenUp."""


class OwnReads:
    """Reads in this process, which waits as long as they take."""

    def ask(
        self, operation: str, *arguments: Any, directory: int | None, subject: Callable[[], Subject], patience: float
    ) -> Answer:
        """The result of an operation.  Raises OSError."""
        del subject, patience
        value = read_operations.OPERATIONS[operation](directory, *arguments)
        if operation in read_operations.WITH_FILE:
            handle, value = value
            return Answer(value, handle)
        return Answer(value)


class Worker(Protocol):
    """A process that reads."""

    def ask(self, request: bytes, directory: int | None, patience: float) -> tuple[bytes, int]:
        """The answer, and the descriptor that came with it.  Raises TimeoutError; OSError, EOFError if it has ended."""

    def kill(self) -> None:
        """Ends it, if anything can."""

    def has_ended(self) -> bool:
        """Whether it is over."""


class GuardedReads:
    """Reads by a worker that is replaced when it hangs.  Not for several threads.

    ``given_up`` counts what did not answer; ``start`` starts a worker.
    """

    def __init__(self, start: Callable[[], Worker] | None = None) -> None:
        self._start = start or WorkerProcess
        self._worker: Worker | None = None
        self._stuck: list[Worker] = []
        self._pid = os.getpid()
        self._given_up: set[Hashable] = set()
        self._by_user: Counter[int] = Counter()
        self._waited = 0.0  # seconds, in vain
        self._deaths = 0  # of workers that nobody has killed
        self._names: list[str] = []

    @property
    def given_up(self) -> int:
        """How many processes and files were given up."""
        return len(self._given_up)

    def names_given_up(self) -> list[str]:
        """The names of what was given up since the last call."""
        names, self._names = self._names, []
        return names

    def ask(
        self, operation: str, *arguments: Any, directory: int | None, subject: Callable[[], Subject], patience: float
    ) -> Answer:
        """The result of an operation of ``read_operations``.  Raises OSError, ReadGivenUp."""
        if self._pid != os.getpid():  # a forked copy, whose requests would be taken for the other's
            self._worker, self._stuck, self._pid = None, [], os.getpid()
        if self._given_up and self._is_given_up(of := subject()):
            raise ReadGivenUp(of.name)
        worker = self._ready_worker()
        began = time.monotonic()
        try:
            answer, handle = worker.ask(marshal.dumps((operation, arguments)), directory, self._bounded(patience))
        except TimeoutError as error:
            self._waited += time.monotonic() - began
            self._abandon(worker)
            raise self._giving_up(subject()) from error
        except (OSError, EOFError) as error:
            self._deaths += 1
            self._abandon(worker)
            raise OSError(errno.EIO, "the process that reads has ended") from error
        number, value = marshal.loads(answer)  # noqa: S302 - from our own process
        if number:
            raise OSError(number, value)
        return Answer(value, handle)

    def begin(self) -> None:
        """Starts a worker, which is not waited for before the first read."""
        with contextlib.suppress(OSError):
            self._ready_worker()

    def _is_given_up(self, subject: Subject) -> bool:
        return subject.key in self._given_up or self._by_user[subject.user] >= OF_ONE_USER_MAX

    def _bounded(self, patience: float) -> float:
        """Half of what is left of all patience, so that it never ends."""
        return max(LEAST_PATIENCE, min(patience, (WAITED_MAX - self._waited) / 2))

    def _giving_up(self, subject: Subject) -> ReadGivenUp:
        self._given_up.add(subject.key)
        if subject.user > _ROOT:
            self._by_user[subject.user] += 1
        self._names.append(subject.name)
        return ReadGivenUp(subject.name)

    def _ready_worker(self) -> Worker:
        if self._worker is None:
            self._stuck = [worker for worker in self._stuck if not worker.has_ended()]
            if len(self._stuck) >= STUCK_MAX or self._deaths >= DEATHS_MAX:
                raise ReadGivenUp("what may hang, since too many reads")
            self._worker = self._start()
        return self._worker

    def _abandon(self, worker: Worker) -> None:
        worker.kill()
        self._stuck.append(worker)
        self._worker = None

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None and self._pid == os.getpid():
            self._abandon(self._worker)
        for worker in self._stuck:
            worker.has_ended()


_reads: Reads = OwnReads()
_copies: dict[tuple[int, ...], int] = {}  # descriptors of files in memory, by the status of what they are copies of


def reads() -> Reads:
    """Whoever reads now what may hang."""
    return _reads


@contextlib.contextmanager
def guarded() -> Iterator[GuardedReads]:
    """Has a worker do what may hang until the end; inside another ``guarded`` nothing changes."""
    global _reads  # noqa: PLW0603 - as the process's own descriptors and signals: there is one of it
    before = _reads
    if isinstance(before, GuardedReads):
        yield before
        return
    _reads = own = GuardedReads()
    own.begin()
    try:
        yield own
    finally:
        _reads = before
        own.close()
        for handle in _copies.values():
            os.close(handle)
        _copies.clear()


def copies() -> list[tuple[int, ...]] | None:
    """The status of each file that was copied, None while this process itself reads, whatever the file system."""
    return list(_copies) if isinstance(_reads, GuardedReads) else None


def file_of(handle: int, status: FileStatus) -> int:
    """A descriptor for the caller to close: the one that came, or for a file that was copied before, the copy's.

    Raises OSError.
    """
    key = tuple(status)
    if handle < 0:
        return os.open(f"/proc/self/fd/{_copies[key]}", os.O_RDONLY | os.O_CLOEXEC)
    if os.fstat(handle).st_ino != status.st_ino or os.fstat(handle).st_dev != status.st_dev:  # a copy
        if sum(size for _, _, _, size, *_ in _copies) + status.st_size > COPIES_MAX:
            os.close(handle)
            raise OSError(errno.EFBIG, "too much was copied from file systems that may stall")
        _copies[key] = os.dup(handle)
    return handle
