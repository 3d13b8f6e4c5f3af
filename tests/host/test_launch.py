"""Programs that are held until they are released, and started as the user who ran sudo."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import launch
from pyflame_ebpf.host.launch import HeldProgram, ProgramNotExecutable, ProgramNotFound, find_program


@contextlib.contextmanager
def held(*command: str, output: int | None = None) -> Iterator[HeldProgram]:
    program = HeldProgram(command, output)
    try:
        yield program
    finally:
        program.__exit__(None, None, None)
        program.wait()


@contextlib.contextmanager
def output_of(*command: str) -> Iterator[tuple[HeldProgram, int]]:
    """A held program, and the end of the pipe where what it prints is read."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        with held(*command, output=writing) as program:
            os.close(writing)
            yield program, reading
    finally:
        os.close(reading)


def printed_by(*command: str) -> str:
    with output_of(*command) as (program, reading):
        program.release()
        assert program.wait() == 0
        return os.read(reading, 1 << 16).decode()


def test_a_program_runs_when_it_is_released_and_not_before() -> None:
    with output_of("sh", "-c", 'echo "$0 $1"', "a b", "c") as (program, reading):
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
        assert not program.has_ended()
        program.release()
        assert program.wait() == 0
        assert os.read(reading, 100) == b"a b c\n"
        assert program.command == ("sh", "-c", 'echo "$0 $1"', "a b", "c")


def test_a_program_that_is_never_released_ends() -> None:
    with output_of("sh", "-c", "echo started") as (program, reading):
        program.__exit__(None, None, None)
        assert program.wait() == 125
        assert os.read(reading, 100) == b""
        program._hold, program._failure = os.pipe2(os.O_CLOEXEC)  # to be closed again


@pytest.mark.parametrize(
    ("script", "status", "fate"),
    [("exit 0", 0, "exit status 0"), ("exit 3", 3, "exit status 3"), ("kill -TERM $$", -15, "signal SIGTERM")],
)
def test_how_a_program_ended_is_told_in_words(script: str, status: int, fate: str) -> None:
    with held("sh", "-c", script) as program:
        program.release()
        assert [program.wait(), program.wait()] == [status, status]
        assert program.has_ended()
        assert program.fate() == f"sh (PID {program.pid}) ended with {fate}"


def test_a_program_that_has_ended_is_known_to_have_before_it_is_waited_for() -> None:
    with held("true") as program:
        assert not program.has_ended()
        program.release()
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        assert program.has_ended()
        assert program.wait() == 0


def test_signals_are_passed_on_and_mean_to_the_program_what_they_do_by_default() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with held("sleep", "60") as program:
            program.release()
            program.send(signal.SIGTERM)
            assert program.wait() == -signal.SIGTERM
            program.send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("foreground", [True, False])
def test_an_interrupt_that_the_terminal_sends_to_both_is_not_sent_twice(
    foreground: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(launch, "_in_foreground", lambda: foreground)
    with held("sleep", "60") as program:
        kill = os.kill
        monkeypatch.setattr(os, "kill", lambda _pid, number: sent.append(number))
        program.send(signal.SIGINT)
        program.send(signal.SIGQUIT)
        program.send(signal.SIGTERM)
        kill(program.pid, signal.SIGKILL)
    assert sent == [*([] if foreground else [signal.SIGINT, signal.SIGQUIT]), signal.SIGTERM]


def test_only_a_terminal_with_this_process_group_in_front_sends_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def group(descriptor: int) -> int:
        asked.append(descriptor)
        if descriptor == 0:
            raise OSError
        return os.getpgrp() + 2 - descriptor

    monkeypatch.setattr(os, "tcgetpgrp", group)
    monkeypatch.setattr(os, "isatty", lambda _: True)
    assert launch._in_foreground()
    assert asked == [0, 1, 2]
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor < 2)
    assert not launch._in_foreground()


# ---- what is run ----


def test_a_program_is_found_as_a_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("program") == find_program(str(program)) == str(program)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nowhere", ProgramNotFound, "the program 'nowhere' was not found"),
        ("./nowhere", ProgramNotFound, "the program './nowhere' was not found"),
        ("./text", ProgramNotExecutable, "the program './text' cannot be run: Permission denied"),
        ("./folder", ProgramNotExecutable, "the program './folder' cannot be run: Is a directory"),
        ("text", ProgramNotFound, "the program 'text' was not found"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is_started(
    name: str, kind: type[PyflameError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as error:
        HeldProgram([name, "-c"])
    assert error.value.message == message


def test_exit_codes_are_those_of_a_shell() -> None:
    assert (ProgramNotFound.exit_code, ProgramNotExecutable.exit_code) == (127, 126)


def test_what_the_kernel_does_not_run_is_told_at_the_release(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("no first line with an interpreter")
    program.chmod(0o755)
    with held(str(program)) as child:
        with pytest.raises(ProgramNotExecutable, match="Exec format error"):
            child.release()
        assert child.wait() == 125


# ---- as whom ----


def test_the_environment_is_that_of_the_users_own_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "environ", {"SUDO_USER": "ada", "SUDO_UID": "7", "HOME": "/root", "LANG": "C", "xSUDO_": "x"}
    )
    ada = pwd.struct_passwd(("ada", "x", 7, 8, "", "/home/ada", "/bin/zsh"))
    monkeypatch.setattr(pwd, "getpwuid", {7: ada}.__getitem__)
    assert launch._user_environment(7) == {
        "HOME": "/home/ada",
        "USER": "ada",
        "LOGNAME": "ada",
        "SHELL": "/bin/zsh",
        "LANG": "C",
        "xSUDO_": "x",
    }
    assert launch._user_environment(9) == {"HOME": "/root", "LANG": "C", "xSUDO_": "x"}


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "expected"), [((65534, 65534), "65534 65534 65534"), ((4711, 4712), "4711 4712 4712")]
)
def test_the_program_has_the_rights_of_the_user_of_sudo_alone(
    user: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a user without a name the group is the only one."""
    monkeypatch.setattr(launch, "sudo_user", lambda: user)
    assert printed_by("sh", "-c", 'echo "$(id -u) $(id -g) $(id -G)"').split("\n")[0] == expected
