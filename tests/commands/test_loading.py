"""What reads saved recordings loads nothing of what makes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyflame_ebpf.outputs.comparison.formats import COMPARISON_FORMATS
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.profile.file import save_profile
from tests.command_line import environment
from tests.profiles import realistic_profile

ROOMS_OF_THE_RECORDER = {"recording", "stacks", "tracking", "sampling", "symbols", "unwind", "elf", "cpython"}
# Runs the command once for each format, then prints the package's modules.
PROGRAM = """
import runpy, sys
command, directory, *formats = sys.argv[1:]
for number, name in enumerate(formats):
    recordings = [f"{directory}/profile.json.gz"] * (1 if command == "report" else 2)
    sys.argv = ["pyflame-ebpf", command, *recordings, "--format", name, "--output", f"{directory}/{number}"]
    try:
        runpy.run_module("pyflame_ebpf", run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, (name, ended.code)
print(*[name for name in sys.modules if name.startswith("pyflame_ebpf.")])
"""


@pytest.mark.parametrize(
    ("command", "formats"),
    [("report", list(OUTPUT_FORMATS)), ("diff", list(COMPARISON_FORMATS))],
    ids=["report", "diff"],
)
def test_a_saved_recording_is_shown_without_a_module_of_the_recorder(
    tmp_path: Path, command: str, formats: list[str]
) -> None:
    with (tmp_path / "profile.json.gz").open("wb") as stream:
        save_profile(realistic_profile(), stream)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, command, tmp_path, *formats],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    loaded = ended.stdout.splitlines()[-1].split()
    assert f"pyflame_ebpf.commands.{command}" in loaded
    assert not {name for name in loaded if name.split(".")[1] in ROOMS_OF_THE_RECORDER}
