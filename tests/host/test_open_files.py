"""The budget of descriptors."""

from __future__ import annotations

import resource

import pytest

from pyflame_ebpf.host.open_files import (
    FILES_MAX,
    OTHER_FILES,
    PROCESSES_MAX,
    allow_open_files,
    files_allowed,
    processes_allowed,
)

ALL = FILES_MAX + PROCESSES_MAX + OTHER_FILES
UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "files", "processes"),
    [
        (256, 128, 32),
        (1024, 512, 128),
        (4096, 2560, 512),
        (8192, 6144, 1024),
        (ALL - 1, FILES_MAX - 1 + PROCESSES_MAX - (ALL - 1) // 8, (ALL - 1) // 8),
        (1 << 15, FILES_MAX, 4096),
        (1 << 20, FILES_MAX, PROCESSES_MAX),
        (UNLIMITED, FILES_MAX, PROCESSES_MAX),
    ],
)
def test_files_and_processes_leave_room_for_other_descriptors(
    soft: int, files: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, UNLIMITED))
    assert (files_allowed(), processes_allowed()) == (min(files, FILES_MAX), processes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((256, 512), (512, 512)),
        ((256, 1 << 20), (ALL, 1 << 20)),
        ((256, UNLIMITED), (ALL, UNLIMITED)),
        ((1 << 19, 1 << 20), None),
        ((ALL, 1 << 20), None),
        ((UNLIMITED, UNLIMITED), None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_is_needed_and_allowed(
    before: tuple[int, int], after: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    allow_open_files()
    assert told == ([after] if after else [])
