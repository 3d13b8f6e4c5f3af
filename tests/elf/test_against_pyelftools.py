"""The package's reading of ELF files against that of pyelftools; scripts/check_elf.py does it for whole folders."""

from __future__ import annotations

from pathlib import Path

import check_elf
import pytest

from tests.elf.libraries import LIBRARY, SHARED, Build, libc, run


@pytest.mark.parametrize("flags", [(), ("-Wl,--hash-style=sysv",), ("-Wl,--build-id=none", "-s")], ids=" ".join)
def test_a_library_is_read_as_pyelftools_does(build: Build, flags: tuple[str, ...]) -> None:
    report = check_elf.Report()
    assert check_elf.check(build(LIBRARY, *SHARED, *flags), report) == []
    assert (report.files, report.symbols > 5, report.different) == (1, True, 0)


def test_the_c_library_is_read_as_pyelftools_does() -> None:
    assert check_elf.check(libc(), check_elf.Report()) == []


def test_a_difference_is_told(build: Build) -> None:
    """A file whose .dynsym is shorter by its section header than by its hash table."""
    library = build(LIBRARY, *SHARED)
    run("objcopy", "--strip-all", library)
    data = bytearray(library.read_bytes())
    headers = int.from_bytes(data[40:48], "little")
    number = next(at for at in range(30) if int.from_bytes(data[headers + 64 * at + 4 :][:4], "little") == 11)
    size = headers + 64 * number + 32
    data[size : size + 8] = (int.from_bytes(data[size : size + 8], "little") - 24).to_bytes(8, "little")
    library.write_bytes(data)
    report = check_elf.Report()
    assert any("symbols" in difference for difference in check_elf.check(library, report))
    assert report.different == 1


def test_files_are_found_once_each_by_their_first_bytes(build: Build, tmp_path: Path) -> None:
    library = build(LIBRARY, *SHARED)
    (tmp_path / "text").write_text("no ELF")
    (tmp_path / "link").symlink_to(library)
    (tmp_path / "hard").hardlink_to(library)
    assert list(check_elf.elf_files([tmp_path])) == [library]
    assert list(check_elf.elf_files([tmp_path / "link"])) == [tmp_path / "link"]
