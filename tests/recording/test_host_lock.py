"""The lock that keeps two profilers apart: nobody else can take it, and it names only who has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.recording import host_lock
from pyflame_ebpf.recording.host_lock import AlreadyRecording, LockUnusable, only_one_profiler

NOBODY = 65534
TIMEOUT = 30.0  # seconds
HOLD = """
import sys
from pyflame_ebpf.recording import host_lock
host_lock.LOCK_FILE = sys.argv[1]
with host_lock.only_one_profiler():
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_IN_A_COPY = """
import os, sys
from pyflame_ebpf.recording import host_lock
host_lock.LOCK_FILE = sys.argv[1]
held = host_lock.only_one_profiler()
held.__enter__()
if os.fork():
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "of the profiler" / "lock"
    monkeypatch.setattr(host_lock, "LOCK_FILE", str(path))
    return path


@contextlib.contextmanager
def another_profiler(lock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lock until it is killed or its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def is_locked(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_can_open_the_lock(lock: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with only_one_profiler():
            assert is_locked(lock)
    finally:
        os.umask(before)
    assert (mode(lock.parent), mode(lock)) == (0o700, 0o600)
    assert not is_locked(lock)


def a_readable_file(lock: Path) -> None:
    lock.parent.mkdir()
    lock.touch()
    lock.chmod(0o644)


def a_link(lock: Path) -> None:
    lock.parent.mkdir(mode=0o700)
    lock.symlink_to(lock.parent.parent / "victim")


def a_second_name(lock: Path) -> None:
    lock.parent.mkdir(mode=0o700)
    (lock.parent.parent / "mine").touch(mode=0o600)
    lock.hardlink_to(lock.parent.parent / "mine")


def a_pipe(lock: Path) -> None:
    lock.parent.mkdir(mode=0o700)
    os.mkfifo(lock, 0o600)


def a_directory(lock: Path) -> None:
    (lock / "full").mkdir(parents=True)


def a_file_above(lock: Path) -> None:
    lock.parent.write_text("in the way")


def a_pipe_above(lock: Path) -> None:
    os.mkfifo(lock.parent)


def a_link_above(lock: Path) -> None:
    (lock.parent.parent / "elsewhere").mkdir()
    lock.parent.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "put",
    [a_readable_file, a_link, a_second_name, a_pipe, a_directory, a_file_above, a_pipe_above, a_link_above],
)
def test_what_lies_in_its_place_keeps_nobody_out(lock: Path, put: Callable[[Path], None]) -> None:
    put(lock)
    with only_one_profiler():
        assert is_locked(lock)
        with pytest.raises(AlreadyRecording), only_one_profiler():
            pass
    assert (mode(lock.parent), mode(lock)) == (0o700, 0o600)
    assert stat.S_ISREG(lock.lstat().st_mode)
    assert not (lock.parent.parent / "victim").exists()
    assert not (lock.parent.parent / "elsewhere" / "lock").exists()


def test_who_locked_a_readable_file_before_keeps_nobody_out(lock: Path) -> None:
    a_readable_file(lock)
    with lock.open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_SH)
        with only_one_profiler():
            assert is_locked(lock)


@pytest.mark.root
@pytest.mark.parametrize("whose", ["directory", "file"])
def test_another_user_s_directory_or_file_becomes_root_s(lock: Path, whose: str) -> None:
    lock.parent.mkdir(mode=0o700)
    lock.touch(mode=0o600)
    os.chown(lock.parent if whose == "directory" else lock, NOBODY, NOBODY)
    with only_one_profiler():
        assert is_locked(lock)
    assert [path.stat().st_uid for path in (lock.parent, lock)] == [0, 0]


@pytest.mark.root
def test_a_plain_user_can_neither_read_nor_lock_it(lock: Path) -> None:
    lock.parent.parent.chmod(0o755)
    with only_one_profiler():
        pass
    tried = subprocess.run(["flock", "-n", lock, "true"], user=NOBODY, capture_output=True, check=False)
    assert tried.returncode != 0
    assert not is_locked(lock)


def test_the_process_that_has_the_lock_is_named(lock: Path) -> None:
    with another_profiler(lock) as other, pytest.raises(AlreadyRecording) as refused, only_one_profiler():
        pass
    assert refused.value.message == f"another pyflame-ebpf is recording on this host (PID {other.pid})"
    assert f"kill -INT {other.pid}" in refused.value.hint


def test_a_process_that_has_ended_is_not_named_for_the_copy_that_holds_its_lock(lock: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_IN_A_COPY, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"held\n"
        taker.wait(TIMEOUT)
        with pytest.raises(AlreadyRecording) as refused, only_one_profiler():
            pass
    assert refused.value.message == "another pyflame-ebpf is recording on this host"
    assert "kill" not in refused.value.hint


def test_it_can_be_waited_for_and_says_once_for_whom(lock: Path) -> None:
    said: list[str] = []
    with another_profiler(lock) as other:

        def told(holder: str) -> None:
            said.append(holder)
            threading.Timer(0.3, other.kill).start()  # several looks later

        with only_one_profiler(told):
            assert is_locked(lock)
    (holder,) = said
    assert holder.startswith(f"PID {other.pid} (")
    assert str(lock) in holder


def test_the_waiting_can_be_interrupted(lock: Path) -> None:
    def interrupt(_: str) -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    with another_profiler(lock):
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt), only_one_profiler(interrupt):
            pass
        assert time.monotonic() - began < TIMEOUT
        assert is_locked(lock)


def test_two_that_wait_do_not_have_it_at_once(lock: Path) -> None:
    having: list[int] = []
    most: list[int] = []

    def have_it(number: int) -> None:
        with only_one_profiler(lambda _: None):
            having.append(number)
            most.append(len(having))
            time.sleep(0.05)
            having.remove(number)

    a_readable_file(lock)  # which each of them would put in order
    threads = [threading.Thread(target=have_it, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert most == [1, 1, 1, 1]


def test_a_lock_that_cannot_be_made_is_told_as_such(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "LOCK_FILE", "/proc/none/lock")
    with pytest.raises(LockUnusable) as error, only_one_profiler():
        pass
    assert "/proc/none/lock: " in error.value.message


def test_who_is_not_root_is_told_what_root_can_do(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "LOCK_FILE", "/proc/none/lock")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LockUnusable) as error, only_one_profiler():
        pass
    assert error.value.hint == ("Run as root, or let root make its directory: install -d -m 700 -o 1000 /proc/none")
