"""Who was met: names, commands and CPU times of this process and of children."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyflame_ebpf.host import proc
from pyflame_ebpf.host.process_directory import ProcessDirectory
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.events import ExitEvent
from pyflame_ebpf.tracking.directories import Directories
from pyflame_ebpf.tracking.processes import MetProcess, Processes, file_key
from tests.host.live_children import waiting
from tests.tracking.live_processes import NO_PID, TICK, identity_of, met


@pytest.fixture
def me() -> Identity:
    """This process."""
    return identity_of(os.getpid())


@pytest.fixture
def directories() -> Iterator[Directories]:
    with contextlib.closing(Directories()) as directories:
        yield directories


@pytest.fixture
def processes(directories: Directories) -> Processes:
    return Processes(directories)


def cpu_times(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """CPU times as they are asked for, one after the other; that of a process that is gone counts, too."""
    left = list(seconds)

    def take(directory: ProcessDirectory) -> float:
        directory.confirm()
        return left.pop(0)

    monkeypatch.setattr(proc, "cpu_seconds", take)


def test_executable_has_the_key_that_the_kernel_has() -> None:
    status = Path(sys.executable).resolve().stat()
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    assert file_key(os.getpid()) == (status.st_ino, device, status.st_size & 0xFFFFFFFF)


def test_the_key_has_the_lower_half_of_a_large_size(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.stat_result((0o100755, 77, os.makedev(0x103, 0x54), 1, 0, 0, 5 << 32 | 9, 0, 0, 0))
    monkeypatch.setattr(ProcessDirectory, "status", lambda _directory, _name: status)
    assert file_key(1) == (77, 0x103 << 20 | 0x54, 9)


def test_a_process_is_met_with_what_the_programs_and_the_kernel_say(processes: Processes) -> None:
    with waiting("a b") as process:
        event = met(process.pid, executable=(1, 2, 3), name="told")
        assert processes.meet(event) is None
        found = processes[event.identity]
        assert (found.name, found.executable, found.kernel_thread) == (proc.name(process.pid), (1, 2, 3), False)
        assert found.command == proc.command_line(process.pid)
        assert (found.ended, found.cpu_before, found.scheduler_cpu) == (False, 0.0, None)


@pytest.mark.parametrize("changes", [{"start_code": 0}, {"identity": Identity(1, NO_PID, 1)}])
def test_a_kernel_thread_and_a_process_that_is_gone_have_the_name_that_was_told(
    processes: Processes, changes: dict[str, object]
) -> None:
    event = met(os.getpid(), name="told", **changes)
    processes.meet(event)
    found = processes[event.identity]
    assert (found.name, found.command, found.kernel_thread) == ("told", "", not event.start_code)


def test_the_program_before_an_exec_has_the_cpu_time_until_then(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, me: Identity
) -> None:
    cpu_times(monkeypatch, 5.0, 7.0, 12.0)
    with contextlib.closing(ProcessDirectory.held(os.getpid())) as directory:
        assert processes.note_cpu(directory) == proc.process_stat(os.getpid())
    first, second = met(os.getpid()), met(os.getpid(), identity=replace(me, exec_id=2))
    assert processes.meet(first) is None
    assert processes.meet(second) == first.identity
    processes.finish()
    assert [processes[each.identity].scheduler_cpu for each in (first, second)] == [2.0, 5.0]


def test_cpu_time_before_the_recording_does_not_count_for_a_later_process_with_the_pid(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, me: Identity
) -> None:
    cpu_times(monkeypatch, 5.0)
    with contextlib.closing(ProcessDirectory.held(os.getpid())) as directory:
        processes.note_cpu(directory)
    later = replace(me, start=me.start + 10 * TICK)
    processes.meet(met(os.getpid(), identity=later))
    assert processes[later].cpu_before == 0.0
    assert not processes.ran_before(later)
    processes.meet(met(os.getpid()))
    assert processes[me].cpu_before == 5.0
    assert processes.ran_before(me)
    assert not processes.ran_before(later)


def test_a_process_that_was_met_first_by_the_programs_did_not_run_before(processes: Processes, me: Identity) -> None:
    processes.meet(met(os.getpid()))
    assert not processes.ran_before(me)


def test_the_end_that_was_told_is_final(processes: Processes, monkeypatch: pytest.MonkeyPatch, me: Identity) -> None:
    processes.meet(met(os.getpid()))
    assert processes.end(ExitEvent(me, 2_500_000_000, "last"))
    cpu_times(monkeypatch)
    processes.finish()
    found = processes[me]
    assert (found.ended, found.scheduler_cpu, found.name) == (True, 2.5, "last")


def test_the_end_of_a_program_that_was_not_met_is_told_apart(
    processes: Processes, directories: Directories, me: Identity
) -> None:
    processes.meet(met(os.getpid()))
    assert not processes.end(ExitEvent(replace(me, exec_id=9), 1, "unmet"))
    assert not directories.is_current(me)  # the process is over, whichever program it ran


def test_charged_time_is_never_negative() -> None:
    known = MetProcess(name="x", executable=(0, 0, 0), first_seen=0, kernel_thread=False, cpu_before=3, cpu_after=2)
    assert known.scheduler_cpu == 0.0


def test_names_are_read_again_only_where_the_command_is_missing(processes: Processes, me: Identity) -> None:
    processes.meet(met(os.getpid()))
    processes[me].name = "kept"
    processes.read_missing_names(me)
    assert processes[me].name == "kept"
    processes[me].command = ""
    processes.read_missing_names(me)
    assert (processes[me].name, processes[me].command) == (proc.name(os.getpid()), proc.command_line(os.getpid()))


def test_what_has_ended_and_is_not_kept_is_forgotten_and_counted(processes: Processes, me: Identity) -> None:
    gone = [Identity(number, NO_PID, 1) for number in (1, 2)]
    for identity in (me, *gone):
        processes.meet(met(os.getpid(), identity=identity))
    assert processes.ended({gone[0]}) == {gone[1]}
    processes.forget([gone[1], Identity(3, NO_PID, 1)])
    assert [identity for identity, _ in processes.items()] == [me, gone[0]]
    assert (processes.count, processes.get(gone[1])) == (3, None)
