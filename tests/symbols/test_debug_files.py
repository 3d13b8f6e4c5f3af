"""Where symbols are that were stripped, and what only claims to be them."""

from __future__ import annotations

import contextlib
import lzma
import os
import subprocess
import time
import zlib
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.elf.budget import Budget
from pyflame_ebpf.elf.file import FileIdentity, identity_of
from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.symbols import debug_files
from pyflame_ebpf.symbols.debug_files import (
    DebugFiles,
    Wanted,
    debug_paths,
    is_debug_file_of,
    open_debug_file,
    unpack_debug_data,
    wanted_by,
)
from tests.elf.libraries import address_of, image_of, known, run, symbols_of

SOURCE = """
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
int visible(int x) { return hidden(x); }
"""
BUILD_ID = "-Wl,--build-id=0x0123456789abcdef"


def build(folder: Path, *flags: str) -> Path:
    target = folder / "lib.so"
    command: list[str | Path] = ["gcc", "-O1", "-x", "c", "-", "-shared", "-fPIC", "-o", target, *flags]
    subprocess.run(command, input=SOURCE.encode(), check=True)
    return target


def split(library: Path, debug: Path, *, link: bool = False) -> None:
    """Move a library's symbols into a debug file of their own."""
    debug.parent.mkdir(parents=True, exist_ok=True)
    run("objcopy", "--only-keep-debug", library, debug)
    run("strip", "-s", library)
    if link:
        run("objcopy", f"--add-gnu-debuglink={debug}", library)


def hidden_address(library: Path, files: DebugFiles | None = None) -> int:
    """The address of ``hidden`` in the debug file that is found, -1 for none."""
    with symbols_of(library) as symbols:
        identity = (files or DebugFiles()).find(symbols, str(library), 0)
        if identity is None:
            return -1
        with open_debug_file(symbols, str(library), 0, identity) as found:
            assert found is not None
            functions = found.static_functions(range(0x4000))
            return next(vaddr for vaddr, hit in functions.items() if hit == ("hidden", 0))


def test_a_debug_file_is_found_by_build_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_files, "_DEBUG_ROOT", str(tmp_path / "debug"))
    library = build(tmp_path, BUILD_ID)
    expected = address_of(library, "hidden")
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
    computed: list[int] = []
    checksum = debug_files.checksum

    def noted(file: BinaryIO, size: int, budget: Budget | None) -> int:
        computed.append(size)
        return checksum(file, size, budget)

    monkeypatch.setattr(debug_files, "checksum", noted)
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
    parsed: list[object] = []
    with symbols_of(library) as symbols:
        found = files.find(symbols, str(library), os.getpid())
        monkeypatch.setattr(debug_files, "ElfImage", parsed.append)
        monkeypatch.setattr(ElfImage, "sections", property(parsed.append))
        assert files.find(ElfSymbols(symbols.image), str(library), 0) == found == debug_identity(debug)
    assert not parsed


def debug_identity(path: Path) -> FileIdentity:
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


def with_debug_data(folder: Path, packed: bytes) -> Path:
    library = build(folder, "-s")
    (folder / "packed").write_bytes(packed)
    run("objcopy", f"--add-section=.gnu_debugdata={folder / 'packed'}", library)
    return library


def unpacked_address(library: Path) -> int:
    with image_of(library) as image:
        unpacked = unpack_debug_data(image)
        assert unpacked is not None
        with unpacked:
            return known(ElfSymbols(ElfImage(unpacked)).symbol("hidden")).vaddr


def test_compressed_symbols_are_unpacked(tmp_path: Path) -> None:
    whole = build(tmp_path)
    expected = address_of(whole, "hidden")
    assert unpacked_address(with_debug_data(tmp_path, lzma.compress(whole.read_bytes()))) == expected


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"", "its .gnu_debugdata is cut short"),
        (lzma.compress(b"x" * 1000)[:40], "its .gnu_debugdata is cut short"),
        (b"no xz".ljust(100), "its .gnu_debugdata cannot be unpacked"),
        (lzma.compress(b"not ELF"), "its header does not fit into the file"),
        (lzma.compress(b"not ELF".ljust(100)), "not an ELF file for a 64-bit little-endian machine"),
    ],
)
def test_compressed_symbols_that_are_damaged_are_bad(tmp_path: Path, packed: bytes, reason: str) -> None:
    library = with_debug_data(tmp_path, packed)
    with pytest.raises(BadElf) as refused:
        unpacked_address(library)
    assert refused.value.message == reason


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


def linked(folder: Path, section: bytes) -> tuple[str, int] | None:
    """What a section .gnu_debuglink says."""
    library = build(folder, "-s")
    (folder / "link").write_bytes(section)
    run("objcopy", f"--add-section=.gnu_debuglink={folder / 'link'}", library)
    with image_of(library) as image:
        return debug_files.debug_link(image)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", ".", ""])
def test_a_debug_link_that_leads_elsewhere_counts_for_nothing(tmp_path: Path, name: str) -> None:
    assert linked(tmp_path, name.encode() + b"\0" * (4 - len(name) % 4) + b"\1\2\3\4") is None


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcd", "abcde"])
def test_a_debug_link_s_checksum_stands_after_the_padded_name(tmp_path: Path, name: str) -> None:
    section = name.encode() + b"\0" * (4 - len(name) % 4) + b"\1\2\3\4"
    assert linked(tmp_path, section) == (name, 0x04030201)
    assert linked(tmp_path, section + b"more") == (name, 0x04030201)
    assert linked(tmp_path, section[:-1]) is None


def test_a_debug_link_of_more_than_four_kib_counts_for_nothing(tmp_path: Path) -> None:
    assert linked(tmp_path, b"name\0\0\0\0" + bytes(4088)) == ("name", 0)
    assert linked(tmp_path, b"name\0\0\0\0" + bytes(4089)) is None


def test_debug_files_are_looked_for_by_build_id_first_then_beside_the_file() -> None:
    link = ("x.debug", 1)
    assert list(debug_paths(Wanted(62, bytes.fromhex("abcdef"), link), "/usr/lib/libx.so")) == [
        "/usr/lib/debug/.build-id/ab/cdef.debug",
        "/usr/lib/x.debug",
        "/usr/lib/.debug/x.debug",
        "/usr/lib/debug/usr/lib/x.debug",
    ]
    assert list(debug_paths(Wanted(62, b"\xab", link), "/x")) == [
        "/x.debug",
        "/.debug/x.debug",
        "/usr/lib/debug/x.debug",
    ]
    assert list(debug_paths(Wanted(62, b"", link), "[vdso]")) == []
    assert list(debug_paths(Wanted(62, b"", None), "/usr/lib/libx.so")) == []


def test_a_debug_file_has_the_machine_and_the_build_id_or_else_the_checksum(tmp_path: Path) -> None:
    with_id, without = (
        build(tmp_path, f"-Wl,--build-id={value}").rename(tmp_path / value) for value in ("0xab", "none")
    )

    def matches(path: Path, wanted: Wanted) -> bool:
        with symbols_of(path) as symbols:
            return is_debug_file_of(symbols, wanted, lambda: 7)

    assert matches(with_id, Wanted(62, b"\xab", None))
    assert not matches(with_id, Wanted(62, b"\xab\xcd", ("x", 7)))
    assert not matches(with_id, Wanted(183, b"\xab", None))
    assert matches(with_id, Wanted(62, b"", ("x", 7)))
    assert matches(without, Wanted(62, b"\xab", ("x", 7)))
    assert not matches(without, Wanted(62, b"\xab", ("x", 8)))
    assert not matches(without, Wanted(62, b"\xab", None))
    run("strip", "-s", with_id)
    assert not matches(with_id, Wanted(62, b"\xab", None))


def test_a_file_with_all_its_symbols_wants_no_debug_file(tmp_path: Path) -> None:
    library = build(tmp_path, BUILD_ID)
    with symbols_of(library) as symbols:
        assert wanted_by(symbols) is None
        assert DebugFiles().find(symbols, str(library), 0) is None
        with open_debug_file(symbols, str(library), 0, symbols.image.identity) as found:
            assert found is None


def test_a_debug_file_that_is_another_one_by_now_is_not_opened(tmp_path: Path) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    with symbols_of(library) as symbols:
        identity = DebugFiles().find(symbols, str(library), 0)
        assert identity is not None
        with (tmp_path / "lib.debug").open("ab") as file:
            file.write(b"\0")
        with open_debug_file(symbols, str(library), 0, identity) as found:
            assert found is None


def test_an_open_debug_file_keeps_one_descriptor_open(tmp_path: Path) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    with symbols_of(library) as symbols:
        identity = DebugFiles().find(symbols, str(library), os.getpid())
        assert identity is not None
        before = descriptors()
        with open_debug_file(symbols, str(library), os.getpid(), identity):
            assert descriptors() == before + 1
        assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_that_is_too_large_has_no_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    size = (tmp_path / "lib.debug").stat().st_size
    monkeypatch.setattr(debug_files, "_CHECKSUM_MAX", size - 1)
    assert hidden_address(library) == -1
    monkeypatch.setattr(debug_files, "_CHECKSUM_MAX", size)
    assert hidden_address(library) > 0


def test_the_checksum_is_zlib_s_of_all_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 5)
    monkeypatch.setattr(debug_files, "_STEP", 1000)
    with (tmp_path / "file").open("rb") as file:
        assert debug_files.checksum(file, 1280) == zlib.crc32(bytes(range(256)) * 5)
        assert debug_files.checksum(file, 1000) == zlib.crc32((bytes(range(256)) * 5)[:1000])


def test_what_is_remembered_of_too_many_files_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_files, "_REMEMBERED_MAX", 2)
    files = DebugFiles()
    for number in range(3):
        library = build(tmp_path, f"-Wl,--build-id=0x{number:04x}")
        assert hidden_address(library, files) == -1
    assert len(files._wanted) == 1


@pytest.mark.parametrize("less", [0, 1])
def test_symbols_unpack_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, less: int) -> None:
    whole = build(tmp_path)
    expected = address_of(whole, "hidden")
    data = whole.read_bytes()
    monkeypatch.setattr(debug_files, "UNPACKED_MAX", len(data) - less)
    library = with_debug_data(tmp_path, lzma.compress(data))
    if less:
        with pytest.raises(BadElf, match="unpacks to too much"):
            unpacked_address(library)
    else:
        assert unpacked_address(library) == expected


@pytest.mark.parametrize("less", [0, 1])
def test_symbols_are_unpacked_from_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, less: int) -> None:
    packed = lzma.compress(build(tmp_path).read_bytes())
    monkeypatch.setattr(debug_files, "_PACKED_MAX", len(packed) - less)
    library = with_debug_data(tmp_path, packed)
    with pytest.raises(BadElf, match="does not fit") if less else contextlib.nullcontext():
        assert unpacked_address(library) > 0


def test_a_file_that_cannot_be_unpacked_leaves_no_descriptor_open(tmp_path: Path) -> None:
    libraries = []
    for number, packed in enumerate((b"no xz", lzma.compress(b"x" * 1000)[:40])):
        libraries.append(with_debug_data(tmp_path, packed).rename(tmp_path / f"{number}"))
    before = descriptors()
    for library in libraries:
        with pytest.raises(BadElf):
            unpacked_address(library)
    assert descriptors() == before
