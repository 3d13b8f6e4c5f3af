"""Saving by a copy of this process while it goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from profiles import realistic_profile

from pyflame_ebpf.commands.background_save import BackgroundSave
from pyflame_ebpf.output_directory import OutputUnwritable


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def saving(tmp_path):
    return lambda: BackgroundSave(tmp_path / "saved", realistic_profile)


def test_what_was_recorded_is_saved_meanwhile(saving, tmp_path):
    assert saving().outcome(None) == f"saved in {tmp_path / 'saved'}"
    assert (tmp_path / "saved" / "profile.json.gz").stat().st_size


def test_a_host_with_many_open_files_is_no_hindrance(many_open_files, saving, tmp_path):
    assert saving().outcome(None) == f"saved in {tmp_path / 'saved'}"


def test_without_room_for_another_process_the_view_is_told(monkeypatch, saving, tmp_path):
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = open_files()
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OutputUnwritable, match="temporarily unavailable"):
        saving()
    assert open_files() == before
    assert not (tmp_path / "saved").exists()
