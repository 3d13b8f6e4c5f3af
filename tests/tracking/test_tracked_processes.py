"""The table of processes, with real processes and a sampler that only writes down what it is told."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyflame_ebpf.cpython import interpreter as cpython
from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.interpreter import interpreter_of
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.host import maps, proc
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.host.process_directory import PidOrDirectory, directory_of
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.abi import PROCESS_OTHER, PROCESS_PYTHON, read_identity
from pyflame_ebpf.sampling.events import ExitEvent, MissEvent
from pyflame_ebpf.tracking import mappings
from pyflame_ebpf.tracking.interpreters import LOOK_AGAIN, OTHER_AFTER
from pyflame_ebpf.tracking.processes import file_key
from pyflame_ebpf.tracking.recipes import executable_entry
from pyflame_ebpf.tracking.tracked_processes import ProcessTable
from pyflame_ebpf.unwind.walk import WalkStopped
from tests.interpreters import Interpreter
from tests.tracking.live_processes import NO_PID, TICK, WAIT, command, identity_of, met, running
from tests.tracking.written_maps import WrittenMaps

BURN = """
import time
print("ready", flush=True)
while input() is not None:
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    print("burnt", flush=True)
"""
LOADER = """
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    puts("ready");
    fflush(stdout);
    getchar();
    puts(argc == 2 && dlopen(argv[1], RTLD_NOW) ? "loaded" : "failed");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
"""


def interpreter_in(pid: int) -> cpython.Interpreter:
    found = interpreter_of(pid, FileFactsCache())
    assert isinstance(found, cpython.Interpreter)
    return found


def next_look(table: ProcessTable) -> float:
    due = table.next_look()
    assert due is not None
    return due


def charged(table: ProcessTable, identity: Identity) -> float:
    """Seconds that the scheduler charged to a process, as the profile has them."""
    seconds = table.profile_processes()[identity].scheduler_cpu
    assert seconds is not None
    return seconds


def look_until_told(table: ProcessTable, written: WrittenMaps, identity: Identity, state: int) -> None:
    """Does the looks as they fall due until the written has been told so."""
    deadline = time.monotonic() + sum(LOOK_AGAIN)
    while state not in written.states_of(identity):
        assert time.monotonic() < deadline
        time.sleep(max(0.0, next_look(table) - time.monotonic()))
        table.look_again(time.monotonic())


@pytest.fixture
def written() -> WrittenMaps:
    return WrittenMaps()


@pytest.fixture
def table(written: WrittenMaps) -> Iterator[ProcessTable]:
    with contextlib.closing(ProcessTable(written)) as table:
        yield table


# ---- Python ----


def test_python_process_is_identified_when_it_is_met(table: ProcessTable, written: WrittenMaps) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        found = interpreter_in(process.pid)
        event = met(process.pid)
        table.process_met(event)
        entry = written.processes[-1]
        assert entry.mappings > 0
        assert (entry.state, read_identity(entry.identity)) == (PROCESS_PYTHON, event.identity)
        assert (entry.interpreters_head, entry.tstate_current) == (found.interpreters_head, found.tstate_current)
        assert written.layouts[entry.layout] == table.layout(entry.layout) == found.layout
        assert table.layout_of(event.identity) == found.layout
        assert table.next_look() is None


def test_its_executable_is_told_so_that_the_programs_know_the_next_one(
    table: ProcessTable, written: WrittenMaps
) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        found = interpreter_in(process.pid)
        table.process_met(met(process.pid))
        expected = executable_entry(found.recipe, written.layouts.index(found.layout))
        assert {key: bytes(entry) for key, entry in written.executables.items()} == {
            file_key(process.pid): bytes(expected)
        }


def test_profile_has_what_the_process_is_called_and_runs(table: ProcessTable) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        event = met(process.pid)
        table.process_met(event)
        profile_process = table.profile_processes()[event.identity]
    version = ".".join(map(str, sys.version_info[:3]))
    assert (profile_process.pid, profile_process.interpreter) == (process.pid, f"CPython {version}")
    assert profile_process.command == shlex.join([sys.executable, "-c", WAIT])
    assert Path(profile_process.interpreter_file).is_file()


def test_a_command_line_that_is_too_long_is_cut(table: ProcessTable) -> None:
    with running(sys.executable, "-c", WAIT, "x" * 100_000) as process:
        event = met(process.pid)
        table.process_met(event)
        command_line = table.profile_processes()[event.identity].command
    assert len(command_line) == 4096
    assert command_line.startswith(sys.executable)
    assert command_line.endswith("xxx…")


def test_process_that_the_programs_identified_is_not_looked_at_again(table: ProcessTable, written: WrittenMaps) -> None:
    with running(sys.executable, "-c", WAIT) as first, running(sys.executable, "-c", WAIT) as second:
        table.process_met(met(first.pid))
        found = interpreter_in(second.pid)
        event = met(
            second.pid,
            state=PROCESS_PYTHON,
            interpreters_head=found.interpreters_head,
            tstate_current=found.tstate_current,
        )
        table.process_met(event)
        assert table.next_look() is None
        assert written.processes[-1].interpreters_head == found.interpreters_head
        assert table.layout_of(event.identity) == found.layout
        assert table.profile_processes()[event.identity].interpreter == found.name
        assert table.counts() == (2, 2)


def test_interpreters_that_run_before_the_first_tick_are_told_to_the_programs(
    table: ProcessTable, written: WrittenMaps
) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        assert table.scan() >= 1
        assert file_key(process.pid) in written.executables


def test_program_that_loads_python_later_is_found_later(
    table: ProcessTable, written: WrittenMaps, tmp_path: Path, interpreters: tuple[Interpreter, ...]
) -> None:
    shared = [interpreter for interpreter in interpreters if interpreter.shared]
    if not shared:
        pytest.skip("no interpreter in a shared library is installed")
    (tmp_path / "loader.c").write_text(LOADER)
    subprocess.run(["gcc", "-o", tmp_path / "loader", tmp_path / "loader.c", "-ldl"], check=True)
    with running(*shared[-1].argv, "-c", WAIT) as python:
        library = interpreter_in(python.pid).file
    with running(tmp_path / "loader", library) as process:
        event = met(process.pid)
        table.process_met(event)
        look_until_told(table, written, event.identity, PROCESS_OTHER)
        command(process, b"loaded\n")
        look_until_told(table, written, event.identity, PROCESS_PYTHON)
        assert table.profile_processes()[event.identity].is_python


# ---- other programs ----


def test_program_without_python_counts_as_other_after_a_while_and_not_before(
    table: ProcessTable, written: WrittenMaps
) -> None:
    with running("sh", "-c", "echo ready; read line") as process:
        event = met(process.pid)
        before = time.monotonic()
        table.process_met(event)
        assert written.states_of(event.identity) == []
        look_until_told(table, written, event.identity, PROCESS_OTHER)
        assert time.monotonic() - before >= OTHER_AFTER
        assert not table.profile_processes()[event.identity].is_python


def test_an_interpreter_for_which_there_is_no_room_counts_as_other_and_ends_nothing(
    table: ProcessTable, written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_layout: CPythonLayout) -> None:
        raise PyflameError("more kinds of interpreter than there is room for")

    monkeypatch.setattr(written, "add_layout", refuse)
    with running(sys.executable, "-c", WAIT) as process:
        event = met(process.pid)
        table.process_met(event)
        look_until_told(table, written, event.identity, PROCESS_OTHER)
    assert table.counts() == (1, 0)


def test_program_that_ran_before_the_recording_counts_as_other_at_once(
    table: ProcessTable, written: WrittenMaps
) -> None:
    with running("sh", "-c", "echo ready; read line") as process:
        table.scan()
        event = met(process.pid)
        table.process_met(event)
        assert written.states_of(event.identity) == [PROCESS_OTHER]


def test_looks_at_a_program_without_python_become_rarer(table: ProcessTable) -> None:
    with running("sh", "-c", "echo ready; read line") as process:
        table.process_met(met(process.pid))
        waits = []
        for _ in range(len(LOOK_AGAIN)):
            now = time.monotonic()
            waits.append(next_look(table) - now)
            table.look_again(now + waits[-1])
        assert waits == sorted(waits)
        assert waits[-1] == pytest.approx(LOOK_AGAIN[-1], rel=0.2)


def test_kernel_thread_is_left_alone(table: ProcessTable, written: WrittenMaps) -> None:
    table.process_met(met(os.getpid(), start_code=0, name="kworker/0:1"))
    assert (written.processes, table.next_look()) == ([], None)
    (process,) = table.profile_processes().values()
    assert (process.name, process.command) == ("kworker/0:1", "")


# ---- exec and exit ----


def test_program_after_an_exec_is_another_entry_with_its_own_cpu_time(
    table: ProcessTable, written: WrittenMaps
) -> None:
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    script = f'echo ready; read line; {burn}; exec "$0" -c "$1"'
    with running("sh", "-c", script, sys.executable, WAIT) as process:
        before = met(process.pid)
        table.process_met(before)
        command(process, b"ready\n")
        after = met(process.pid, identity=replace(before.identity, exec_id=2), executed=True)
        table.process_met(after)
        assert written.states_of(after.identity) == [PROCESS_PYTHON]
        table.finish()
        shell, python = (table.profile_processes()[event.identity] for event in (before, after))
        assert (shell.is_python, python.is_python) == (False, True)
        assert shell.command.startswith("sh -c")
        assert charged(table, before.identity) + charged(table, after.identity) == pytest.approx(
            proc.cpu_seconds(process.pid), abs=0.05
        )
        assert charged(table, before.identity) > 0.01


def test_program_that_was_replaced_by_exec_is_told_nothing_more(table: ProcessTable, written: WrittenMaps) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        old = met(process.pid, state=PROCESS_PYTHON)
        table.process_met(old)
        table.process_met(met(process.pid, identity=replace(old.identity, exec_id=2), executed=True))
        assert not table.directories.is_running(old.identity)
        assert table.read_memory(old.identity, 0x400000, 8) == b""
        assert written.states_of(old.identity) == []


def test_the_slot_of_a_program_that_was_replaced_by_exec_is_given_to_the_next(
    table: ProcessTable, written: WrittenMaps
) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        old = met(process.pid)
        table.process_met(old)
        table.process_met(met(process.pid, identity=replace(old.identity, exec_id=2), executed=True))
        assert len(written.mappings) == 1


def test_program_that_was_replaced_by_exec_does_not_take_its_entry_back(
    table: ProcessTable, written: WrittenMaps
) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        old = met(process.pid)
        table.process_met(old)
        table.process_met(met(process.pid, identity=replace(old.identity, exec_id=2), executed=True))
        table.without_copies(old.identity)
        assert read_identity(written.processes[-1].identity).exec_id == 2


def test_process_whose_entry_was_lost_is_told_again_where_its_code_is(
    table: ProcessTable, written: WrittenMaps
) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        event = met(process.pid, state=PROCESS_PYTHON)
        table.process_met(met(process.pid))
        written.processes.clear()
        table.process_met(event)
        assert written.processes[-1].mappings == 1 + next(iter(written.mappings))


def test_of_two_mappings_of_one_place_the_one_that_came_back_counts(
    table: ProcessTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        event = met(process.pid)
        first, second = (maps.Mapping(0x1000, 0x2000, 0, True, 0, 0, path) for path in ("first", "second"))
        for mapping in (first, second, first):
            monkeypatch.setattr(maps, "mappings", lambda _pid, mapping=mapping: [mapping])
            table.process_met(event)
        assert table.mapping_of(event.identity, 0x1800) == first


def test_a_process_that_maps_and_unmaps_without_end_does_not_fill_the_memory(
    table: ProcessTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mappings, "MAPPED_MAX", 2)
    with running(sys.executable, "-c", WAIT) as process:
        event = met(process.pid)
        for page in (1, 2, 3):
            mapping = maps.Mapping(page << 12, page + 1 << 12, 0, True, 0, 0, "")
            monkeypatch.setattr(maps, "mappings", lambda _pid, mapping=mapping: [mapping])
            table.process_met(event)
        known = [table.mapping_of(event.identity, page << 12) is not None for page in (1, 2, 3)]
        assert known == [False, True, True]


def test_ended_process_keeps_its_name_and_the_time_that_the_scheduler_charged(table: ProcessTable) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        event = met(process.pid)
        table.process_met(event)
    table.process_ended(ExitEvent(event.identity, 1_500_000_000, "renamed"))
    table.finish()
    ended = table.profile_processes()[event.identity]
    assert (ended.name, ended.scheduler_cpu) == ("renamed", 1.5)
    assert ended.command.startswith(sys.executable)


def test_process_that_is_gone_before_it_is_looked_at_does_no_harm(table: ProcessTable, written: WrittenMaps) -> None:
    event = met(os.getpid(), identity=Identity(10**18, NO_PID, 1), name="short")
    table.process_met(event)
    table.look_again(time.monotonic() + 60)
    table.finish()
    assert written.processes == []
    (process,) = table.profile_processes().values()
    assert (process.name, process.scheduler_cpu) == ("short", None)


def test_end_of_a_process_that_was_never_met_does_no_harm(table: ProcessTable) -> None:
    table.process_ended(ExitEvent(Identity(1, NO_PID, 1), 1, "stranger"))
    assert table.counts() == (0, 0)


def test_pid_that_was_given_to_another_process_is_not_taken_for_it(table: ProcessTable, written: WrittenMaps) -> None:
    with running(sys.executable, "-c", WAIT) as process:
        stale = replace(identity_of(process.pid), start=identity_of(process.pid).start - 10 * TICK)
        event = met(process.pid, identity=stale, name="before")
        table.process_met(event)
        assert written.processes == []
        assert table.read_memory(stale, 0x400000, 8) == b""
        profile_process = table.profile_processes()[stale]
    assert (profile_process.name, profile_process.command, profile_process.is_python) == ("before", "", False)


# ---- CPU time and memory ----


def test_cpu_time_counts_from_the_start_of_the_recording(table: ProcessTable) -> None:
    with running(sys.executable, "-c", BURN) as process:
        command(process, b"burnt\n")
        used = proc.cpu_seconds(process.pid)
        table.scan()
        event = met(process.pid)
        table.process_met(event)
        command(process, b"burnt\n")
        table.finish()
        seconds = charged(table, event.identity)
        assert seconds == pytest.approx(proc.cpu_seconds(process.pid) - used, abs=0.02)
        assert seconds >= 0.3


def test_cpu_time_of_a_process_that_starts_later_counts_whole(table: ProcessTable) -> None:
    table.scan()
    with running(sys.executable, "-c", BURN) as process:
        event = met(process.pid)
        table.process_met(event)
        command(process, b"burnt\n")
        table.finish()
        seconds = charged(table, event.identity)
        assert seconds == pytest.approx(proc.cpu_seconds(process.pid), abs=0.02)


def test_memory_of_a_running_process_can_be_read_and_what_is_not_there_is_empty(table: ProcessTable) -> None:
    event = met(os.getpid())
    table.process_met(event)
    word = (b"\x11\x22\x33\x44\x55\x66\x77\x88").ljust(64, b"!")
    address = id(word) + bytes.__basicsize__ - 1  # CPython: the contents lie behind the object's head
    assert table.read_memory(event.identity, address, 8) == word[:8]
    assert table.read_memory(event.identity, 8, 8) == b""


# ---- code ----


def code_of(pid: int) -> list[Mapping]:
    return [each for each in maps.mappings(pid) if each.executable]


def entries_of(written: WrittenMaps, identity: Identity) -> list[int]:
    """What was said of where a process's code is."""
    return [entry.mappings for entry in written.processes if read_identity(entry.identity) == identity]


def test_a_process_whose_code_had_to_make_room_is_told_to_the_programs_and_its_code_again_when_it_is_missed(
    written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "MAPPED_PROCESSES", 1)
    with contextlib.closing(ProcessTable(written)) as table, running("sh", "-c", "echo ready; read line") as process:
        first, second = met(os.getpid()), met(process.pid)
        for event in (first, second):
            table.process_met(event)
        assert [entries_of(written, event.identity)[-1] for event in (first, second)] == [0, 1]
        assert table.mappings_of(first.identity) == []
        address = code_of(os.getpid())[0].start
        assert table.mapping_of(first.identity, address) == code_of(os.getpid())[0]
        look_until_told(table, written, second.identity, PROCESS_OTHER)
        table.code_missed(MissEvent(first.identity, 0, address))
        assert [entries_of(written, event.identity)[-1] for event in (first, second)] == [1, 0]
        assert table.mappings_of(first.identity) == code_of(os.getpid())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """PIDs whose mappings were read."""
    reads: list[int] = []
    real = maps.mappings

    def noting(process: PidOrDirectory) -> list[Mapping]:
        reads.append(directory_of(process).pid)
        return real(process)

    monkeypatch.setattr(maps, "mappings", noting)
    return reads


def test_a_missed_address_is_looked_for_unless_it_is_known_or_the_process_is(
    table: ProcessTable, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    event = met(os.getpid(), start_code=1, state=PROCESS_PYTHON)
    table.process_met(event)
    known = table.mappings_of(event.identity)[0]
    reads.clear()
    missed = [
        MissEvent(event.identity, 0, 0x1000),  # too soon
        MissEvent(event.identity, 0, known.start),
        MissEvent(replace(event.identity, exec_id=7), 0, 0x1000),
        MissEvent(event.identity, 0, 0x1000),
        MissEvent(event.identity, 0, 0x1000),  # too soon again, and from now on for twice as long
    ]
    for miss, seconds in zip(missed, (0, 1, 0, 0, 0.0015), strict=True):
        now += seconds
        table.code_missed(miss)
    assert reads == [os.getpid()]
    table.process_ended(ExitEvent(event.identity, 1, "x"))
    now += 10
    table.code_missed(MissEvent(event.identity, 0, 0x1000))
    assert reads == [os.getpid()]


def test_rows_are_found_by_address_and_sent_and_a_missed_page_is_sent_too(
    table: ProcessTable, written: WrittenMaps
) -> None:
    event = met(os.getpid())
    table.process_met(event)
    libc = next(each for each in code_of(os.getpid()) if "/libc.so" in each.path)
    assert table.rows_of(event.identity)(libc.start + 0x3000) is not None
    ((number, page),) = written.pages
    table.code_missed(MissEvent(event.identity, number, page + 1))
    assert set(written.pages) == {(number, page), (number, page + 1)}
    with table.open_again(libc) as file:
        assert os.fstat(file.fileno()).st_ino == libc.inode
    with pytest.raises(WalkStopped) as stopped:
        table.rows_of(event.identity)(0x1000)
    assert stopped.value.outcome is NativeOutcome.NO_MAPPING


# ---- forgetting ----


def test_what_is_forgotten_is_counted_still_and_known_no_more(table: ProcessTable, written: WrittenMaps) -> None:
    with running(sys.executable, "-c", WAIT) as python, running("sh", "-c", "echo ready; read line") as shell:
        events = [met(os.getpid()), met(python.pid), met(shell.pid)]
        for event in events:
            table.process_met(event)
    me, gone, kept = (event.identity for event in events)
    table.without_copies(gone)
    address = table.mappings_of(gone)[0].start
    assert table.ended({kept}) == {gone}
    table.forget(Gone(processes={gone}))
    assert set(table.profile_processes()) == {me, kept}
    assert (table.mapping_of(gone, address), table.layout_of(gone), table.interpreter_file(gone)) == (None, None, "")
    assert table.counts() == (3, 2)
    assert table.ended(set()) == {kept}
    slots = len(written.mappings)
    with running(sys.executable, "-c", WAIT) as python:
        table.process_met(met(python.pid))
        assert len(written.mappings) == slots


def test_a_process_has_one_descriptor_until_it_ends(table: ProcessTable) -> None:
    def held() -> list[str]:
        links = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return [link for link in links if link.startswith("/proc/")]

    with running(sys.executable, "-c", WAIT) as process:
        event = met(process.pid)
        for exec_id in (1, 2):
            table.process_met(replace(event, identity=replace(event.identity, exec_id=exec_id)))
            table.look_again(time.monotonic() + 60)
        assert held() == [f"/proc/{process.pid}"]
        table.process_ended(ExitEvent(replace(event.identity, exec_id=2), 1, "x"))
        assert held() == []


def test_copies_do_not_help_a_process_is_told_while_it_runs(table: ProcessTable, written: WrittenMaps) -> None:
    event = met(os.getpid())
    table.process_met(event)
    assert not written.processes[-1].no_copies
    table.without_copies(event.identity)
    assert written.processes[-1].no_copies
    table.process_met(event)
    assert written.processes[-1].no_copies
    told = len(written.processes)
    table.process_ended(ExitEvent(event.identity, 1, "x"))
    table.without_copies(event.identity)
    table.without_copies(Identity(1, NO_PID, 1))
    assert len(written.processes) == told
