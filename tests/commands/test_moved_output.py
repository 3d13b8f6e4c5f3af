"""An output directory that somebody moves, replaces or removes while it is written."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.commands.record import _unused
from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.commands.written_outputs import View, Written, write_recorded
from pyflame_ebpf.errors import Interrupted
from pyflame_ebpf.host import output_directory
from pyflame_ebpf.host.output_directory import OutputDirectory, OutputUnwritable
from pyflame_ebpf.outputs import formats as outputs
from pyflame_ebpf.outputs.formats import OutputFormat
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.profile.model import Profile
from tests.command_line import RECORDED_FILES
from tests.profiles import realistic_profile


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def write_while(meanwhile: Callable[[], None], monkeypatch: pytest.MonkeyPatch, out: Path) -> Written:
    """Write all outputs; this happens between the saved profile and the end."""

    def write(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
        meanwhile()
        stream.write(b"whole")

    monkeypatch.setitem(outputs.OUTPUT_FORMATS, "svg", OutputFormat("svg", "flamegraph.svg", write))
    monkeypatch.setattr(output_directory, "PLACES_WITH_ROOM", (str(out.parent / "room"),))
    (out.parent / "room").mkdir()
    with StopSignals() as signals, OutputDirectory(out) as directory:
        signals.note_only()
        return write_recorded(directory, realistic_profile(), View(), signals.raising(0))


def test_a_directory_that_was_replaced_has_its_files_named_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").mkdir()

    written = write_while(replace, monkeypatch, tmp_path / "out")
    assert isinstance(written.failure, OutputUnwritable)
    assert f"the files are in {tmp_path / 'moved'}" in written.failure.message
    assert sorted(written.paths) == [tmp_path / "moved" / name for name in RECORDED_FILES]
    assert names(tmp_path / "moved") == RECORDED_FILES
    assert names(tmp_path / "out") == []


def test_of_a_directory_that_was_removed_the_recording_is_saved_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_while(lambda: shutil.rmtree(tmp_path / "out"), monkeypatch, tmp_path / "out")
    (saved,) = (tmp_path / "room").iterdir()
    assert isinstance(written.failure, OutputUnwritable)
    assert written.failure.message == (
        f"{tmp_path / 'out'} was removed meanwhile, with its files; the recording is saved in {saved}"
    )
    assert written.paths == []
    with saved.open("rb") as stream:
        assert load_profile(stream) == realistic_profile()


def test_after_a_signal_the_place_that_is_named_is_where_the_profile_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move() -> None:
        (tmp_path / "out").rename(tmp_path / "moved")
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as interrupted:
        write_while(move, monkeypatch, tmp_path / "out")
    assert interrupted.value.message.endswith(f"the recording is saved in {tmp_path / 'moved' / 'profile.json.gz'}")


def test_after_a_signal_a_recording_that_was_removed_is_saved_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove() -> None:
        shutil.rmtree(tmp_path / "out")
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(OutputUnwritable, match="the recording is saved in"):
        write_while(remove, monkeypatch, tmp_path / "out")
    assert len(names(tmp_path / "room")) == 1


def test_recordings_that_begin_in_the_same_second_have_a_directory_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _unused("pyflame-1") == Path("pyflame-1")
    (tmp_path / "pyflame-1").mkdir()
    (tmp_path / "pyflame-1-1").symlink_to("nowhere")
    assert _unused("pyflame-1") == Path("pyflame-1-2")
