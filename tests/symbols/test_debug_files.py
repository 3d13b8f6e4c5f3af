"""Where symbols are that were stripped, and what only claims to be them."""

from __future__ import annotations

import lzma
import os
import subprocess
import time
from pathlib import Path

import pytest

from pyflame_ebpf.elf.file import identity_of
from pyflame_ebpf.elf.image import BadElf, ElfImage, open_regular
from pyflame_ebpf.symbols import debug_files
from pyflame_ebpf.symbols.debug_files import DebugFiles, open_debug_file, unpack_debug_data

SOURCE = """
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
int visible(int x) { return hidden(x); }
"""
BUILD_ID = "-Wl,--build-id=0x0123456789abcdef"


def run(*command) -> None:
    subprocess.run(command, check=True)


def build(folder, *flags):
    target = folder / "lib.so"
    command = ["gcc", "-O1", "-x", "c", "-", "-shared", "-fPIC", "-o", target, *flags]
    subprocess.run(command, input=SOURCE.encode(), check=True)
    return target


def split(library, debug, *, link: bool = False) -> None:
    """Move a library's symbols into a debug file of their own."""
    debug.parent.mkdir(parents=True, exist_ok=True)
    run("objcopy", "--only-keep-debug", library, debug)
    run("strip", "-s", library)
    if link:
        run("objcopy", f"--add-gnu-debuglink={debug}", library)


def hidden_address(library, files=None):
    """The address of ``hidden`` in the debug file that is found, -1 for none."""
    with open_regular(str(library)) as file:
        image = ElfImage(file)
        identity = (files or DebugFiles()).find(image, str(library), 0)
        if identity is None:
            return -1
        with open_debug_file(image, str(library), 0, identity) as found:
            functions = found.static_functions(range(0x4000))
            return next(vaddr for vaddr, hit in functions.items() if hit == ("hidden", 0))


def test_a_debug_file_is_found_by_build_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_files, "_DEBUG_ROOT", str(tmp_path / "debug"))
    library = build(tmp_path, BUILD_ID)
    with open_regular(str(library)) as file:
        expected = ElfImage(file).symbol("hidden").vaddr
    split(library, tmp_path / "debug/.build-id/01/23456789abcdef.debug")
    assert hidden_address(library) == expected


def test_a_debug_file_with_another_build_id_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_files, "_DEBUG_ROOT", str(tmp_path / "debug"))
    other = build(tmp_path, "-Wl,--build-id=0xffff")
    split(other, tmp_path / "debug/.build-id/01/23456789abcdef.debug")
    assert hidden_address(build(tmp_path, BUILD_ID, "-s")) == -1


@pytest.mark.parametrize("place", [".debug/lib.debug", "lib.debug"])
def test_a_debug_file_without_build_id_is_found_by_link_and_checksum(tmp_path: Path, place: str) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / place, link=True)
    assert hidden_address(library) > 0


def test_a_debug_file_with_another_checksum_is_refused(tmp_path: Path) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    with (tmp_path / "lib.debug").open("ab") as file:
        file.write(b"\0")
    assert hidden_address(library) == -1


def test_a_checksum_is_computed_once_as_long_as_the_debug_file_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    computed = []
    checksum = debug_files.checksum
    monkeypatch.setattr(debug_files, "checksum", lambda *args: computed.append(args) or checksum(*args))
    files = DebugFiles()
    assert hidden_address(library, files) == hidden_address(library, files) > 0
    other = tmp_path / "other.so"
    other.write_bytes(library.read_bytes())
    assert hidden_address(other, files) > 0
    assert len(computed) == 1
    with (tmp_path / "lib.debug").open("ab") as file:
        file.write(b"\0")
    assert hidden_address(library, files) == -1
    assert len(computed) == 2


def test_checksums_are_computed_of_so_many_bytes_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    (tmp_path / "lib.debug").rename(tmp_path / "true")
    (tmp_path / "lib.debug").write_bytes((tmp_path / "true").read_bytes() + b"\0")
    monkeypatch.setattr(debug_files, "_CHECKSUMS_MAX", (tmp_path / "true").stat().st_size + 1)
    files = DebugFiles()
    assert hidden_address(library, files) == -1
    (tmp_path / "true").rename(tmp_path / "lib.debug")
    assert hidden_address(library, files) == -1
    assert hidden_address(library) > 0


def test_files_are_read_once_however_many_processes_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_files, "_DEBUG_ROOT", str(tmp_path / "debug"))
    library = build(tmp_path, BUILD_ID)
    debug = tmp_path / "debug/.build-id/01/23456789abcdef.debug"
    split(library, debug)
    files = DebugFiles()
    parsed = []
    with open_regular(str(library)) as file:
        found = files.find(ElfImage(file), str(library), os.getpid())
        monkeypatch.setattr(debug_files, "ElfImage", parsed.append)
        monkeypatch.setattr(ElfImage, "sections", property(parsed.append))
        assert files.find(ElfImage(file), str(library), 0) == found == debug_identity(debug)
    assert not parsed


def debug_identity(path):
    with path.open("rb") as file:
        return identity_of(file)


def test_a_debug_file_that_comes_later_is_found(tmp_path: Path) -> None:
    """That there is none in one process's root says nothing of others."""
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    (tmp_path / "lib.debug").rename(tmp_path / "elsewhere")
    files = DebugFiles()
    assert hidden_address(library, files) == -1
    (tmp_path / "elsewhere").rename(tmp_path / "lib.debug")
    assert hidden_address(library, files) > 0


def test_a_fifo_in_place_of_a_debug_file_is_refused_without_waiting(tmp_path: Path) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    (tmp_path / "lib.debug").unlink()
    run("mkfifo", tmp_path / "lib.debug")
    assert hidden_address(library) == -1


def with_debug_data(folder, packed):
    library = build(folder, "-s")
    (folder / "packed").write_bytes(packed)
    run("objcopy", f"--add-section=.gnu_debugdata={folder / 'packed'}", library)
    return library


def unpacked_address(library):
    with open_regular(str(library)) as file:
        unpacked = unpack_debug_data(ElfImage(file))
        assert unpacked is not None
        with unpacked:
            return ElfImage(unpacked).symbol("hidden").vaddr


def test_compressed_symbols_are_unpacked(tmp_path: Path) -> None:
    whole = build(tmp_path)
    with open_regular(str(whole)) as file:
        expected = ElfImage(file).symbol("hidden").vaddr
    assert unpacked_address(with_debug_data(tmp_path, lzma.compress(whole.read_bytes()))) == expected


@pytest.mark.parametrize("packed", [b"", b"no xz", lzma.compress(b"x" * 1000)[:40], lzma.compress(b"not ELF")])
def test_compressed_symbols_that_are_damaged_are_bad(tmp_path: Path, packed) -> None:
    with pytest.raises(BadElf):
        unpacked_address(with_debug_data(tmp_path, packed))


def test_compressed_symbols_that_unpack_to_gigabytes_are_bad_soon(tmp_path: Path) -> None:
    packed = lzma.compress(bytes(256 << 20), preset=0)
    library = with_debug_data(tmp_path, packed)
    began = time.process_time()
    with pytest.raises(BadElf, match="too much"):
        unpacked_address(library)
    assert time.process_time() - began < 3


def test_compressed_symbols_that_want_much_memory_are_bad(tmp_path: Path) -> None:
    packed = lzma.compress(b"\x7fELF", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}])
    with pytest.raises(BadElf, match="cannot be unpacked"):
        unpacked_address(with_debug_data(tmp_path, packed))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", ""])
def test_a_debug_link_that_leads_elsewhere_counts_for_nothing(tmp_path: Path, name: str) -> None:
    library = build(tmp_path, "-s")
    (tmp_path / "link").write_bytes(name.encode() + b"\0" * (4 - len(name) % 4) + b"\1\2\3\4")
    run("objcopy", f"--add-section=.gnu_debuglink={tmp_path / 'link'}", library)
    with open_regular(str(library)) as file:
        assert debug_files.debug_link(ElfImage(file)) is None
