"""Outputs are made safely, early, and never lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.host import output_directory
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
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is given to the user of sudo, with their owner."""
    given: list[str] = []

    def note(descriptor: int, uid: int, gid: int) -> None:
        given.append(f"{Path(f'/proc/self/fd/{descriptor}').readlink().name} {uid}:{gid}")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "100")
    monkeypatch.setattr(os, "fchown", note)
    return given


PROBE = f".pyflame-ebpf-{os.getpid()} 1000:100"


def test_root_gives_a_directory_that_it_made_and_what_is_in_it_to_the_user_of_sudo(
    tmp_path: Path, given: list[str]
) -> None:
    with OutputDirectory(tmp_path / "out") as directory:
        directory.write("file", write_hello)
    assert given == ["out 1000:100", PROBE, "file 1000:100"]


def test_root_gives_no_directory_away_that_was_there_before(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "out").mkdir()
    with OutputDirectory(tmp_path / "out") as directory:
        directory.write("file", write_hello)
    assert given == [PROBE, "file 1000:100"]


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


def test_new_files_and_directories_can_be_read_by_all_and_written_by_their_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with OutputDirectory(tmp_path / "out") as directory:
            path = directory.write("file", write_hello)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path)] == [0o755, 0o644]


def test_whether_a_directory_can_be_written_is_known_before_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = os.open

    def full(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if str(path).startswith(".pyflame-ebpf-"):
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
