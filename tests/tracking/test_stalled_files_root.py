"""Every way in which a process's memory and files are read, while they do not answer."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.interpreter import interpreter_of
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import maps, proc
from pyflame_ebpf.host.guarded_reads import FILE_PATIENCE, GuardedReads, ReadGivenUp, guarded
from pyflame_ebpf.host.mapped_files import open_mapped_file
from pyflame_ebpf.host.process_directory import ProcessDirectory
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.symbols.perf_map import open_perf_map
from pyflame_ebpf.tracking.source_files import SourceFiles
from tests.stalling import Targets

pytestmark = pytest.mark.root

BOUND = 10 * FILE_PATIENCE  # seconds, on a busy host, of what waits for one file


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Targets]:
    with contextlib.ExitStack() as exits:
        yield Targets(tmp_path, exits)


@pytest.fixture
def reads() -> Iterator[GuardedReads]:
    with guarded() as reads:
        proc.command_line(os.getpid())  # the worker has started
        yield reads


def assert_given_up(reads: GuardedReads, read: Callable[[], object], name: str) -> None:
    """A read is given up in time, and the next one at once."""
    began = time.monotonic()
    with pytest.raises((OSError, PyflameError)):
        read()
    assert time.monotonic() - began < BOUND
    assert [name in each for each in reads.names_given_up()] == [True]
    with pytest.raises(ReadGivenUp):
        read()
    assert reads.names_given_up() == []
    assert proc.command_line(os.getpid())


def test_memory(targets: Targets, reads: GuardedReads) -> None:
    pid = targets.start("memory")
    targets.files.stall()
    began = time.monotonic()
    interpreter_of(pid, FileFactsCache())  # whose file says enough for releases before 3.13
    assert time.monotonic() - began < BOUND
    assert reads.names_given_up() == [f"process {pid} (stalling_target)"]
    with pytest.raises(ReadGivenUp):
        maps.mappings(pid)


def test_a_program_that_is_stuck_in_execve(targets: Targets, reads: GuardedReads) -> None:
    pid = targets.start("execution")
    targets.files.stall()
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + 10
    while _answers(pid):  # it has not yet come to closing the file
        assert time.monotonic() < deadline
    reads.names_given_up()
    began = time.monotonic()
    directory = ProcessDirectory(pid)
    for read in (
        lambda: maps.mappings(pid),
        lambda: proc.process_stat(pid),
        lambda: directory.link("exe"),
        lambda: directory.status("ns/mnt"),
        lambda: directory.folder("root"),
    ):
        with pytest.raises(ReadGivenUp):
            read()
    assert time.monotonic() - began < BOUND
    assert (proc.is_alive(pid), reads.given_up) == (True, 1)
    assert proc.user_id(pid) == 0


def _answers(pid: int) -> bool:
    try:
        return bool(maps.mappings(pid))
    except ReadGivenUp:
        return False


@pytest.mark.parametrize(("what", "file"), [("library", "library.so"), ("executable", "program")])
def test_a_mapped_file(targets: Targets, reads: GuardedReads, what: str, file: str) -> None:
    pid = targets.start(what)
    mapping = next(each for each in maps.mappings(pid) if each.path.endswith(f"/{file}") and each.executable)
    targets.files.stall()
    device = f"files of device 0:{os.minor(mapping.device)}, as of process {pid}"
    assert_given_up(reads, lambda: open_mapped_file(pid, mapping), device)
    interpreter_of(pid, FileFactsCache())


def test_a_mapped_file_that_answers_is_copied_and_stays_readable(targets: Targets, reads: GuardedReads) -> None:
    pid = targets.start("library")
    mapping = next(each for each in maps.mappings(pid) if each.path.endswith("/library.so") and each.executable)
    with open_mapped_file(pid, mapping) as copy:
        targets.files.stall()
        assert os.pread(copy.fileno(), 4, 0) == b"\x7fELF"
        assert reads.given_up == 0


def test_a_perf_map(targets: Targets, reads: GuardedReads) -> None:
    pid = targets.start("perf map")
    targets.files.stall()
    assert_given_up(reads, lambda: open_perf_map(pid), "files in '/tmp'")


def test_source_text(targets: Targets, reads: GuardedReads) -> None:
    pid = targets.start("script")
    directory = ProcessDirectory.held(pid)
    files, identity = SourceFiles(lambda _identity: directory), Identity(1, pid, 0)
    files.watch(identity)
    script = f"{targets.mounted}/script.py"
    assert b"work_of_script" in files.read(identity, script)
    targets.files.stall()
    began = time.monotonic()
    assert files.read(identity, f"{targets.mounted}/other.py") == b""
    assert time.monotonic() - began < BOUND
    assert reads.given_up == 1
    files.close()
    directory.close()
