"""Names for a live view: by indexes of files, within bounds."""

from __future__ import annotations

import lzma
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.elf.file_contents import hold_names
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.host import maps
from pyflame_ebpf.symbols import indexed_files, native_symbols
from pyflame_ebpf.symbols.native_symbols import NativeSymbols
from tests.elf.libraries import LIBRARY, SHARED, Build, address_of, libc, run, symbols_of
from tests.symbols.mapped import mapped, name_of, never_opened, opened_by_path


@pytest.mark.parametrize("indexed", [0, 1_000_000])
def test_a_live_view_names_as_a_recording_does(monkeypatch: pytest.MonkeyPatch, indexed: int) -> None:
    """By an index of the file, or reading it again where that would be too large."""
    monkeypatch.setattr(indexed_files, "SYMBOLS_MAX", indexed)
    monkeypatch.setattr(native_symbols, "REST", 0)
    file = mapped(libc())
    addresses = range(file.mapping.start, file.mapping.end, 4099)[:60]
    named = []
    for live in (False, True):
        symbols = NativeSymbols(live=live)
        named.append([symbols.lookup(file, address) for address in addresses])
        symbols.close()
    assert named[0] == named[1]
    assert any("+0x" not in name for _, name in named[0])


def test_an_indexed_file_is_neither_opened_nor_searched_again(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build(LIBRARY, *SHARED)
    visible, hidden = address_of(library, "visible"), address_of(library, "hidden")
    symbols = NativeSymbols(live=True)
    assert name_of(symbols, library, visible) == "visible"
    for search in ("static_functions", "dynamic_functions"):
        monkeypatch.delattr(ElfSymbols, search)
    assert symbols.lookup(mapped(library, never_opened), hidden)[1] == "hidden"
    symbols.close()


def test_indexes_take_memory_within_bounds() -> None:
    bounds = indexed_files.SYMBOLS_MAX, indexed_files.SYMBOLS_IN_ALL, indexed_files.HELD_MAX
    assert bounds == (200_000, 1_000_000, 64 * 1024 * 1024)


def test_a_large_file_is_read_again_only_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexed_files, "SYMBOLS_MAX", 0)
    monkeypatch.setattr(native_symbols, "REST", 1e9)
    path = libc()
    first, second = (address_of(path, name) for name in ("qsort", "strtol"))
    symbols = NativeSymbols(live=True)
    assert name_of(symbols, path, first) == "qsort"
    assert "+0x" in name_of(symbols, path, second)
    monkeypatch.setattr(time, "monotonic", lambda: 1e18)
    assert name_of(symbols, path, second) == "strtol"
    symbols.close()


def symbols_in(path: Path) -> int:
    with symbols_of(path) as symbols:
        return symbols.count


@pytest.mark.parametrize(("limit", "files"), [("SYMBOLS_MAX", 1), ("SYMBOLS_IN_ALL", 2)])
@pytest.mark.parametrize("less", [0, 1])
def test_files_are_indexed_up_to_a_number_of_symbols(
    build: Build, monkeypatch: pytest.MonkeyPatch, limit: str, files: int, less: int
) -> None:
    libraries = [
        build(LIBRARY, *SHARED, f"-Wl,--build-id=0x123{number}", name=f"library{number}") for number in range(files)
    ]
    monkeypatch.setattr(indexed_files, limit, files * symbols_in(libraries[0]) - less)
    opened: list[BinaryIO] = []

    def open_mapped(mapping: maps.Mapping) -> BinaryIO:
        opened.append(opened_by_path(mapping))
        return opened[-1]

    symbols = NativeSymbols(live=True)
    hidden = address_of(libraries[0], "hidden")
    assert [symbols.lookup(mapped(path, open_mapped), hidden)[1] for path in libraries] == ["hidden"] * files
    assert sum(not file.closed for file in opened) == files - less
    symbols.close()
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("less", [0, 1])
def test_symbols_of_the_compressed_data_count_too(build: Build, monkeypatch: pytest.MonkeyPatch, less: int) -> None:
    library = build(LIBRARY, *SHARED)
    run("xz", "-k", library)
    with symbols_of(library) as symbols_of_all:
        unpacked = symbols_of_all.static_count
    run("strip", "-s", library)
    run("objcopy", f"--add-section=.gnu_debugdata={library}.xz", library)
    monkeypatch.setattr(indexed_files, "SYMBOLS_MAX", symbols_in(library) + unpacked - less)
    symbols = NativeSymbols(live=True)
    name_of(symbols, library, address_of(library, "visible"))
    assert len(symbols._indexed._files) == 1 - less
    symbols.close()


def live_symbols_of_pairs(build: Build, tmp_path: Path, count: int) -> tuple[NativeSymbols, list[Path]]:
    """A live view's names of so many libraries that are there twice, and the libraries."""
    symbols = NativeSymbols(live=True)
    libraries = []
    for number in range(count):
        library = build(LIBRARY, *SHARED, f"-Wl,--build-id=0x{number + 1:04x}", name=f"library{number}")
        copy = Path(shutil.copy(library, tmp_path / f"copy{number}"))
        for path in (library, copy):
            symbols.expect(mapped(path), [])
        libraries.append(library)
    return symbols, libraries


def test_indexes_hold_no_more_contents_than_is_allowed_and_all_files_are_named(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols, libraries = live_symbols_of_pairs(build, tmp_path, 3)
    with symbols_of(libraries[0]) as held:
        hold_names(held)
        contents = held.image.held
    monkeypatch.setattr(indexed_files, "HELD_MAX", 2 * contents)
    hidden = address_of(libraries[0], "hidden")
    assert [name_of(symbols, library, hidden) for library in libraries] == ["hidden"] * 3
    indexed = [symbols._indexed.get(symbols._known.names_of(mapped(library))) for library in libraries]
    assert [each is not None for each in indexed] == [True, True, False]
    assert symbols._indexed.held == 2 * contents
    symbols.close()


def test_contents_of_an_index_that_is_dropped_make_room_for_others(build: Build, tmp_path: Path) -> None:
    library = build(LIBRARY, *SHARED, "-Wl,--build-id=0x1234")
    run("xz", "-k", library)
    unpacked = library.stat().st_size
    hidden = address_of(library, "hidden")
    run("strip", "-s", library)
    run("objcopy", f"--add-section=.gnu_debugdata={library}.xz", library)
    symbols = NativeSymbols(live=True)
    assert name_of(symbols, library, hidden) == "hidden"
    assert symbols._indexed.held == unpacked
    copy = Path(shutil.copy(library, tmp_path / "copy"))
    symbols.expect(mapped(copy), [])
    assert symbols._indexed.held == 0
    symbols.close()


@pytest.mark.parametrize("live", [False, True])
def test_compressed_symbols_count_though_their_file_promises_dynamic_ones_that_it_lacks(
    build: Build, tmp_path: Path, live: bool
) -> None:
    library = build(LIBRARY, *SHARED)
    hidden = address_of(library, "hidden")
    symbols_only = bytearray(library.read_bytes())
    with symbols_of(library) as whole:
        number = next(number for number, segment in enumerate(whole.image.all_segments) if segment.kind == 2)
    place = 64 + 56 * number + 8  # p_offset of the dynamic section
    symbols_only[place : place + 8] = (1 << 40).to_bytes(8, "little")
    (tmp_path / "packed").write_bytes(lzma.compress(symbols_only))
    run("strip", "-s", library)
    run("objcopy", f"--add-section=.gnu_debugdata={tmp_path / 'packed'}", library)
    symbols = NativeSymbols(live=live)
    assert name_of(symbols, library, hidden) == "hidden"
    assert symbols.why_unnamed(mapped(library)) == ""
    symbols.close()
