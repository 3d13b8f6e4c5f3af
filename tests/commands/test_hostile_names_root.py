"""Plain users' processes whose names look like lines of the kernel's own texts, recorded for real."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.command_line import RECORDED_FILES, BusyProcess, record_while_used, wait_for_other_recordings

pytestmark = pytest.mark.root

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c")
NAMED = "import ctypes; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)\n"  # PR_SET_NAME
CLAIMS_A_FILE = NAMED + "exec(compile('while True:\\n  for i in range(2000):\\n    i += 1\\n', {file!r}, 'exec'))"
# mov $20000000,%ecx; 1: dec %ecx; jnz 1b; ret: code of no file, as a just-in-time compiler makes
RUNS_MADE_CODE = (
    NAMED
    + """
import mmap
made = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
made.write(bytes.fromhex("b9002d3101ffc975fcc3"))
call = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(made)))
while True:
    call()
"""
)


@pytest.mark.parametrize("name", [b"\x0cUid:0 0 0 0", b"\x85Uid:\t0\t0\t0\t0", b"\nUid:\t0\t0\t0\t0"])
def test_a_name_opens_no_file_of_root_s(name: bytes, tmp_path: Path) -> None:
    wait_for_other_recordings()
    secret = tmp_path / "secret"
    secret.write_text("".join(f"the secret of line {line}\n" for line in range(10)))
    secret.chmod(0o600)
    with BusyProcess(CLAIMS_A_FILE.format(name=name, file=str(secret)), AS_NOBODY) as process:
        arguments = ("--pid", str(process.pid), "--source", "--output", tmp_path / "out")
        ended = record_while_used(process, arguments=arguments)
    assert ended.process.returncode == 0, ended.stderr
    for file in RECORDED_FILES:
        content = (tmp_path / "out" / file).read_bytes()
        assert b"the secret of line" not in (gzip.decompress(content) if file.endswith(".gz") else content)
    folded = (tmp_path / "out" / "stacks.folded").read_text()
    assert "secret:" in folded  # it was sampled, and is named as it claims


@pytest.mark.parametrize("name", [b"\x0cNSpid: x", b"\x1cNSpid:\tx"])
def test_a_name_breaks_no_recording(name: bytes, tmp_path: Path) -> None:
    wait_for_other_recordings()
    with BusyProcess(RUNS_MADE_CODE.format(name=name), AS_NOBODY) as process:
        ended = record_while_used(process, arguments=("--pid", str(process.pid), "--output", tmp_path / "out"))
    assert ended.process.returncode == 0, ended.stderr
    assert f"({process.pid});" in (tmp_path / "out" / "stacks.folded").read_text()
