"""Outputs are made safely, early, and never lost."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.host import output_directory, whole_file
from pyflame_ebpf.host.output_directory import (
    DiskFull,
    OutputDirectory,
    OutputExists,
    OutputUnwritable,
    save_elsewhere,
    sudo_user,
    write_error,
    write_new_file,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def write_hello(stream: BinaryIO) -> None:
    stream.write(b"hello")


def fail_midway(stream: BinaryIO) -> None:
    stream.write(b"hel")
    raise OSError(28, "No space left on device")


def test_files_are_written_into_a_new_directory(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out") as directory:
        path = directory.write("file", write_hello)
    assert path == tmp_path / "out" / "file"
    assert path.read_bytes() == b"hello"


def test_a_directory_into_which_nothing_was_written_is_removed(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()
    assert not (tmp_path / "out").exists()


def test_an_empty_directory_is_taken_and_stays(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_the_working_directory_may_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with OutputDirectory(Path()) as directory:
        directory.write("file", write_hello)
    assert names(tmp_path) == ["file"]


def test_a_directory_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(OutputExists, match="not empty"):
        OutputDirectory(tmp_path)
    assert names(tmp_path) == ["mine"]


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputExists, match="not a directory"):
        OutputDirectory(tmp_path / "out")


def test_a_symbolic_link_to_an_empty_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with pytest.raises(OutputExists):
        OutputDirectory(tmp_path / "out")
    assert names(tmp_path / "real") == []


def test_a_missing_parent_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable) as error:
        OutputDirectory(tmp_path / "no" / "out")
    assert f"mkdir -p {tmp_path / 'no'}" in error.value.hint


def test_a_symbolic_link_planted_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    with OutputDirectory(tmp_path / "out") as directory:
        (tmp_path / "out" / "file").symlink_to(victim)
        with pytest.raises(OutputExists):
            directory.write("file", write_hello)
    assert not victim.exists()


def test_a_directory_swapped_for_a_link_does_not_redirect_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with OutputDirectory(tmp_path / "out") as directory:
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
        directory.write("file", write_hello)
    assert names(tmp_path / "elsewhere") == []
    assert names(tmp_path / "moved") == ["file"]


def test_a_file_that_could_not_be_written_whole_is_removed(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out") as directory, pytest.raises(DiskFull):
        directory.write("file", fail_midway)
    assert not (tmp_path / "out").exists()


def test_a_single_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExists):
        write_new_file(tmp_path / "file", write_hello)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "kind"), [(28, DiskFull), (122, DiskFull), (13, OutputUnwritable), (5, OutputUnwritable)]
)
def test_the_reason_why_a_write_failed_decides_the_error(number: int, kind: type) -> None:
    error = write_error("DIR/file", OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert error.message == f"DIR/file cannot be written: {os.strerror(number)}"


def test_the_first_place_that_has_room_takes_the_file_privately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "room").mkdir()
    monkeypatch.setattr(output_directory, "PLACES_WITH_ROOM", (str(tmp_path / "missing"), str(tmp_path / "room")))
    path = save_elsewhere(write_hello, ".end")
    assert path is not None
    assert path.parent == tmp_path / "room"
    assert path.name.endswith(".end")
    assert path.read_bytes() == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_exit_codes_tell_what_was_wrong() -> None:
    assert [each.exit_code for each in (OutputExists, OutputUnwritable, DiskFull)] == [13, 14, 15]


def test_no_place_with_room_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_directory, "PLACES_WITH_ROOM", (str(tmp_path),))
    assert save_elsewhere(fail_midway, ".end") is None
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("euid", "variables", "expected"),
    [
        (0, {"SUDO_UID": "1000", "SUDO_GID": "100"}, (1000, 100)),
        (0, {"SUDO_UID": "0", "SUDO_GID": "0"}, None),
        (0, {"SUDO_UID": "1000"}, None),
        (0, {"SUDO_UID": "me", "SUDO_GID": "us"}, None),
        (0, {"SUDO_UID": "-1", "SUDO_GID": "-1"}, None),
        (0, {"SUDO_UID": "9" * 20, "SUDO_GID": "5"}, None),
        (0, {"SUDO_UID": "9" * 5000, "SUDO_GID": "5"}, None),
        (0, {"SUDO_UID": "4294967295", "SUDO_GID": "5"}, None),
        (0, {"SUDO_UID": "1000", "SUDO_GID": "4294967295"}, None),
        (0, {"SUDO_UID": "4294967294", "SUDO_GID": "0"}, (4294967294, 0)),
        (0, {"SUDO_UID": "1_000", "SUDO_GID": "5"}, None),
        (0, {"SUDO_UID": "\u0661", "SUDO_GID": "5"}, None),
        (1000, {"SUDO_UID": "1000", "SUDO_GID": "100"}, None),
    ],
)
def test_the_user_of_sudo_is_known_to_root_only(
    euid: int, variables: dict[str, str], expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    assert sudo_user() == expected


# ---- root, for a user of sudo ----


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is given to the user of sudo, with their owner."""
    given: list[str] = []

    def note(descriptor: int, uid: int, gid: int) -> None:
        inode = os.fstat(descriptor).st_ino
        given.extend(f"{path.name} {uid}:{gid}" for path in tmp_path.rglob("*") if path.stat().st_ino == inode)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "100")
    monkeypatch.setattr(os, "fchown", note)
    return given


def test_root_gives_a_directory_that_it_made_and_what_is_in_it_to_the_user_of_sudo(
    tmp_path: Path, given: list[str]
) -> None:
    with OutputDirectory(tmp_path / "out") as directory:
        directory.write("file", write_hello)
    assert given == ["out 1000:100", "file 1000:100"]


def test_root_gives_no_directory_away_that_was_there_before(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "out").mkdir()
    with OutputDirectory(tmp_path / "out") as directory:
        directory.write("file", write_hello)
    assert given == ["file 1000:100"]


def test_root_gives_single_files_to_the_user_of_sudo(
    tmp_path: Path, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_directory, "PLACES_WITH_ROOM", (str(tmp_path),))
    write_new_file(tmp_path / "file", write_hello)
    elsewhere = save_elsewhere(write_hello, ".end")
    assert elsewhere is not None
    assert given == ["file 1000:100", f"{elsewhere.name} 1000:100"]


def test_a_file_system_without_owners_takes_the_file_all_the_same(
    tmp_path: Path, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    write_new_file(tmp_path / "file", write_hello)
    assert (tmp_path / "file").read_bytes() == b"hello"
    assert given == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_new_files_and_directories_are_for_their_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with OutputDirectory(tmp_path / "out") as directory:
            path = directory.write("file", write_hello)
        write_new_file(tmp_path / "alone", write_hello)
        after = os.umask(umask)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path, tmp_path / "alone")]
    assert modes == [0o700, 0o600, 0o600]
    assert after == umask


def test_whether_a_directory_can_be_written_is_known_before_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = os.open

    def full(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE or str(path).endswith(".part"):
            raise OSError(28, "No space left on device")
        return made(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(DiskFull):
        OutputDirectory(tmp_path / "out")
    assert names(tmp_path) == []


def test_a_file_whose_making_is_broken_off_is_removed_and_the_reason_passed_on(tmp_path: Path) -> None:
    def interrupted(stream: BinaryIO) -> None:
        stream.write(b"hel")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_new_file(tmp_path / "file", interrupted)
    assert names(tmp_path) == []


# ---- a file has its name once it is whole ----


@pytest.fixture(params=["unnamed", "hidden name", "no hard links"])
def _file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that can and cannot do what outputs are made with."""
    if request.param == "unnamed":
        return
    monkeypatch.setattr(whole_file, "_OWN_DESCRIPTORS", "/nonexistent")
    if request.param == "no hard links":

        def link(*_: object, **__: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("_file_system")
def test_a_file_has_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    seen: list[str] = []

    def write(stream: BinaryIO) -> None:
        stream.write(b"hello")
        stream.flush()
        seen.extend(name for name in names(tmp_path) if not name.startswith("."))

    write_new_file(tmp_path / "file", write)
    assert seen == []
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"hello"
    assert (tmp_path / "file").stat().st_nlink == 1


@pytest.mark.usefixtures("_file_system")
def test_a_file_that_took_the_name_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"hello")
        (tmp_path / "file").symlink_to(tmp_path / "victim")

    with pytest.raises(OutputExists):
        write_new_file(tmp_path / "file", write)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").is_symlink()


@pytest.mark.usefixtures("_file_system")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(28, "No space left on device")])
def test_what_breaks_the_writing_off_leaves_no_file(tmp_path: Path, error: type[BaseException] | BaseException) -> None:
    def broken_off(stream: BinaryIO) -> None:
        stream.write(b"hel")
        raise error

    with pytest.raises((KeyboardInterrupt, ValueError, DiskFull)):
        write_new_file(tmp_path / "file", broken_off)
    assert names(tmp_path) == []


def test_a_process_that_is_killed_while_it_writes_leaves_no_file(tmp_path: Path) -> None:
    child = os.fork()
    if not child:

        def die(stream: BinaryIO) -> None:
            stream.write(b"hel")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        write_new_file(tmp_path / "file", die)
    os.waitpid(child, 0)
    assert names(tmp_path) == []


# ---- a directory that somebody moves ----


def test_a_directory_in_its_place_is_confirmed(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out") as directory:
        assert directory.place() == tmp_path / "out"
        directory.confirm()


def test_a_directory_that_was_replaced_is_said_with_where_the_files_are(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out") as directory:
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").mkdir()
        directory.write("file", write_hello)
        assert directory.place() == tmp_path / "moved"
        with pytest.raises(OutputUnwritable, match=f"the files are in {tmp_path / 'moved'}"):
            directory.confirm()
    assert names(tmp_path) == ["moved", "out"]  # the empty one is not ours to remove
    assert names(tmp_path / "moved") == ["file"]


def test_an_empty_directory_that_took_the_place_of_ours_is_not_removed(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out"):
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").mkdir()
    assert names(tmp_path) == ["moved", "out"]


def test_a_directory_that_was_replaced_by_a_link_to_itself_is_not_in_its_place(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out") as directory:
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").symlink_to("moved")
        with pytest.raises(OutputUnwritable, match="moved or replaced"):
            directory.confirm()


def test_a_directory_that_was_removed_is_said(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path / "out") as directory:
        (tmp_path / "out").rmdir()
        assert directory.place() is None
        with pytest.raises(OutputUnwritable, match="was removed meanwhile"):
            directory.confirm()
        with pytest.raises(OutputUnwritable):
            directory.write("file", write_hello)
    assert names(tmp_path) == []


def test_a_directory_whose_parent_was_moved_is_followed(tmp_path: Path) -> None:
    (tmp_path / "above").mkdir()
    with OutputDirectory(tmp_path / "above" / "out") as directory:
        (tmp_path / "above").rename(tmp_path / "other")
        assert directory.place() == tmp_path / "other" / "out"
    assert names(tmp_path / "other") == []  # it stayed empty, and is ours
