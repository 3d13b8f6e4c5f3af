"""Every error that a user can meet, provoked for real: its message, its exit code, and that nothing is lost."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import (
    RECORDED_FILES,
    TIMEOUT,
    BusyProcess,
    RunningRecording,
    environment,
    pyflame,
    record_while_used,
    wait_for_other_recordings,
)

pytestmark = pytest.mark.root

NOBODY = 65534
SYS_BPF, BPF_PROG_GET_NEXT_ID = 321, 11  # x86-64; include/uapi/linux/bpf.h
STAYS_BEFORE_THE_FIRST_TICK = """
import sys, time
from pyflame_ebpf.recording import recorder
from pyflame_ebpf.__main__ import main
def start(recorder):
    print("loaded", file=sys.stderr, flush=True)
    time.sleep(600)
recorder.Recorder.start = start
main()
"""  # a signal from outside comes before it, however busy the host is
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
# Nobody's process may read the checkout and the environment wherever they are, and has no other capability.
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)


@pytest.fixture(autouse=True)
def _only_recording() -> None:
    wait_for_other_recordings()


@pytest.fixture
def busy() -> Iterator[BusyProcess]:
    with BusyProcess() as process:
        yield process


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 32 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def hint_of(stderr: str) -> str:
    return stderr.rpartition("\nhint: ")[2].strip()


def programs_of(pid: int) -> set[int]:
    """Ids of the BPF programs that a process has open: others load and unload theirs at any time (proc(5), fdinfo)."""
    said = "".join(path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir())
    return {int(number) for number in re.findall(r"^prog_id:\s*(\d+)$", said, re.MULTILINE)}


def still_loaded(programs: set[int]) -> set[int]:
    """Those of these programs that are still in the kernel once it had time: it frees them after a grace period."""
    deadline = time.monotonic() + TIMEOUT
    while (found := programs & loaded_programs()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def loaded_programs() -> set[int]:
    """Ids of all BPF programs in the kernel."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: set[int] = set()
    attribute = (ctypes.c_uint32 * 3)()
    while not libc.syscall(SYS_BPF, BPF_PROG_GET_NEXT_ID, attribute, ctypes.sizeof(attribute)):
        found.add(attribute[1])
        attribute[0] = attribute[1]
    return found


def cpu_used(pid: int) -> float:
    """Seconds of CPU that a process has used, in threads that have ended too (proc(5), stat)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


# Before a recording can begin


@pytest.mark.parametrize("prefix", [WITHOUT_CAPABILITIES, AS_NOBODY], ids=["root without capabilities", "nobody"])
def test_missing_capabilities_are_named_and_sudo_is_advised(prefix: tuple[str, ...], tmp_path: Path) -> None:
    ended = pyflame("record", "--all", "--output", tmp_path / "out", prefix=prefix)
    assert ended.returncode == 3
    assert ended.stderr.splitlines() == [
        "error: recording needs root: CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE missing",
        f"hint: Run: sudo pyflame-ebpf record --all --output {tmp_path}/out",
    ]
    assert names(tmp_path) == []


def test_another_package_called_bcc_is_recognised(tmp_path: Path) -> None:
    package = tmp_path / "path" / "bcc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def body_centred_cubic(): pass\n")
    path = f"{tmp_path / 'path'}:{environment()['PYTHONPATH']}"
    ended = pyflame("record", "--all", "--output", tmp_path / "out", env=environment(PYTHONPATH=path))
    assert ended.returncode == 4
    assert f"{package}/__init__.py is not the BPF compiler" in ended.stderr
    assert "apt-get install python3-bpfcc" in hint_of(ended.stderr)
    assert not (tmp_path / "out").exists()


def test_bcc_missing_is_said_with_the_package_that_has_it(tmp_path: Path) -> None:
    without = "import sys; sys.modules['bcc'] = None; from pyflame_ebpf.__main__ import main; main()"
    ended = pyflame("record", "--all", "--output", tmp_path / "out", command=(sys.executable, "-c", without))
    assert ended.returncode == 4
    assert "apt-get install python3-bpfcc" in hint_of(ended.stderr)
    assert not (tmp_path / "out").exists()


def test_a_kernel_without_btf_is_said(tmp_path: Path) -> None:
    hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", hide, "sh")
    ended = pyflame("record", "--all", "--output", tmp_path / "out", prefix=prefix)
    assert ended.returncode == 5
    assert "/sys/kernel/btf/vmlinux" in ended.stderr
    assert "CONFIG_DEBUG_INFO_BTF" in hint_of(ended.stderr)
    assert not (tmp_path / "out").exists()


def test_too_few_open_files_are_said_with_the_limit(tmp_path: Path) -> None:
    ended = pyflame("record", "--all", "--output", tmp_path / "out", prefix=("prlimit", "--nofile=16"))
    assert ended.returncode == 22
    assert ended.stderr.startswith("error: only 16 files may be open (ulimit -n); recording needs ")
    assert "ulimit -n" in hint_of(ended.stderr)
    assert not (tmp_path / "out").exists()


def test_too_little_address_space_is_said_with_the_limit(tmp_path: Path) -> None:
    prefix = ("prlimit", f"--as={512 << 20}")
    ended = pyflame("record", "--all", "--output", tmp_path / "out", prefix=prefix)
    assert ended.returncode == 22
    assert "only 512 MB of address space allowed (ulimit -v); recording needs 1024" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("record", "--all"), ("doctor",), ("doctor", "1")])
def test_a_host_without_proc_is_said(arguments: tuple[str, ...], tmp_path: Path) -> None:
    prefix = ("unshare", "--mount", "sh", "-c", 'umount -l /proc && exec "$@"', "sh")
    ended = pyflame(*arguments, prefix=prefix, cwd=tmp_path)
    assert ended.returncode == 21
    assert "/proc is not mounted" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
    assert names(tmp_path) == []


def test_a_number_that_no_process_can_have_is_refused(tmp_path: Path) -> None:
    ended = pyflame("record", "--pid", str(1 << 31), "--output", tmp_path / "out")
    assert ended.returncode == 10
    assert f"process {1 << 31} does not exist" in ended.stderr
    assert names(tmp_path) == []


def test_a_frequency_over_the_limit_is_refused_with_the_limit_and_its_sysctl(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/kernel/perf_event_max_sample_rate").read_text())
    ended = pyflame("record", "--all", "--frequency", str(limit + 1), "--force", "--output", tmp_path / "out")
    assert ended.returncode == 7
    assert f"{limit + 1} Hz is over this kernel's limit of {limit} Hz" in ended.stderr
    assert f"sysctl kernel.perf_event_max_sample_rate={limit + 1}" in hint_of(ended.stderr)


def test_a_second_profiler_is_refused_and_the_first_goes_on(tmp_path: Path, busy: BusyProcess) -> None:
    with RunningRecording("--pid", str(busy.pid), "--output", tmp_path / "first") as first:
        second = pyflame("record", "--all", "--output", tmp_path / "second")
        busy.wait_until_used()
        assert first.interrupt() == 0
    assert second.returncode == 8
    assert f"another pyflame-ebpf is recording on this host (PID {first.process.pid})" in second.stderr
    assert names(tmp_path) == ["first"]
    assert names(tmp_path / "first") == RECORDED_FILES


@pytest.mark.parametrize(
    "prefix",
    [("unshare", "--pid", "--fork", "--mount-proc"), ("unshare", "--user", "--map-root-user")],
    ids=["PID namespace", "user namespace"],
)
def test_inside_a_container_the_host_is_advised(prefix: tuple[str, ...], tmp_path: Path) -> None:
    ended = pyflame("record", "--all", "--output", tmp_path / "out", prefix=prefix)
    assert ended.returncode == 9
    assert "runs in a container" in ended.stderr
    assert "on the host" in hint_of(ended.stderr)


def test_a_pid_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with BusyProcess() as process:
        pass
    ended = pyflame("record", "--pid", str(process.pid), "--output", tmp_path / "out")
    assert ended.returncode == 10
    assert f"process {process.pid} does not exist" in ended.stderr
    assert names(tmp_path) == []


def test_a_zombie_is_refused_like_a_process_that_has_ended(tmp_path: Path) -> None:
    with BusyProcess("pass") as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ended = pyflame("record", "--pid", str(process.pid), "--output", tmp_path / "out")
    assert ended.returncode == 10


def test_the_number_of_a_thread_is_told_from_that_of_a_process(tmp_path: Path) -> None:
    program = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)"
    with BusyProcess(program) as process:
        deadline = time.monotonic() + TIMEOUT
        while len(threads := names(Path(f"/proc/{process.pid}/task"))) < 2 and time.monotonic() < deadline:
            pass
        thread = next(tid for tid in threads if int(tid) != process.pid)
        ended = pyflame("record", "--pid", thread, "--output", tmp_path / "out")
    assert ended.returncode == 10
    assert f"{thread} is the number of a thread" in ended.stderr


def test_an_output_that_exists_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    ended = pyflame("record", "--all", "--output", tmp_path)
    assert ended.returncode == 13
    assert names(tmp_path) == ["mine"]
    assert "recording all" not in ended.stderr


def test_a_read_only_file_system_is_said_before_the_recording(tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = pyflame("record", "--all", "--output", small_disk / "out")
    assert ended.returncode == 14
    assert f"{small_disk}/out cannot be written: Read-only file system" in ended.stderr
    assert "recording all" not in ended.stderr


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_be_started_ends_as_in_a_shell(program: str, code: int, tmp_path: Path) -> None:
    ended = pyflame("record", "--output", tmp_path / "out", "--", program)
    assert ended.returncode == code
    assert repr(program) in ended.stderr
    assert names(tmp_path) == []


def test_a_program_that_only_root_may_run_is_refused_to_the_user_of_sudo(tmp_path: Path) -> None:
    program = tmp_path / "private"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    env = environment(SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY))
    ended = pyflame("record", "--output", tmp_path / "out", "--", str(program), env=env)
    assert ended.returncode == 126
    assert not (tmp_path / "out").exists()


# While it records, and when it writes


def test_a_target_killed_midway_ends_the_recording_with_all_that_was_sampled(tmp_path: Path, busy: BusyProcess) -> None:
    with RunningRecording("--pid", str(busy.pid), "--duration", "100", "--output", tmp_path / "out") as recording:
        busy.wait_until_used()
        busy.kill()
        assert recording.end() == 0
    assert f"process {busy.pid} ended; so does the recording" in recording.stderr
    assert f"({busy.pid});" in (tmp_path / "out" / "stacks.folded").read_text()


def test_nothing_sampled_is_said_and_the_files_are_written(tmp_path: Path) -> None:
    with BusyProcess() as asleep:
        asleep.wait_until_used(0.1)
        asleep.stop()
        ended = pyflame("record", "--pid", str(asleep.pid), "--duration", "0.5", "--output", tmp_path / "out")
    assert ended.returncode == 16
    assert "nothing was sampled" in ended.stderr
    assert names(tmp_path / "out") == RECORDED_FILES


def test_what_runs_no_python_is_recorded_with_a_warning(tmp_path: Path) -> None:
    with BusyProcess.shell() as shell:
        shell.wait_until_used(0.1)  # it is the shell by now
        arguments = ("--pid", str(shell.pid), "--output", tmp_path / "out")
        recording = record_while_used(shell, arguments=arguments)
    assert recording.process.returncode == 0
    assert f"warning: process {shell.pid}: sh has no CPython mapped" in recording.stderr
    assert (tmp_path / "out" / "stacks.folded").read_text().startswith(f"sh ({shell.pid})")


def test_on_a_full_disk_the_profile_is_saved_elsewhere_and_gives_all_outputs(
    small_disk: Path, busy: BusyProcess, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(64 << 10))
    ended = record_while_used(busy, arguments=("--pid", str(busy.pid), "--output", small_disk / "out"))
    assert ended.process.returncode == 15
    saved = re.search(r"the recording is saved in (\S+)", ended.stderr)
    assert saved is not None
    command = shlex.split(hint_of(ended.stderr).partition("pyflame-ebpf ")[2])
    again = pyflame(*command[:-1], tmp_path / "again")
    Path(saved[1]).unlink()
    assert again.returncode == 0
    assert names(tmp_path / "again") == RECORDED_FILES
    assert f"({busy.pid});" in (tmp_path / "again" / "stacks.folded").read_text()
    assert str(busy.pid) in ended.stdout  # the table


def test_a_disk_with_room_for_the_profile_alone_keeps_it_and_no_half_files(small_disk: Path, busy: BusyProcess) -> None:
    ended = record_while_used(busy, arguments=("--pid", str(busy.pid), "--output", small_disk / "out"))
    assert ended.process.returncode == 15
    assert f"the recording is saved in {small_disk}/out/profile.json.gz" in ended.stderr
    assert "flamegraph.svg" not in names(small_disk / "out")
    assert pyflame("report", small_disk / "out").returncode == 0


def test_standard_output_on_a_full_disk_loses_nothing(busy: BusyProcess) -> None:
    with Path("/dev/full").open("wb") as full:
        arguments = ("--pid", str(busy.pid), "--output", "-")
        recording = record_while_used(busy, arguments=arguments, stdout=full.fileno())
    assert recording.process.returncode == 15
    saved = re.search(r"the recording is saved in (\S+)", recording.stderr)
    assert saved is not None
    report = pyflame("report", saved[1], "--format", "folded")
    Path(saved[1]).unlink()
    assert f"({busy.pid});" in report.stdout


def test_a_reader_that_goes_away_ends_it_quietly(busy: BusyProcess) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    recording = record_while_used(busy, arguments=("--pid", str(busy.pid), "--output", "-"), stdout=writer)
    os.close(writer)
    assert recording.process.returncode == 141
    assert "error" not in recording.stderr
    assert "Traceback" not in recording.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_recording_and_everything_is_written(
    number: signal.Signals, tmp_path: Path, busy: BusyProcess
) -> None:
    with RunningRecording("--all", "--output", tmp_path / "out") as recording:
        busy.wait_until_used()
        recording.process.send_signal(number)
        assert recording.end() == 0
    assert names(tmp_path / "out") == RECORDED_FILES
    assert f"({busy.pid});" in (tmp_path / "out" / "stacks.folded").read_text()


def test_a_signal_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    command = (sys.executable, "-c", STAYS_BEFORE_THE_FIRST_TICK)
    recording = RunningRecording("--all", "--output", tmp_path / "out", command=command)
    recording.wait_for("loaded\n")
    assert names(tmp_path) == ["out"]
    assert recording.interrupt() == 130
    assert recording.stderr == "loaded\nerror: interrupted: nothing was recorded\n"
    assert names(tmp_path) == []


def test_after_sigkill_no_program_stays_loaded(tmp_path: Path) -> None:
    with RunningRecording("--all", "--output", tmp_path / "out") as recording:
        ours = programs_of(recording.process.pid)
        recording.process.kill()
    assert len(ours) >= 10
    assert still_loaded(ours) == set()


def test_after_a_recording_no_program_stays_loaded(tmp_path: Path, busy: BusyProcess) -> None:
    with RunningRecording("--all", "--output", tmp_path / "out") as recording:
        ours = programs_of(recording.process.pid)
        busy.wait_until_used()
        assert recording.interrupt() == 0
    assert len(ours) >= 10
    assert still_loaded(ours) == set()


def test_the_first_tick_comes_after_few_seconds_of_cpu(tmp_path: Path) -> None:
    with RunningRecording("--all", "--output", tmp_path / "out") as recording:
        used = cpu_used(recording.process.pid)  # by the clock it depends on what else runs here
    assert 0 < used < 5  # several times what it takes on an idle machine
