"""Files behind mappings, and the vDSO."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.host import mapped_files
from pyflame_ebpf.host.mapped_files import executable_identity, open_code, open_mapped_file
from pyflame_ebpf.host.maps import Mapping, mappings
from pyflame_ebpf.host.process_directory import ProcessDirectory
from tests.host.live_children import waiting


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with waiting() as process:
        yield process


def of_a_file(pid: int) -> Mapping:
    return next(found for found in mappings(pid) if found.inode and found.executable)


@pytest.mark.root
def test_a_mapped_file_is_opened_even_when_it_was_deleted(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        try:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:  # the kernel shows the program before it has mapped it
                if any(found.path == str(program) and found.executable for found in mappings(process.pid)):
                    break
            program.unlink()
            mapping = next(found for found in mappings(process.pid) if found.path == str(program))
            with open_mapped_file(process.pid, mapping) as file:
                assert (mapping.deleted, file.read(4)) == (True, b"\x7fELF")
        finally:
            process.kill()


def test_a_mapped_file_is_the_one_that_is_mapped(child: subprocess.Popen[bytes]) -> None:
    mapping = of_a_file(child.pid)
    with open_mapped_file(child.pid, mapping) as file, open_code(child.pid, mapping) as code:
        assert os.fstat(file.fileno()).st_ino == os.fstat(code.fileno()).st_ino == mapping.inode


def test_a_file_is_opened_by_its_place_in_memory_and_else_by_its_path_below_the_processs_root(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(_directory: ProcessDirectory, name: str, _place: tuple[int, int]) -> BinaryIO:
        asked.append(name)
        raise PermissionError

    monkeypatch.setattr(ProcessDirectory, "open_regular", refuse)
    mapping = Mapping(0xABC000, 0xDEF000, 0, True, 1, 2, "/usr/lib/x.so")
    for each in (mapping, replace(mapping, deleted=True), replace(mapping, path="[heap]")):
        with pytest.raises(PermissionError):
            open_mapped_file(child.pid, each)
    place = "map_files/abc000-def000"
    assert asked == [place, "root/usr/lib/x.so", place, place]


def test_a_replaced_mapping_is_not_taken_for_the_old_one(child: subprocess.Popen[bytes]) -> None:
    mapping = of_a_file(child.pid)
    with pytest.raises(OSError, match="another file"):
        open_mapped_file(child.pid, replace(mapping, inode=mapping.inode + 1))


def test_devices_differ_between_maps_and_stat_on_some_file_systems(child: subprocess.Popen[bytes]) -> None:
    mapping = of_a_file(child.pid)
    other = replace(mapping, inode=mapping.inode + 1, device=mapping.device + 1)
    with open_mapped_file(child.pid, other) as file:
        assert os.fstat(file.fileno()).st_ino == mapping.inode
    with pytest.raises(OSError, match="another file"):
        open_mapped_file(child.pid, replace(other, inode=0))


def test_without_its_place_a_file_is_opened_by_its_path(child: subprocess.Popen[bytes]) -> None:
    mapping = replace(of_a_file(child.pid), start=0x1000, end=0x2000)
    with open_mapped_file(child.pid, mapping) as file:
        assert os.fstat(file.fileno()).st_ino == mapping.inode
    for nowhere in (replace(mapping, deleted=True), replace(mapping, path="no/root")):
        with pytest.raises(FileNotFoundError):
            open_mapped_file(child.pid, nowhere)


# ---- the program ----


def test_the_program_is_known_by_its_inode_else_by_its_path(child: subprocess.Popen[bytes]) -> None:
    status = Path(f"/proc/{child.pid}/exe").stat()
    mapping = Mapping(0, 1, 0, True, status.st_dev, status.st_ino, "/elsewhere")
    path = str(Path(f"/proc/{child.pid}/exe").readlink())
    overlay = replace(mapping, device=status.st_dev + 1, inode=7, path=path)
    other = replace(mapping, inode=8)
    assert executable_identity(child.pid, [other, mapping, overlay]) == (status.st_dev, status.st_ino)
    assert executable_identity(child.pid, [other, overlay]) == (status.st_dev + 1, 7)
    assert executable_identity(child.pid, [other]) == (0, 0)


# ---- the vDSO ----


def vdso_of_this_process() -> Mapping:
    return next(mapping for mapping in mappings(os.getpid()) if mapping.path == "[vdso]")


def test_the_vdso_is_read_from_this_process_whose_own_nobody_else_writes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_files, "read_memory", lambda *_: b"\x7fELF as another process would like it")
    mapping = vdso_of_this_process()
    with open_code(1, replace(mapping, start=0x1000, end=0x2000)) as file:
        assert os.pread(file.fileno(), 1 << 20, 0) == ctypes.string_at(mapping.start, mapping.end - mapping.start)


def test_without_a_vdso_of_its_own_this_process_reads_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    vdso = vdso_of_this_process()
    monkeypatch.setattr(mapped_files, "parse_maps", lambda _: [replace(vdso, path="[vvar]")])
    monkeypatch.setattr(mapped_files, "read_memory", lambda *place: repr(place).encode())
    with open_code(7, replace(vdso, start=0x1000, end=0x2000)) as file:
        assert os.pread(file.fileno(), 100, 0) == b"(7, 4096, 4096)"
