"""What the attacks of the project's own are made of: when signals come, what counts as whole, how an end is judged."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from _attack_files import ELF_FILES
from _attack_runs import Ended
from _attack_signals import SIGNALS, Shot, _whole, _wrong_end, shots


def test_every_signal_comes_in_every_phase_and_half_of_them_while_sampling() -> None:
    drawn = shots(48, seed=1)
    assert {(shot.name, shot.phase) for shot in drawn} == {
        (name, phase) for name in SIGNALS for phase in ("start", "sampling", "writing")
    }
    assert sum(shot.phase == "sampling" for shot in drawn) == 24
    assert drawn == shots(48, seed=1) != shots(48, seed=2)


@pytest.mark.parametrize(
    ("name", "content", "whole"),
    [
        ("a.json.gz", gzip.compress(b"{}"), True),
        ("a.json.gz", gzip.compress(b"{}")[:-3], False),
        ("a.svg", b"<svg></svg>\n", True),
        ("a.svg", b"<svg>", False),
        ("a.folded", b"a 1\n", True),
        ("a.folded", b"", False),
    ],
)
def test_a_file_that_is_cut_is_known(tmp_path: Path, name: str, content: bytes, whole: bool) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert _whole(path) is whole


@pytest.mark.parametrize(
    ("name", "phase", "code", "well"),
    [
        ("INT", "start", 130, True),
        ("INT", "sampling", 130, False),
        ("INT", "sampling", 0, True),
        ("KILL", "writing", -9, True),
        ("STOP", "sampling", 0, True),
        ("STOP", "sampling", 70, False),
    ],
)
def test_exit_codes_are_judged_by_signal_and_phase(
    tmp_path: Path, name: str, phase: str, code: int, well: bool
) -> None:
    (tmp_path / "profile.json.gz").write_bytes(gzip.compress(b"{}"))
    assert (not _wrong_end(Shot(name, phase, 0), code, "", tmp_path)) is well


def test_a_recording_that_is_late_large_or_defective_has_not_ended_well() -> None:
    assert Ended(0, 1.9, 300, 0, "").well()
    assert Ended(16, 0, 0, 0, "").well(0, 16)
    for ended in (
        Ended(0, 2.1, 0, 0, ""),
        Ended(0, 0, 301, 0, ""),
        Ended(70, 0, 0, 0, ""),
        Ended(0, 0, 0, 0, "Traceback"),
    ):
        assert not ended.well(ended.code)


@pytest.mark.parametrize("kind", ELF_FILES)
def test_elf_files_are_small_on_disk_and_are_elf_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb.so"
    ELF_FILES[kind](path)
    assert path.read_bytes()[:4] == b"\x7fELF"
    assert path.stat().st_blocks * 512 < 20 << 20
