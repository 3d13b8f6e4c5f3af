"""Which rights a recording has, and which it gave up, seen from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyflame_ebpf.host.capabilities import kept_while_sampling
from pyflame_ebpf.host.proc import status_field
from tests.command_line import BusyProcess, RunningRecording, wait_for_other_recordings

pytestmark = pytest.mark.root

STATUS = "cat /proc/self/status > {place}; while :; do :; done"


def capabilities(status: bytes, name: bytes = b"CapPrm") -> int:
    return int(status_field(status, name)[0], 16)


def test_once_it_samples_every_thread_has_only_the_rights_that_it_still_needs(tmp_path: Path) -> None:
    wait_for_other_recordings()
    here = capabilities(Path("/proc/self/status").read_bytes())
    with BusyProcess() as busy, RunningRecording("--all", "--output", tmp_path / "out") as recording:
        busy.wait_until_used()
        threads = [path.read_bytes() for path in Path(f"/proc/{recording.process.pid}/task").glob("*/status")]
        assert recording.interrupt() == 0
    assert threads
    for status in threads:
        assert capabilities(status) == capabilities(status, b"CapEff") == here & kept_while_sampling()
        assert status_field(status, b"NoNewPrivs") == [b"1"]


def test_the_started_program_has_the_rights_of_who_started_the_profiler(tmp_path: Path) -> None:
    wait_for_other_recordings()
    place = tmp_path / "status"
    command = ("timeout", "2", "sh", "-c", STATUS.format(place=place))
    with RunningRecording("--output", tmp_path / "out", "--", *command) as recording:
        assert recording.end() == 0
    status, here = place.read_bytes(), Path("/proc/self/status").read_bytes()
    assert [capabilities(text) for text in (status, here)] == [capabilities(here)] * 2
    assert status_field(status, b"NoNewPrivs") == status_field(here, b"NoNewPrivs")
