"""Reading /proc, on live children."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pyflame_ebpf.host import proc
from pyflame_ebpf.host.proc import Mapping, ProcessGone


@pytest.fixture
def child():
    program = "import sys; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "a b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def ended():
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    return process.pid


def test_paths_with_blanks_newlines_and_a_deleted_mark() -> None:
    text = (
        b"7f0000000000-7f0000001000 r-xp 00002000 fe:01 42                         /a b/c\\012d (deleted)\n"
        b"7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0                          [stack]\n"
        b"7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0 \n"
        b"7ffd"
    )
    assert proc.parse_maps(text) == [
        Mapping(0x7F0000000000, 0x7F0000001000, 0x2000, True, os.makedev(0xFE, 1), 42, "/a b/c\nd", True),
        Mapping(0x7FFC00000000, 0x7FFC00001000, 0, False, 0, 0, "[stack]"),
        Mapping(0x7FFD00000000, 0x7FFD00001000, 0, False, 0, 0, ""),
    ]


def test_a_name_with_parentheses_does_not_shift_the_stat_fields() -> None:
    fields = ["S", "7", *["0"] * 4, str(0x00200000), *["0"] * 10, "3", "0", "12345", "0"]
    stat = proc.parse_stat(b"9 (a) b (c) " + " ".join(fields).encode())
    assert (stat.name, stat.parent, stat.threads, stat.start_ticks) == ("a) b (c", 7, 3, 12345)
    assert stat.kernel_thread


@pytest.mark.root
def test_a_mapped_file_is_opened_even_when_it_was_deleted(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        try:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:  # the kernel shows the program before it has mapped it
                if any(found.path == str(program) and found.executable for found in proc.mappings(process.pid)):
                    break
            program.unlink()
            mapping = next(found for found in proc.mappings(process.pid) if found.path == str(program))
            with proc.open_mapped_file(process.pid, mapping) as file:
                assert (mapping.deleted, file.read(4)) == (True, b"\x7fELF")
        finally:
            process.kill()


def test_a_replaced_mapping_is_not_taken_for_the_old_one(child) -> None:
    mapping = next(found for found in proc.mappings(child.pid) if found.inode)
    other = Mapping(mapping.start, mapping.end, 0, True, mapping.device, mapping.inode + 1, mapping.path)
    with pytest.raises(OSError, match="another file"):
        proc.open_mapped_file(child.pid, other)


def test_names_and_times_of_a_child(child) -> None:
    assert proc.arguments(child.pid)[-1] == "a b"
    assert proc.command_line(child.pid).endswith("'a b'")
    assert proc.name(child.pid) == proc.thread_name(child.pid, child.pid)
    assert proc.user_id(child.pid) == os.getuid()
    assert proc.namespace_pids(child.pid)[0] == child.pid
    assert proc.process_stat(child.pid).parent == os.getpid()
    assert proc.is_alive(child.pid)
    assert child.pid in proc.pids()


def test_cpu_time_is_that_of_the_whole_process() -> None:
    before = proc.cpu_seconds(os.getpid())
    worker = threading.Thread(target=sum, args=(range(2_000_000),))
    worker.start()
    worker.join()
    assert proc.cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.01)
    assert proc.cpu_seconds(os.getpid()) > before


def test_memory_is_read_exactly_or_not_at_all() -> None:
    buffer = ctypes.create_string_buffer(b"interpreter")
    assert proc.read_memory(os.getpid(), ctypes.addressof(buffer), 11) == b"interpreter"
    with pytest.raises(OSError, match="Bad address"):
        proc.read_memory(os.getpid(), 8, 8)


def test_a_stopped_child_is_alive_and_a_zombie_is_not(child) -> None:
    child.send_signal(signal.SIGSTOP)
    assert proc.is_alive(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not proc.is_alive(child.pid)


@pytest.mark.parametrize(
    "ask",
    [
        proc.mappings,
        proc.arguments,
        proc.name,
        proc.process_stat,
        proc.thread_ids,
        proc.user_id,
        proc.executable_path,
        proc.cpu_seconds,
        lambda pid: proc.read_memory(pid, 4096, 8),
    ],
)
def test_an_ended_process_is_gone_whatever_is_asked(ended, ask) -> None:
    with pytest.raises(ProcessGone) as error:
        ask(ended)
    assert error.value.exit_code == 10
