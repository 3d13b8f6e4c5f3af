"""The share of the CPU while recording, and that it is given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyflame_ebpf.recording import priority
from pyflame_ebpf.recording.priority import NICENESS, urgent


@pytest.fixture
def autogroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "autogroup"
    file.write_text("/autogroup-33 nice 3\n")
    monkeypatch.setattr(priority, "AUTOGROUP", file)
    return file


def test_the_session_is_raised_while_it_records_and_put_back(autogroup: Path) -> None:
    with urgent(with_session=True):
        assert autogroup.read_text() == f"{NICENESS}\n"
    assert autogroup.read_text() == "3\n"


def test_a_session_that_is_before_others_already_stays_so(autogroup: Path) -> None:
    autogroup.write_text("/autogroup-33 nice -15\n")
    with urgent(with_session=True):
        assert autogroup.read_text() == "-15\n"


def test_the_session_is_left_alone_where_it_runs_what_is_recorded(autogroup: Path) -> None:
    with urgent(with_session=False):
        assert autogroup.read_text() == "/autogroup-33 nice 3\n"


def test_without_autogroups_the_process_alone_is_raised(autogroup: Path) -> None:
    autogroup.unlink()
    with urgent(with_session=True):
        assert not autogroup.exists()


def niceness() -> tuple[int, str]:
    """Of this process, and what the kernel says of its session; "" where there are no autogroups."""
    session = Path("/proc/self/autogroup")
    return os.getpriority(os.PRIO_PROCESS, 0), session.read_text() if session.exists() else ""


@pytest.mark.root
def test_process_and_session_are_as_before_once_it_has_recorded() -> None:
    before = niceness()
    with urgent(with_session=True):
        own, session = niceness()
        assert own == NICENESS
        assert not session or session.endswith(f" nice {NICENESS}\n")
    assert niceness() == before
