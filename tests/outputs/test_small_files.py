"""Small files that stand for much: the commands read or refuse them within bounds of time and memory."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from tests.altered_profiles import content_of_one_process, packed
from tests.command_line import pyflame

MEMORY_MAX = 1 << 30  # bytes of address space, the interpreter's own included
CPU_MAX = 60  # seconds; a tenth of that on a machine that does nothing else
LIMITED = ("sh", "-c", f'exec prlimit --as={MEMORY_MAX} --cpu={CPU_MAX} -- "$@" >/dev/null', "sh")


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 stacks of 4,000 frames."""
    path = tmp_path_factory.mktemp("deep") / "profile.json.gz"
    path.write_bytes(packed(content_of_one_process(depth=4000, stacks=1000, seconds=1)))
    assert path.stat().st_size < 100_000
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One stack of 1,000 frames in each of 60,000 seconds."""
    path = tmp_path_factory.mktemp("long") / "profile.json.gz"
    path.write_bytes(packed(content_of_one_process(depth=1000, stacks=1, seconds=60_000)))
    assert path.stat().st_size < 400_000
    return path


@pytest.mark.parametrize("form", OUTPUT_FORMATS)
def test_deep_stacks_are_written_within_the_limits(deep: Path, form: str) -> None:
    ended = pyflame("report", deep, "--format", form, prefix=LIMITED)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("form", OUTPUT_FORMATS)
def test_a_stack_that_is_sampled_for_long_is_written_within_the_limits(long: Path, form: str) -> None:
    ended = pyflame("report", long, "--format", form, prefix=LIMITED)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_deep_stacks_are_compared_within_the_limits(deep: Path) -> None:
    ended = pyflame("diff", deep, deep, prefix=LIMITED)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_file_that_unpacks_to_very_much_is_refused_within_the_limits(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    blanks = b" " * (1 << 20)
    bomb = b"".join([packer.compress(blanks) for _ in range(300)]) + packer.flush()
    (tmp_path / "profile.json.gz").write_bytes(bomb)
    ended = pyflame("report", tmp_path, prefix=LIMITED)
    assert ended.returncode == 18
    assert "unpacks to more than 128 MiB" in ended.stderr
