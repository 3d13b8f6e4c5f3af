"""Saving by a copy of this process while it goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pyflame_ebpf.commands.background_save import BackgroundSave, SaveOutcome
from pyflame_ebpf.host.output_directory import DiskFull, OutputUnwritable
from pyflame_ebpf.profile.model import Profile
from tests.profiles import realistic_profile

Saving = Callable[[], BackgroundSave]


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def saving(tmp_path: Path) -> Saving:
    return lambda: BackgroundSave(tmp_path / "saved", realistic_profile)


def test_what_was_recorded_is_saved_meanwhile(saving: Saving, tmp_path: Path) -> None:
    assert saving().outcome(None) == SaveOutcome(f"saved in {tmp_path / 'saved'}")
    assert (tmp_path / "saved" / "profile.json.gz").stat().st_size


def test_a_host_with_many_open_files_is_no_hindrance(many_open_files: None, saving: Saving, tmp_path: Path) -> None:
    assert saving().outcome(None) == SaveOutcome(f"saved in {tmp_path / 'saved'}")


def failure_of(saving: BackgroundSave) -> tuple[int, str, str]:
    """Exit code, message and hint."""
    outcome = saving.outcome(None)
    assert outcome is not None
    failure = outcome.failure
    assert failure is not None
    return failure.exit_code, failure.message, failure.hint


def test_what_it_fails_by_is_told_as_in_this_process(tmp_path: Path) -> None:
    def nothing() -> Profile:
        raise DiskFull("no room at \xe0", "Make room.")

    assert failure_of(BackgroundSave(tmp_path / "saved", nothing)) == (15, "no room at \xe0", "Make room.")


def test_a_defect_is_told_with_its_report(tmp_path: Path) -> None:
    def broken() -> Profile:
        raise RuntimeError("made to fail")

    code, message, _ = failure_of(BackgroundSave(tmp_path / "saved", broken))
    report = Path(message.rpartition(" its report is ")[2])
    assert (code, message[:53]) == (70, "a defect in pyflame-ebpf: RuntimeError: made to fail;")
    assert "made to fail" in report.read_text()
    report.unlink()


def test_a_saving_that_is_killed_has_failed(tmp_path: Path) -> None:
    def killed() -> Profile:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    saved = tmp_path / "saved"
    assert failure_of(BackgroundSave(saved, killed)) == (1, f"saving to {saved} was broken off", "")


def test_without_room_for_another_process_the_view_is_told(
    monkeypatch: pytest.MonkeyPatch, saving: Saving, tmp_path: Path
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = open_files()
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OutputUnwritable, match="temporarily unavailable"):
        saving()
    assert open_files() == before
    assert not (tmp_path / "saved").exists()
