"""Which file systems may stall."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyflame_ebpf.host import file_systems
from pyflame_ebpf.host.file_systems import may_stall, trusted_overlays

MOUNTS = rb"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:40 / /home/u/remote rw - fuse.sshfs u@h: rw,user_id=1000
29 27 0:41 / /srv rw shared:5 - nfs4 h:/srv rw
50 27 0:50 / /docker/merged rw - overlay overlay rw,lowerdir=/docker/a:/docker/b,upperdir=/docker/u,workdir=/docker/w
51 27 0:51 / /docker/lazy rw - overlay overlay rw,lowerdir=/docker/a:/home/u/remote/b,upperdir=/docker/u
52 27 0:52 / /docker/shared rw - overlay overlay rw,lowerdir=/srv/a
53 27 0:53 / /docker/relative rw - overlay overlay rw,lowerdir=11/fs:10/fs
cut short
"""


def test_an_overlay_is_trusted_where_all_of_its_layers_are_local() -> None:
    assert trusted_overlays(MOUNTS) == {(0, 50), (0, 53)}


def test_a_file_of_a_local_file_system_does_not_stall_and_one_of_proc_may(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as local, Path("/proc/self/stat").open("rb") as other:
        assert [may_stall(local.fileno()), may_stall(other.fileno())] == [False, True]


@pytest.mark.parametrize("trusted", [True, False])
def test_an_overlay_that_this_process_does_not_see_may_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    (tmp_path / "file").touch()
    device = (tmp_path / "file").stat().st_dev
    here = (os.major(device), os.minor(device))
    monkeypatch.setattr(file_systems, "_kind_of", lambda _file: 0x794C7630)
    monkeypatch.setattr(file_systems, "_trusted_overlays", lambda: {here} if trusted else set())
    with (tmp_path / "file").open("rb") as file:
        assert may_stall(file.fileno()) is not trusted
