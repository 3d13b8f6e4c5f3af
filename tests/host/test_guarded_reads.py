"""Reads that may hang: deadlines, what is given up, and how many workers may be stuck."""

from __future__ import annotations

import errno
import marshal
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pyflame_ebpf.host import guarded_reads
from pyflame_ebpf.host.guarded_reads import (
    DEATHS_MAX,
    LEAST_PATIENCE,
    OF_ONE_USER_MAX,
    PATIENCE,
    STUCK_MAX,
    WAITED_MAX,
    GuardedReads,
    ReadGivenUp,
    Subject,
    guarded,
)
from pyflame_ebpf.host.process_directory import ProcessDirectory
from pyflame_ebpf.host.worker_process import WorkerProcess

HANGS, DIES = "hangs", "dies"


class FakeWorker:
    """Answers with the name of what it is asked for, hangs or dies."""

    patience: ClassVar[list[float]] = []
    ends = True  # whether it can be killed
    started = 0

    def __init__(self) -> None:
        FakeWorker.started += 1

    def ask(self, request: bytes, _directory: int | None, patience: float) -> tuple[bytes, int]:
        operation, _arguments = marshal.loads(request)
        if operation == HANGS:
            FakeWorker.patience.append(patience)
            raise TimeoutError
        if operation == DIES:
            raise EOFError
        return marshal.dumps((0, operation)), -1

    def kill(self) -> None:
        """Nothing can end it before the test."""

    def has_ended(self) -> bool:
        return FakeWorker.ends


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> GuardedReads:
    monkeypatch.setattr(FakeWorker, "patience", [])
    monkeypatch.setattr(FakeWorker, "ends", True)
    monkeypatch.setattr(FakeWorker, "started", 0)
    return GuardedReads(FakeWorker)


def ask(reads: GuardedReads, operation: str, key: object, user: int = -1) -> Any:
    subject = Subject(str(key), user, f"process {key}")
    return reads.ask(operation, directory=None, subject=lambda: subject, patience=PATIENCE).value


def test_what_does_not_answer_is_given_up_and_named_once_and_all_else_is_read(reads: GuardedReads) -> None:
    assert ask(reads, "memory", 1) == "memory"
    for _ in range(3):
        with pytest.raises(ReadGivenUp, match="given up: reading process 1 did not return"):
            ask(reads, HANGS, 1)
    assert (len(FakeWorker.patience), reads.given_up) == (1, 1)
    assert [ask(reads, "text", 2), FakeWorker.started] == ["text", 2]
    assert [reads.names_given_up(), reads.names_given_up()] == [["process 1"], []]


def test_too_many_stuck_workers_end_all_such_reads_until_one_of_them_ends(reads: GuardedReads) -> None:
    FakeWorker.ends = False
    for key in range(STUCK_MAX):
        with pytest.raises(ReadGivenUp):
            ask(reads, HANGS, key)
    with pytest.raises(ReadGivenUp, match="too many"):
        ask(reads, "memory", "another")
    assert FakeWorker.started == STUCK_MAX
    FakeWorker.ends = True
    assert ask(reads, "memory", "another") == "memory"


def test_workers_that_die_are_replaced_up_to_a_limit(reads: GuardedReads) -> None:
    for key in range(DEATHS_MAX):
        with pytest.raises(OSError, match="has ended"):
            ask(reads, DIES, key)
    with pytest.raises(ReadGivenUp, match="too many"):
        ask(reads, "memory", 1)
    assert (FakeWorker.started, reads.given_up) == (DEATHS_MAX, 0)


def test_a_user_whose_processes_hang_one_after_the_other_is_given_up_and_no_other(reads: GuardedReads) -> None:
    for key in range(OF_ONE_USER_MAX):
        with pytest.raises(ReadGivenUp):
            ask(reads, HANGS, key, 1000)
    with pytest.raises(ReadGivenUp):
        ask(reads, "memory", "another of this user", 1000)
    assert [ask(reads, "memory", "another", user) for user in (0, 1001)] == ["memory", "memory"]


def test_all_that_is_waited_for_in_vain_is_bounded(reads: GuardedReads, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def hang(_worker: FakeWorker, _request: bytes, _directory: int | None, patience: float) -> None:
        FakeWorker.patience.append(patience)
        now[0] += patience
        raise TimeoutError

    monkeypatch.setattr(FakeWorker, "ask", hang)
    for key in range(100):
        with pytest.raises(ReadGivenUp):
            ask(reads, HANGS, key)
    assert FakeWorker.patience[0] == PATIENCE
    assert FakeWorker.patience[-1] == LEAST_PATIENCE
    assert sum(each for each in FakeWorker.patience if each > LEAST_PATIENCE) <= WAITED_MAX


# ---- real workers ----


def a_subject() -> Subject:
    return Subject("this", name="this")


def test_a_worker_that_hangs_is_replaced_and_ends(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # whose opening waits for a writer
    with guarded() as reads:
        with pytest.raises(ReadGivenUp):
            reads.ask("text", str(fifo), 1, directory=None, subject=a_subject, patience=0.05)
        other = Subject("other")
        assert reads.ask("text", "/proc/self/comm", 64, directory=None, subject=lambda: other, patience=1).value
        assert (reads.given_up, reads.names_given_up()) == (1, ["this"])


def test_a_worker_is_asked_by_a_forked_copy_of_this_process_in_its_own() -> None:
    with guarded() as reads:
        directory = ProcessDirectory(os.getpid())
        assert directory.read("cmdline")
        child = os.fork()
        if not child:
            os._exit(0 if directory.read("cmdline") and directory.read("maps") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (directory.read("cmdline") != b"", reads.given_up) == (True, 0)


def test_a_worker_gets_no_descriptor_but_its_socket_and_ends_with_it() -> None:
    worker = WorkerProcess()
    with Path("/proc/self/status").open("rb"):
        answer, _ = worker.ask(marshal.dumps(("text", ("/proc/self/stat", 4096))), None, 5)
    pid = int(marshal.loads(answer)[1].split()[0])
    targets = {str(each.readlink()).partition(":")[0] for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert targets == {"/dev/null", "socket"}
    worker.kill()
    deadline = time.monotonic() + 5
    while not worker.has_ended():
        assert time.monotonic() < deadline


def test_signals_that_end_the_recording_do_not_end_its_reads() -> None:
    with guarded() as reads:
        pid = int(
            reads.ask("text", "/proc/self/stat", 4096, directory=None, subject=a_subject, patience=1).value.split()[0]
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            os.kill(pid, number)
        again = reads.ask("text", "/proc/self/stat", 4096, directory=None, subject=a_subject, patience=1).value
        assert int(again.split()[0]) == pid


def test_answers_are_as_this_process_itself_would_have_them(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    directory = ProcessDirectory.held(os.getpid())
    with guarded():
        opened, status = directory.open_regular(f"root{file}")
        with opened:
            assert opened.read() == b"content"
        assert (status.st_ino, status.st_size) == (file.stat().st_ino, 7)
        assert (directory.status("exe").st_ino, directory.status("exe").st_mtime_ns) == (
            Path("/proc/self/exe").stat().st_ino,
            Path("/proc/self/exe").stat().st_mtime_ns,
        )
        with pytest.raises(FileNotFoundError):
            directory.open_regular(f"root{tmp_path}/none")
    assert isinstance(guarded_reads.reads(), guarded_reads.OwnReads)
    directory.close()


def test_what_lies_where_reading_may_stall_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyflame_ebpf.host import file_systems, read_operations

    file = tmp_path / "file"
    file.write_bytes(b"content")
    status = guarded_reads.FileStatus(*read_operations.status(None, str(file)))
    monkeypatch.setattr(read_operations, "may_stall", lambda _file: True)
    handle, facts = read_operations.opened(None, str(file), [])
    assert (os.pread(handle, 99, 0), guarded_reads.FileStatus(*facts)) == (b"content", status)
    assert os.fstat(handle).st_ino != status.st_ino
    assert read_operations.opened(None, str(file), [facts]) == (-1, facts)
    os.close(handle)
    monkeypatch.setattr(read_operations, "COPY_MAX", 6)
    with pytest.raises(OSError, match="too large") as raised:
        read_operations.opened(None, str(file), [])
    assert raised.value.errno == errno.EFBIG
    assert file_systems.trusted_overlays(b"") == set()
