"""Directories in /proc: what is read through one is of its process, and of none that has its PID later."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.host import proc
from pyflame_ebpf.host.mapped_files import executable_identity, open_mapped_file
from pyflame_ebpf.host.maps import mappings
from pyflame_ebpf.host.memory import read_memory
from pyflame_ebpf.host.process_directory import ProcessDenied, ProcessDirectory, ProcessGone
from tests.host.live_children import ended_child, waiting

_WORD = ctypes.create_string_buffer(b"a word")
_ADDRESS = ctypes.addressof(_WORD)

Ask = Callable[[ProcessDirectory], object]
ASKED: list[Ask] = [
    mappings,
    proc.arguments,
    proc.name,
    proc.process_stat,
    proc.thread_ids,
    proc.user_id,
    proc.credentials,
    proc.namespace_pids,
    proc.cpu_seconds,
    lambda directory: read_memory(directory, _ADDRESS, 8),
    lambda directory: executable_identity(directory, []),
    lambda directory: directory.status("exe"),
    lambda directory: directory.link("cwd"),
    lambda directory: os.close(directory.open("root", os.O_PATH | os.O_DIRECTORY)),
    lambda directory: directory.open_regular("exe")[0].close(),
]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with waiting("argument") as process:
        yield process


@contextlib.contextmanager
def held(pid: int) -> Iterator[ProcessDirectory]:
    with contextlib.closing(ProcessDirectory.held(pid)) as directory:
        yield directory


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def this_process(*, start_ticks: int | None = None) -> ProcessDirectory:
    """This process by its PID, as if it were another's by now when the start time says so."""
    return ProcessDirectory(os.getpid(), start_ticks)


def own_start() -> int:
    return proc.process_stat(os.getpid()).start_ticks


@pytest.mark.parametrize("ask", ASKED)
def test_every_question_is_answered_alike_by_a_held_directory_and_by_pid(ask: Ask) -> None:
    by_pid = [this_process(), this_process(start_ticks=own_start())]
    with held(os.getpid()) as directory:
        first, *others = (ask(each) for each in (directory, *by_pid))
    expected = pytest.approx(first, abs=0.1) if ask is proc.cpu_seconds else first
    assert others == [expected, expected]


@pytest.mark.parametrize("ask", ASKED)
def test_a_held_directory_of_a_process_that_has_ended_answers_nothing(ask: Ask) -> None:
    with waiting() as process, held(process.pid) as directory:
        assert directory.exists()
        end(process)
        assert not directory.exists()
        with pytest.raises(ProcessGone) as error:
            ask(directory)
        assert (error.value.pid, error.value.exit_code) == (process.pid, 10)


@pytest.mark.parametrize("ask", ASKED)
def test_a_held_directory_does_not_answer_for_the_next_process_with_its_pid(ask: Ask) -> None:
    with waiting() as process, held(process.pid) as directory:
        end(process)
        directory.pid = os.getpid()  # as if this process had been given the PID
        with pytest.raises(ProcessGone):
            ask(directory)


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("other", [-1, 1])
def test_a_pid_whose_process_started_at_another_time_answers_nothing(ask: Ask, other: int) -> None:
    directory = this_process(start_ticks=own_start() + other)
    assert not directory.exists()
    with pytest.raises(ProcessGone):
        ask(directory)


@pytest.mark.parametrize("ask", ASKED)
def test_a_closed_directory_answers_nothing(ask: Ask) -> None:
    for directory in (ProcessDirectory.held(os.getpid()), this_process(), this_process(start_ticks=own_start())):
        directory.close()
        directory.close()
        assert not directory.exists()
        with pytest.raises(ProcessGone):
            ask(directory)


@pytest.mark.parametrize("ask", ASKED)
def test_a_question_leaves_no_descriptor_open(ask: Ask) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names wanted
    with held(os.getpid()) as directory:
        ask(directory)
    with contextlib.suppress(ProcessGone):
        ask(this_process(start_ticks=own_start() + 1))
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - names wanted


def descriptors() -> dict[str, str]:
    """Where this process's descriptors lead."""
    return {each.name: str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


def test_a_directory_is_held_by_one_descriptor_that_no_program_inherits() -> None:
    before = descriptors()
    with held(os.getpid()) as directory:
        new = {name: path for name, path in descriptors().items() if name not in before}
        assert list(new.values()) == [f"/proc/{os.getpid()}"]
        assert not os.get_inheritable(int(next(iter(new))))
        assert directory.is_held
    assert not directory.is_held
    assert descriptors() == before


def test_what_is_opened_is_opened_as_asked_and_no_program_inherits_it() -> None:
    with held(os.getpid()) as directory:
        handles = [directory.open("root", os.O_PATH | os.O_DIRECTORY), directory.open("stat")]
        try:
            assert [os.get_inheritable(handle) for handle in handles] == [False, False]
            assert os.read(handles[1], 100).startswith(b"%d (" % os.getpid())
            with pytest.raises(OSError, match="Bad file descriptor"):  # as O_PATH has it
                os.listdir(handles[0])  # noqa: PTH208 - a descriptor has no path
        finally:
            for handle in handles:
                os.close(handle)


def test_a_process_that_never_was_has_no_directory() -> None:
    pid = ended_child()
    with pytest.raises(ProcessGone) as error:
        ProcessDirectory.held(pid)
    assert error.value.message == f"process {pid} does not exist"


def test_a_zombie_has_its_pid_still(child: subprocess.Popen[bytes]) -> None:
    with held(child.pid) as directory:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert directory.exists()
        assert proc.cpu_seconds(directory) > 0
        assert mappings(directory) == []


def test_a_text_is_read_as_far_as_is_allowed(child: subprocess.Popen[bytes]) -> None:
    with held(child.pid) as directory:
        whole = directory.read("cmdline")
        assert whole.endswith(b"\0argument\0")
        assert [directory.read("cmdline", size) for size in (0, 1, 5)] == [whole[:0], whole[:1], whole[:5]]


def test_a_mapped_file_that_is_no_longer_there_is_no_end_of_the_process(child: subprocess.Popen[bytes]) -> None:
    with held(child.pid) as directory, pytest.raises(FileNotFoundError):
        directory.open_regular("map_files/1000-2000")


def test_a_file_of_an_ended_process_is_said_to_be_gone_with_it(child: subprocess.Popen[bytes]) -> None:
    mapping = next(found for found in mappings(child.pid) if found.inode)
    with held(child.pid) as directory:
        end(child)
        with pytest.raises(ProcessGone):
            open_mapped_file(directory, mapping)


def test_what_the_kernel_forbids_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", forbid)
    with pytest.raises(ProcessDenied) as error:
        this_process().read("maps")
    assert (error.value.pid, error.value.exit_code) == (os.getpid(), 11)
    assert error.value.message == f"process {os.getpid()} may not be read by this user"
