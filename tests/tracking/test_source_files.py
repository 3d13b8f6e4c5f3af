"""Files of other processes, read with their users' rights."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.host import proc
from pyflame_ebpf.host.process_directory import ProcessDirectory, ProcessGone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.tracking import source_files
from pyflame_ebpf.tracking.source_files import SourceFiles

NOBODY = 65534
PYTHON = "/usr/bin/python3"  # where every user may run it
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
WAITING = "print('ready', flush=True); input()"


def by_pid(identity: Identity) -> ProcessDirectory:
    return ProcessDirectory(identity.tgid)


def gone(identity: Identity) -> ProcessDirectory:
    raise ProcessGone(identity.tgid)


class Waiting:
    """A process that waits until it is let go."""

    def __init__(self, *prefix: str, cwd: Path | str = "/", program: str = WAITING) -> None:
        self.process = subprocess.Popen(
            [*prefix, PYTHON, "-c", program], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.identity = Identity(0, self.process.pid, 0)

    def __enter__(self) -> Waiting:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def read(file: Path | str, *prefix: str, cwd: Path | str = "/", end: bool = False) -> bytes:
    files = SourceFiles(by_pid)
    with Waiting(*prefix, cwd=cwd) as target:
        files.watch(target.identity)
        if end:
            target.__exit__()
        content = files.read(target.identity, str(file))
    files.close()
    return content


@pytest.fixture
def module() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are root's alone
        directory = Path(name)
        directory.chmod(0o755)
        file = directory / "module.py"
        file.write_text("def f(): pass\n")
        file.chmod(0o644)
        yield file


def test_a_file_is_read_by_its_path(module: Path) -> None:
    assert read(module) == b"def f(): pass\n"


def test_a_relative_path_is_relative_to_the_working_directory(module: Path) -> None:
    assert read("module.py", cwd=module.parent) == b"def f(): pass\n"
    assert read("../" + str(module.parent.name) + "/module.py", cwd=module.parent) == b"def f(): pass\n"


def test_a_file_is_read_though_its_process_is_over(module: Path) -> None:
    assert read(module, end=True) == b"def f(): pass\n"


@pytest.mark.parametrize("file", ["/no/such/file.py", "/", "/dev/zero", "/proc/self/mem", "\0", "a" * 5000])
def test_what_is_no_file_reads_as_nothing(file: str) -> None:
    assert read(file) == b""


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    assert read(tmp_path / "pipe.py") == b""


def test_a_process_whose_pid_is_anothers_by_now_has_no_files(module: Path) -> None:
    files = SourceFiles(gone)
    with Waiting() as target:
        files.watch(target.identity)
        assert files.read(target.identity, str(module)) == b""
    files.close()


def test_a_large_file_is_read_in_part(tmp_path: Path) -> None:
    with (tmp_path / "large.py").open("wb") as file:
        file.truncate(1 << 22)
    assert len(read(tmp_path / "large.py")) == (1 << 20) + 1


def test_a_process_that_is_over_before_it_was_looked_at_has_no_files(module: Path) -> None:
    with Waiting() as target:
        pass
    files = SourceFiles(by_pid)
    files.watch(target.identity)
    assert files.read(target.identity, str(module)) == b""


def test_the_rights_of_a_process_are_those_in_its_status() -> None:
    own = proc.credentials(os.getpid())
    assert (own.uid, own.gid, set(own.groups)) == (os.geteuid(), os.getegid(), set(os.getgroups()))


@pytest.mark.root
@pytest.mark.parametrize("protected", ["file", "directory", "group"])
def test_what_the_user_of_a_process_may_not_read_is_not_read_for_it(module: Path, protected: str) -> None:
    assert read(module, *AS_NOBODY) == b"def f(): pass\n"
    module.chmod(0o600 if protected == "file" else 0o640 if protected == "group" else 0o644)
    if protected == "directory":
        module.parent.chmod(0o700)
    assert read(module, *AS_NOBODY) == b""
    assert read(module) == b"def f(): pass\n"


@pytest.mark.root
def test_what_a_process_may_no_longer_read_is_not_read_for_it(module: Path) -> None:
    module.chmod(0o600)
    dropping = f"import os; print('ready', flush=True); input(); os.setgroups([]); os.setgid({NOBODY}); "
    dropping += f"os.setuid({NOBODY}); print('ready', flush=True); input()"
    files = SourceFiles(by_pid)
    with Waiting(program=dropping) as target:
        files.watch(target.identity)
        assert files.read(target.identity, str(module)) == b"def f(): pass\n"
        assert target.process.stdin
        assert target.process.stdout
        target.process.stdin.write(b"\n")
        target.process.stdin.flush()
        assert target.process.stdout.readline() == b"ready\n"
        assert files.read(target.identity, str(module)) == b""
    files.close()


@pytest.mark.root
def test_what_a_group_of_the_process_may_read_is_read(module: Path) -> None:
    os.chown(module, 0, 4711)
    module.chmod(0o040)
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--groups", "4711")
    assert read(module, *prefix) == b"def f(): pass\n"


@pytest.mark.root
def test_reading_as_another_user_leaves_this_process_as_it_was(module: Path) -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    read(module, *AS_NOBODY)
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    module.chmod(0)
    assert module.read_bytes() == b"def f(): pass\n"


@pytest.mark.root
def test_links_stay_in_the_root_of_the_process(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "jail").mkdir()
    (tmp_path / "secret.py").write_text("outside")
    (tmp_path / "jail" / "up.py").symlink_to("../secret.py")
    (tmp_path / "jail" / "absolute.py").symlink_to(tmp_path / "secret.py")
    (tmp_path / "jail" / "inside.py").write_text("inside")
    (tmp_path / "jail" / "link.py").symlink_to("/inside.py")
    program = f"import os; os.chroot({str(tmp_path / 'jail')!r}); os.chdir('/'); {WAITING}"
    process = subprocess.Popen([PYTHON, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        files = SourceFiles(by_pid)
        identity = Identity(0, process.pid, 0)
        files.watch(identity)
        found = {name: files.read(identity, name) for name in ("up.py", "absolute.py", "inside.py", "link.py")}
        files.close()
    finally:
        process.kill()
        process.communicate()
    assert found == {"up.py": b"", "absolute.py": b"", "inside.py": b"inside", "link.py": b"inside"}


def test_without_room_for_another_root_a_process_has_no_source_and_no_descriptor_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_files, "ROOTS_MAX", 0)
    files, identity = SourceFiles(lambda _identity: ProcessDirectory(os.getpid())), Identity(1, 2, 3)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names wanted
    files.watch(identity)
    assert files.read(identity, __file__) == b""
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - names wanted
