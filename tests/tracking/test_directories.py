"""Directories of running processes: one each, held as far as descriptors are free, and closed when the process ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyflame_ebpf.host import open_files, proc
from pyflame_ebpf.host.process_directory import ProcessDirectory, ProcessGone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.tracking.directories import Directories, same_start
from tests.host.live_children import waiting
from tests.tracking.live_processes import NO_PID, TICK, identity_of


def held_now() -> list[str]:
    """Descriptors of processes' directories that are open here."""
    links = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [str(link) for link in links if str(link.parent) == "/proc" and link.name.isdecimal()]


@pytest.fixture
def me() -> Identity:
    """This process."""
    return identity_of(os.getpid())


@pytest.fixture
def directories() -> Iterator[Directories]:
    with contextlib.closing(Directories()) as directories:
        yield directories
    assert held_now() == []


def test_the_directory_of_a_process_answers_while_it_runs(directories: Directories) -> None:
    with waiting() as process:
        identity = identity_of(process.pid)
        assert directories.begin(identity) is None
        assert proc.process_stat(directories.of(identity)).parent == os.getpid()
        assert directories.is_running(identity)
        process.kill()
        process.wait()
        assert not directories.is_running(identity)
        assert directories.is_current(identity)  # its end was not told yet
        with pytest.raises(ProcessGone):
            proc.process_stat(directories.of(identity))


def test_a_process_has_one_descriptor_whatever_it_executes(directories: Directories, me: Identity) -> None:
    programs = [replace(me, exec_id=number) for number in (1, 2, 3)]
    assert [directories.begin(program) for program in programs] == [None, *programs[:2]]
    assert held_now() == [f"/proc/{os.getpid()}"]
    assert [directories.is_running(program) for program in programs] == [False, False, True]
    assert [directories.is_current(program) for program in programs] == [False, False, True]
    assert directories.of(programs[2]).pid == os.getpid()
    with pytest.raises(ProcessGone):
        directories.of(programs[1])


@pytest.mark.parametrize("exec_id", [1, 7])
def test_the_end_of_a_process_closes_its_directory_whichever_program_it_ran(
    directories: Directories, exec_id: int, me: Identity
) -> None:
    directories.begin(me)
    directories.end(replace(me, exec_id=exec_id))
    assert held_now() == []
    assert not directories.is_current(me)
    assert not directories.is_running(me)
    with pytest.raises(ProcessGone):
        directories.of(me)


def test_the_end_of_an_earlier_process_with_the_pid_closes_nothing(directories: Directories, me: Identity) -> None:
    directories.begin(me)
    directories.end(replace(me, start=me.start - 1))
    directories.end(Identity(1, NO_PID, 1))
    assert directories.is_running(me)


def test_a_later_process_with_the_pid_takes_the_place_of_one_whose_end_was_not_heard_of(
    directories: Directories, me: Identity
) -> None:
    stale = replace(me, start=me.start - 10 * TICK)
    directories.begin(stale)
    assert held_now() == []
    assert not directories.is_running(stale)
    assert directories.begin(me) == stale
    assert directories.is_running(me)


def test_a_process_that_is_over_when_it_is_met_counts_as_gone(directories: Directories) -> None:
    gone = Identity(10**18, NO_PID, 1)
    directories.begin(gone)
    assert not directories.is_running(gone)
    with pytest.raises(ProcessGone):
        directories.of(gone)


def test_what_is_forgotten_is_closed_and_a_program_that_runs_no_longer_closes_nothing(
    directories: Directories, me: Identity
) -> None:
    directories.begin(me)
    after = replace(me, exec_id=2)
    directories.begin(after)
    directories.forget([me])
    assert directories.is_running(after)
    directories.forget([after])
    assert held_now() == []


@pytest.mark.parametrize(("off", "same"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_start_in_ns_and_one_in_ticks_may_differ_by_a_tick(off: int, same: bool) -> None:
    assert same_start(Identity(1000 * TICK + TICK // 2, 1, 1), 1000 + off) == same


# ---- few descriptors ----


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the monotonic clock shows."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_a_free_descriptor_a_process_is_known_by_its_start(
    directories: Directories, clock: list[float], monkeypatch: pytest.MonkeyPatch, me: Identity
) -> None:
    monkeypatch.setattr(open_files, "PROCESSES_MAX", 1)
    directories.begin(me)
    with waiting() as process:
        identity = identity_of(process.pid)
        directories.begin(identity)
        directory = directories.of(identity)
        assert len(held_now()) == 1
        assert not directory.is_held
        assert proc.process_stat(directory).parent == os.getpid()
        process.kill()
        process.wait()
        directory.pid, directory._place = os.getpid(), f"/proc/{os.getpid()}/"  # as if its PID were used again
        assert not directories.is_running(identity)
        with pytest.raises(ProcessGone):
            proc.process_stat(directory)


def test_the_limit_counts_what_is_held_and_not_what_was(
    directories: Directories, monkeypatch: pytest.MonkeyPatch, me: Identity
) -> None:
    monkeypatch.setattr(open_files, "PROCESSES_MAX", 1)
    for number in range(3):
        program = replace(me, exec_id=number)
        directories.begin(program)
        assert directories.of(program).is_held
        directories.end(program)


def test_directories_whose_process_ended_unheard_are_looked_for_once_a_second(
    directories: Directories, clock: list[float], monkeypatch: pytest.MonkeyPatch, me: Identity
) -> None:
    monkeypatch.setattr(open_files, "PROCESSES_MAX", 1)

    def ended() -> None:
        with waiting() as process:
            directories.begin(identity_of(process.pid))
            process.kill()

    def next_is_held() -> bool:
        directories.end(me)
        directories.begin(me)
        held = directories.of(me).is_held
        directories.end(me)
        return held

    ended()
    assert next_is_held()
    ended()
    assert not next_is_held()
    clock[0] += 0.9
    assert not next_is_held()
    clock[0] += 0.1
    assert next_is_held()


def test_a_descriptor_that_the_kernel_refuses_is_no_end_of_the_process(
    directories: Directories, monkeypatch: pytest.MonkeyPatch, me: Identity
) -> None:
    def refuse(_pid: int) -> ProcessDirectory:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(ProcessDirectory, "held", refuse)
    directories.begin(me)
    assert not directories.of(me).is_held
    assert directories.is_running(me)


def test_close_gives_all_descriptors_back(directories: Directories, me: Identity) -> None:
    directories.begin(me)
    directories.close()
    assert held_now() == []
    assert not directories.is_running(me)
