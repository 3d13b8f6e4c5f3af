"""Names, users, times and threads of live children."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pyflame_ebpf.host import proc
from pyflame_ebpf.host.maps import mappings
from pyflame_ebpf.host.memory import read_memory
from pyflame_ebpf.host.process_directory import ProcessDirectory, ProcessGone
from pyflame_ebpf.host.process_stat import ProcessStat, parse_stat
from tests.host.live_children import ended_child, waiting

HOSTILE = [b"a\x0cUid:\t0", b"a\nUid:\t0", b"\x85\xe2\x80\xa8Uid:", b"\x1c\x1d\x1eUid:\t0", b") R 0 0 (", b"end\n\n"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with waiting("a b") as process:
        yield process


def test_a_name_with_parentheses_and_line_ends_does_not_shift_the_stat_fields() -> None:
    fields = ["S", "7", *["0"] * 4, str(0x00200000), *["0"] * 10, "3", "0", "12345", "0"]
    stat = parse_stat(b"9 (a) b\n\x0c(c) " + " ".join(fields).encode())
    assert stat == ProcessStat("a) b\n\x0c(c", "S", 7, 0x00200000, 3, 12345)
    assert stat.kernel_thread
    assert stat.alive


@pytest.mark.parametrize(("state", "alive"), [("R", True), ("T", True), ("Z", False), ("X", False), ("x", False)])
def test_a_zombie_is_not_alive(state: str, alive: bool) -> None:
    stat = ProcessStat("name", state, 1, 0, 1, 1)
    assert (stat.alive, stat.kernel_thread) == (alive, False)


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_process_is_called_its_user_is_read_from_the_kernels_line(name: bytes) -> None:
    with waiting(name=name) as process:
        uid, gid = os.geteuid(), os.getegid()
        credentials = proc.credentials(process.pid)
        assert proc.user_id(process.pid) == os.getuid()
        assert (credentials.uid, credentials.gid, set(credentials.groups)) == (uid, gid, set(os.getgroups()))
        assert proc.namespace_pids(process.pid)[0] == process.pid
        assert proc.process_stat(process.pid).parent == os.getpid()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_given_whole(name: bytes) -> None:
    expected = name[:15].decode("utf-8", "replace")
    with waiting(name=name) as process:
        assert proc.name(process.pid) == expected
        assert proc.thread_name(process.pid, process.pid) == expected
        assert proc.process_stat(process.pid).name == expected


def test_a_line_of_the_status_is_found_by_its_whole_key_behind_the_name() -> None:
    text = b"Name:\tUid:\nUmask:\t0022\nNSUid:\t7\nUid:\t1\t2\t3\t4\nGroups:\t\n"
    fields = [b"Uid", b"Groups", b"Umask", b"Name", b"None"]
    assert [proc.status_field(text, field) for field in fields] == [[b"1", b"2", b"3", b"4"], [], [b"0022"], [], []]


def test_rights_on_files_are_those_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    status = b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n"
    monkeypatch.setattr(ProcessDirectory, "read", lambda _directory, _name: status)
    assert proc.credentials(1) == proc.Credentials(4, 8, (9, 10))
    assert proc.user_id(1) == 1
    assert proc.namespace_pids(77) == (77,)  # a kernel without PID namespaces


def test_names_and_times_of_a_child(child: subprocess.Popen[bytes]) -> None:
    assert proc.arguments(child.pid)[-1] == "a b"
    assert proc.command_line(child.pid).endswith("'a b'")
    assert proc.name(child.pid) == proc.thread_name(child.pid, child.pid)
    assert proc.thread_ids(child.pid) == [child.pid]
    assert proc.process_stat(child.pid).parent == os.getpid()
    assert proc.is_alive(child.pid)
    assert child.pid in proc.pids()


@pytest.mark.parametrize(
    ("text", "line"), [(b"", ""), (b"a\0", "a"), (b"a b\0", "a b"), (b"a b\0c\0\0", "'a b' c"), (b"a\0\0b\0", "a '' b")]
)
def test_a_command_line_is_as_one_would_type_it_and_a_title_as_it_stands(
    text: bytes, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessDirectory, "read", lambda _directory, _name: text)
    assert proc.command_line(1) == line


def test_cpu_time_is_that_of_the_whole_process() -> None:
    before = proc.cpu_seconds(os.getpid())
    worker = threading.Thread(target=sum, args=(range(2_000_000),))
    worker.start()
    worker.join()
    assert proc.cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.01)
    assert proc.cpu_seconds(os.getpid()) > before


def test_a_stopped_child_is_alive_and_a_zombie_is_not(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    assert proc.is_alive(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not proc.is_alive(child.pid)
    assert not proc.is_alive(ended_child())


@pytest.mark.parametrize(
    "ask",
    [
        mappings,
        proc.arguments,
        proc.name,
        proc.process_stat,
        proc.thread_ids,
        proc.user_id,
        proc.cpu_seconds,
        lambda pid: read_memory(pid, 4096, 8),
    ],
)
def test_an_ended_process_is_gone_whatever_is_asked(ask: Callable[[int], object]) -> None:
    with pytest.raises(ProcessGone) as error:
        ask(ended_child())
    assert error.value.exit_code == 10
