"""What a process that gave up its rights can do no more."""

from __future__ import annotations

import errno
import importlib.util
import os
import resource
import socket
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from pyflame_ebpf.host import confinement
from pyflame_ebpf.host.confinement import compute_only, keep_only
from pyflame_ebpf.host.proc import status_field
from tests.command_line import environment

SYS_PTRACE, SYSLOG, BPF = 19, 34, 39  # include/uapi/linux/capability.h


def in_a_child(check: Callable[[], None]) -> None:
    """Run a check in a forked process, which may give up its rights."""
    pid = os.fork()
    if pid == 0:
        try:
            check()
        except BaseException:  # noqa: BLE001 - nothing but the exit status leaves the child
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def of_this_process(field: bytes) -> list[bytes]:
    return status_field(Path("/proc/self/status").read_bytes(), field)


def number_of(attempt: Callable[[], object]) -> int | None:
    """The errno with which an attempt fails, None if it does not."""
    try:
        attempt()
    except OSError as error:
        return error.errno
    return None


def confined() -> bool:
    return compute_only(memory=1 << 30, cpu=10, descriptors=3)


def test_a_confined_process_opens_no_file_and_starts_no_program(tmp_path: Path) -> None:
    def check() -> None:
        confined()
        refused = (errno.EMFILE, errno.EPERM)
        assert number_of(lambda: os.open("/etc/passwd", os.O_RDONLY)) in refused
        assert number_of(lambda: os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)) in refused
        assert number_of(socket.socket) in refused

    in_a_child(check)
    assert not (tmp_path / "new").exists()


def test_a_confined_process_writes_to_no_file_that_is_open(tmp_path: Path) -> None:
    """A write beyond the limit of 0 bytes ends a process by SIGXFSZ, or fails where Python ignores the signal."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"as it was")

    def check() -> None:
        confined()
        assert number_of(lambda: os.write(descriptor, b"x")) == errno.EFBIG

    in_a_child(check)
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"as it was"


@pytest.mark.root
def test_a_confined_process_of_root_is_nobody_without_capabilities() -> None:
    def check() -> None:
        status = os.open("/proc/self/status", os.O_RDONLY)
        confined()
        text = os.read(status, 1 << 16)
        assert [status_field(text, name) for name in (b"Uid", b"Gid", b"Groups")] == [[b"65534"] * 4] * 2 + [[]]
        assert [status_field(text, name) for name in (b"CapPrm", b"CapEff", b"CapInh")] == [[b"0" * 16]] * 3

    in_a_child(check)


@pytest.mark.skipif(not importlib.util.find_spec("seccomp"), reason="needs python3-seccomp")
def test_with_the_binding_a_filter_refuses_every_other_system_call() -> None:
    def check() -> None:
        assert confined()
        attempts: tuple[Callable[[], object], ...] = (
            os.fork,
            os.pipe,
            lambda: os.kill(os.getpid(), 0),
            lambda: Path("/nowhere").unlink(),
            lambda: os.execv("/bin/true", ["true"]),
        )
        assert [number_of(attempt) for attempt in attempts] == [errno.EPERM] * len(attempts)

    in_a_child(check)


def test_without_the_binding_the_other_limits_are_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "seccomp", None)

    def check() -> None:
        status = os.open("/proc/self/status", os.O_RDONLY)
        assert not confined()
        text = os.read(status, 1 << 16)
        assert status_field(text, b"CapEff") == [b"0" * 16]
        assert status_field(text, b"NoNewPrivs") == [b"1"]
        assert status_field(text, b"Seccomp") == [b"0"]

    in_a_child(check)


@pytest.mark.root
def test_root_keeps_the_capabilities_that_are_named_and_regains_none_by_a_program() -> None:
    def check() -> None:
        keep_only(1 << SYS_PTRACE | 1 << BPF)
        expected = b"%016x" % (1 << SYS_PTRACE | 1 << BPF)
        assert [of_this_process(name) for name in (b"CapPrm", b"CapEff")] == [[expected]] * 2
        said, saying = os.pipe()
        program = os.posix_spawnp(
            "grep",
            ["grep", "CapPrm", "/proc/self/status"],
            {**os.environ},
            file_actions=[(os.POSIX_SPAWN_DUP2, saying, 1)],
        )
        os.waitpid(program, 0)
        assert os.read(said, 100).split() == [b"CapPrm:", expected]

    in_a_child(check)


def test_a_capability_that_is_not_held_is_not_gained() -> None:
    def check() -> None:
        keep_only(0)
        keep_only(1 << SYSLOG)
        assert of_this_process(b"CapPrm") == [b"0" * 16]

    in_a_child(check)


def test_a_kernel_that_has_no_filters_and_a_namespace_without_nobody_are_no_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refused:
        def add_rule(self, _action: object, _name: str) -> None:
            pass

        def load(self) -> None:
            raise RuntimeError("Library error (errno = -22)")

    module = types.ModuleType("seccomp")
    module.__dict__.update(SyscallFilter=lambda _action: Refused(), ERRNO=lambda number: number, ALLOW=0)
    monkeypatch.setitem(sys.modules, "seccomp", module)

    def no_such_user(*_: object) -> None:
        raise OSError(errno.EINVAL, "not mapped")

    monkeypatch.setattr(confinement, "become_nobody", no_such_user)

    def check() -> None:
        status = os.open("/proc/self/status", os.O_RDONLY)
        assert not confined()
        assert status_field(os.read(status, 1 << 16), b"CapEff") == [b"0" * 16]

    in_a_child(check)


def test_a_limit_that_is_lower_already_stays() -> None:
    def check() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 10))
        confinement._lower(resource.RLIMIT_CORE, 20)
        assert resource.getrlimit(resource.RLIMIT_CORE) == (10, 10)

    in_a_child(check)


AS_A_USER_WITH_CAPABILITIES = """
import os, sys
from pyflame_ebpf.host.read_operations import IN_ROOT, content_as
root = os.open("/", os.O_PATH | os.O_DIRECTORY)
for path, user in (("/etc/shadow", 65534), (sys.argv[1], 65534), ("/etc/shadow", 1000), (sys.argv[2], 1000)):
    try:
        print(content_as(root, path, IN_ROOT, (user, user, ()), 100) == b"mine")
    except PermissionError:
        print("refused")
with open("/etc/shadow", "rb") as file:
    print(bool(file.read()))  # the capability is back
"""


@pytest.mark.root
@pytest.mark.parametrize("recorder", [0, 1000])
def test_what_is_read_as_a_user_is_what_that_user_may_read(recorder: int, tmp_path: Path) -> None:
    """A user who has CAP_DAC_READ_SEARCH keeps it when becoming another, unlike root, where nothing is done."""
    for place in (*tmp_path.parents[:2], tmp_path):
        place.chmod(0o755)
    files = []
    for user in (65534, 1000):
        files.append(tmp_path / str(user))
        files[-1].write_bytes(b"mine")
        files[-1].chmod(0o600)
        os.chown(files[-1], user, user)
    names = "-all,+setuid,+setgid,+dac_read_search"
    held = ("--inh-caps=" + names, "--ambient-caps=" + names) if recorder else ()
    who = ("setpriv", f"--reuid={recorder}", f"--regid={recorder}", "--clear-groups", *held)
    command = [*who, sys.executable, "-c", AS_A_USER_WITH_CAPABILITIES, *map(str, files)]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, cwd="/")
    assert (ended.stdout.split(), ended.stderr) == (["refused", "True", "refused", "True", "True"], "")
