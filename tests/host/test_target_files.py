"""Files below the root of a process, whatever links and names lie there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.host.process_directory import ProcessDirectory, ProcessGone
from pyflame_ebpf.host.target_files import open_below, root_of
from tests.host.live_children import ended_child


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root with a file, and with links to it, to a file outside and to a directory."""
    (tmp_path / "secret").write_bytes(b"outside")
    top = tmp_path / "root"
    (top / "folder").mkdir(parents=True)
    (top / "file").write_bytes(b"inside")
    (top / "folder" / "secret").write_bytes(b"in the folder")
    (top / "absolute").symlink_to("/file")
    (top / "up").symlink_to("../../../file")
    (top / "out").symlink_to("../secret")
    (top / "into").symlink_to("folder")
    (top / "magic").symlink_to(f"/proc/{os.getpid()}/exe")
    os.mkfifo(top / "pipe")
    handle = os.open(top, os.O_PATH)
    yield handle
    os.close(handle)


def read(root: int, path: str, *, links: bool = True) -> bytes:
    with open_below(root, path, links=links) as file:
        return file.read()


@pytest.mark.parametrize("path", ["file", "/file", "//folder/../file", "../../file", "absolute", "up", "into/../file"])
def test_every_path_and_link_is_relative_to_the_root(root: int, path: str) -> None:
    assert read(root, path) == b"inside"


@pytest.mark.parametrize("path", ["out", "../secret", "magic", "nothing", "a" * 300])
def test_nothing_outside_is_reached(root: int, path: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - ENOENT, ELOOP or ENAMETOOLONG
        open_below(root, path)


@pytest.mark.parametrize("path", ["folder", "into", "pipe", "file\0", "/"])
def test_what_is_no_regular_file_is_refused(root: int, path: str) -> None:
    with pytest.raises(OSError, match="not a"):
        open_below(root, path)


@pytest.mark.parametrize("path", ["absolute", "up", "into/secret"])
def test_no_link_is_followed_where_that_is_not_wanted(root: int, path: str) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        open_below(root, path, links=False)
    assert read(root, "file", links=False) == b"inside"


def test_an_open_file_leaves_one_descriptor_and_a_refused_one_none(root: int) -> None:
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names wanted
    with open_below(root, "file") as file:
        assert not os.get_inheritable(file.fileno())
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1  # noqa: PTH208 - names wanted
    with pytest.raises(OSError, match="not a regular file"):
        open_below(root, "folder")
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names wanted


def test_the_root_of_a_process_is_given_by_pid_or_directory_and_of_none_is_ours() -> None:
    directory = ProcessDirectory.held(os.getpid())
    for process in (os.getpid(), directory, None):
        with root_of(process) as root:
            assert os.path.samestat(os.fstat(root), Path("/").stat())
    directory.close()
    for gone in (directory, ended_child()):
        with pytest.raises(ProcessGone), root_of(gone):
            pass


def test_a_root_spans_file_systems() -> None:
    with root_of(None) as root:
        assert read(root, "/proc/version") == Path("/proc/version").read_bytes()


def test_the_descriptor_of_a_root_is_closed_when_it_is_left() -> None:
    with root_of(None) as root:
        assert not os.get_inheritable(root)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(root)
