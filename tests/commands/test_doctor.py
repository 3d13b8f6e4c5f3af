"""``doctor``: what it tells of the host and of single processes, with and without root."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from pyflame_ebpf.commands import doctor
from pyflame_ebpf.commands.doctor import Finding, Status, line_of
from tests.command_line import BusyProcess, environment, pyflame, wait_for_other_recordings
from tests.conftest import StartTarget
from tests.interpreters import Interpreter

NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def statuses(stdout: str) -> dict[str, str]:
    """Status by subject."""
    lines = [line for line in stdout.splitlines() if not line.startswith(" ")]
    return {line[6:20].strip(): line[:4].strip() for line in lines}


def test_a_finding_is_a_line_and_its_hint_another_below_its_text() -> None:
    finding = Finding(Status.WARN, "kernel", "old\nvery", "Get a newer one.")
    assert line_of(finding).splitlines() == [
        "warn  kernel          old",
        "                      very",
        "                      Get a newer one.",
    ]


@pytest.mark.parametrize(("has_binding", "status"), [(True, Status.OK), (False, Status.WARN)])
def test_it_tells_whether_the_demangler_runs_under_a_filter(
    monkeypatch: pytest.MonkeyPatch, has_binding: bool, status: Status
) -> None:
    monkeypatch.setattr(doctor, "has_system_call_filter", lambda: has_binding)
    finding = doctor._confinement()
    assert (finding.status, finding.exit_code, "python3-seccomp" in finding.hint) == (status, 0, not has_binding)


def test_a_process_s_name_cannot_act_on_the_terminal() -> None:
    assert line_of(Finding(Status.OK, "process", "\x1b[2J")) == "ok    process         \\x1b[2J"


@pytest.mark.root
def test_where_a_recording_works_the_host_is_well() -> None:
    wait_for_other_recordings()
    ended = pyflame("doctor")
    found = statuses(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, "")
    essential = ("namespaces", "privileges", "BTF", "bcc", "BPF programs")
    assert {subject: found[subject] for subject in essential} == dict.fromkeys(essential, "ok")
    assert platform.release() in ended.stdout


@pytest.mark.root
def test_without_capabilities_it_says_so_and_checks_what_it_can() -> None:
    ended = pyflame("doctor", prefix=NO_CAPABILITIES)
    found = statuses(ended.stdout)
    assert ended.returncode == 3
    assert "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE missing" in ended.stdout
    assert (found["privileges"], found["BTF"], found["bcc"], found["BPF programs"]) == ("fail", "ok", "ok", "?")


@pytest.mark.root
def test_a_wrong_bcc_fails_with_the_code_that_a_recording_would(tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("")
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    ended = pyflame("doctor", env=environment(PYTHONPATH=path))
    assert ended.returncode == 4
    assert statuses(ended.stdout)["bcc"] == "fail"


@pytest.mark.root
def test_a_kernel_without_btf_fails_with_the_code_that_a_recording_would() -> None:
    hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    ended = pyflame("doctor", prefix=("unshare", "--mount", "sh", "-c", hide, "sh"))
    assert ended.returncode == 5
    assert statuses(ended.stdout)["BTF"] == "fail"


@pytest.mark.root
def test_of_a_python_process_it_names_interpreter_layout_and_threads(
    each_interpreter: Interpreter, start_target: StartTarget, tmp_path: Path
) -> None:
    program = tmp_path / "waits.py"
    program.write_text("import sys\nsys.stdout.write('ready\\n')\nsys.stdout.flush()\nsys.stdin.readline()\n")
    target = start_target(each_interpreter, program)
    ended = pyflame("doctor", str(target.pid))
    assert ended.returncode == 0
    major, minor = each_interpreter.version
    how = "shared library" if each_interpreter.shared else "statically linked"
    source = "its own debug offsets" if each_interpreter.version >= (3, 13) else "the built-in row"
    assert f"CPython {major}.{minor}" in ended.stdout
    assert f", {how} (" in ended.stdout
    assert f"frames are read by {source}" in ended.stdout
    assert f"ok    thread          {target.pid} " in ended.stdout


@pytest.mark.root
def test_of_a_process_without_python_it_says_why_nothing_of_python_will_be_seen() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            ended = pyflame("doctor", str(process.pid))
        finally:
            process.kill()
    assert ended.returncode == 0
    assert "warn  interpreter     sleep has no CPython mapped" in ended.stdout


@pytest.mark.root
def test_of_a_kernel_thread_it_says_that_it_is_one() -> None:
    ended = pyflame("doctor", "2")  # kthreadd, on every kernel
    assert ended.returncode == 0
    assert "is a thread of the kernel" in ended.stdout


def test_of_a_process_that_has_ended_it_says_so() -> None:
    with BusyProcess("pass") as process:
        process.process.wait()
    ended = pyflame("doctor", str(process.pid))
    assert ended.returncode == 10
    assert "does not exist" in ended.stderr


def test_of_our_own_process_no_root_is_needed() -> None:
    ended = pyflame("doctor", str(os.getpid()))
    assert ended.returncode == 0
    assert "CPython 3." in ended.stdout
