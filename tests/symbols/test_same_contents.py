"""Files that share their names because their contents are the same, and files that only claim so."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from pyflame_ebpf.elf.image import ElfImage, open_regular
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.maps import ProgramMaps
from pyflame_ebpf.symbols.file_functions import FileFunctions
from pyflame_ebpf.symbols.mapped_file import MappedFile
from pyflame_ebpf.symbols.native_symbols import NativeSymbols
from pyflame_ebpf.tracking.mapped_code import MappedCode
from tests.elf.libraries import LIBRARY, SHARED, Build, address_of, code_mapping
from tests.symbols.mapped import mapped, name_of, never_opened, opened_by_path

IDENTIFIED = (*SHARED, "-Wl,--build-id=0x1234")
FORGED = LIBRARY.replace("visible", "risible").replace("hidden", "hudden")


@pytest.fixture
def symbols() -> Iterator[NativeSymbols]:
    symbols = NativeSymbols()
    yield symbols
    symbols.close()


def test_one_read_serves_all_files_with_the_same_contents(build: Build, symbols: NativeSymbols, tmp_path: Path) -> None:
    library = build(LIBRARY, *IDENTIFIED)
    copy = Path(shutil.copy(library, tmp_path / "copy"))
    visible = address_of(library, "visible")
    for path in (library, copy):
        symbols.expect(mapped(path), [visible])
    assert symbols.lookup(mapped(library), visible) == (str(library), "visible")
    assert symbols.lookup(mapped(copy, never_opened), visible) == (str(copy), "visible")


def test_files_with_the_same_contents_but_other_build_ids_are_read_each(build: Build, symbols: NativeSymbols) -> None:
    paths = [build(LIBRARY, *SHARED, f"-Wl,--build-id=0x123{number}", name=f"built{number}") for number in range(2)]
    for path in paths:
        assert name_of(symbols, path, address_of(path, "hidden")) == "hidden"
    assert symbols._known.names_of(mapped(paths[0])) is not symbols._known.names_of(mapped(paths[1]))


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("forged_first", [False, True])
def test_a_forged_file_does_not_change_the_names_of_the_true_one(build: Build, live: bool, forged_first: bool) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    assert true.stat().st_size == forged.stat().st_size
    hidden = address_of(true, "hidden")
    assert address_of(forged, "hudden") == hidden
    symbols = NativeSymbols(live=live)
    for file in (forged, true) if forged_first else (true, forged):
        assert name_of(symbols, file, hidden) == ("hudden" if file == forged else "hidden")
    assert name_of(symbols, true, address_of(true, "visible")) == "visible"
    symbols.close()


class NoSampler:
    """Maps that nobody looks into."""

    def set_mappings(self, slot: int, packed: bytes) -> None:
        """Takes what the programs would be told."""


@pytest.mark.parametrize("forged_first", [False, True])
def test_a_forged_file_with_the_rows_of_the_true_one_does_not_change_its_names_either(
    build: Build, symbols: NativeSymbols, forged_first: bool
) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    hidden = address_of(true, "hidden")
    code = MappedCode(cast(ProgramMaps, NoSampler()), lambda _identity, mapping: open_regular(mapping.path))
    for pid, file in enumerate((forged, true) if forged_first else (true, forged)):
        code.map_process(Identity(pid, pid, 0), [code_mapping(file)])
    assert len(code.files._codes) == 1
    names = {file: symbols.lookup(mapped(file, code.files.open_again), hidden)[1] for file in (true, forged)}
    assert names == {true: "hidden", forged: "hudden"}


@pytest.mark.parametrize("live", [False, True])
def test_a_true_copy_that_is_forged_later_names_nothing_for_others(build: Build, tmp_path: Path, live: bool) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    copy = Path(shutil.copy(true, tmp_path / "copy"))
    visible, hidden = address_of(true, "visible"), address_of(true, "hidden")
    symbols = NativeSymbols(live=live)
    for file in (copy, true):
        symbols.expect(mapped(file), [visible])
    shutil.copyfile(forged, copy)
    assert name_of(symbols, copy, hidden).startswith("copy+0x")
    assert [name_of(symbols, true, address) for address in (visible, hidden)] == ["visible", "hidden"]
    symbols.close()


def test_names_that_were_forged_before_the_true_file_came_are_forgotten(
    build: Build, symbols: NativeSymbols, tmp_path: Path
) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    copy = Path(shutil.copy(forged, tmp_path / "copy"))
    hidden = address_of(true, "hidden")
    assert name_of(symbols, copy, hidden) == "hudden"
    shutil.copyfile(true, copy)
    assert name_of(symbols, true, hidden) == "hidden"


def shift_code(path: Path, distance: int) -> None:
    """Make a file say that its code is loaded at other addresses."""
    with path.open("r+b") as file:
        kinds = [(segment.kind, segment.flags & 1) for segment in ElfImage(file).all_segments]
        field = 64 + 56 * kinds.index((1, 1)) + 16  # p_vaddr
        (vaddr,) = struct.unpack("<Q", os.pread(file.fileno(), 8, field))
        os.pwrite(file.fileno(), struct.pack("<Q", vaddr + distance), field)


def as_if(true: Path, copy: Path) -> MappedFile:
    """The copy, mapped at the addresses at which the true file is."""
    mapping = replace(code_mapping(true), path=str(copy), inode=copy.stat().st_ino)
    return MappedFile(0, mapping, opened_by_path)


@pytest.mark.parametrize("expected", [False, True])
def test_segments_that_were_forged_before_the_true_file_came_are_forgotten(
    build: Build, symbols: NativeSymbols, tmp_path: Path, expected: bool
) -> None:
    true = build(LIBRARY, *IDENTIFIED, name="true")
    copy = Path(shutil.copy(true, tmp_path / "copy"))
    visible, hidden = address_of(true, "visible"), address_of(true, "hidden")
    shift_code(copy, visible - hidden)
    file = as_if(true, copy)
    if expected:
        symbols.expect(file, [hidden])
    else:
        assert symbols.lookup(file, hidden)[1] == "visible"
    shutil.copyfile(true, copy)
    assert name_of(symbols, true, hidden) == "hidden"
    assert symbols.lookup(file, hidden)[1] == "hidden"


def test_addresses_that_were_expected_in_forged_segments_are_not_looked_up(
    build: Build, symbols: NativeSymbols, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = build(LIBRARY, *IDENTIFIED, name="true")
    copy = Path(shutil.copy(true, tmp_path / "copy"))
    hidden = address_of(true, "hidden")
    shift_code(copy, 0x100000)
    file = as_if(true, copy)
    symbols.expect(file, [hidden])
    shutil.copyfile(true, copy)
    symbols.expect(mapped(true), [hidden])
    asked: list[set[int]] = []

    def note(_functions: FileFunctions, vaddrs: set[int]) -> dict[int, tuple[str, int]]:
        asked.append(vaddrs)
        return {}

    monkeypatch.setattr(FileFunctions, "at", note)
    name_of(symbols, true, hidden)
    assert asked == [{hidden}]


def test_names_that_were_forgotten_are_no_longer_counted(build: Build, symbols: NativeSymbols, tmp_path: Path) -> None:
    library = build(LIBRARY, *IDENTIFIED)
    copy = Path(shutil.copy(library, tmp_path / "copy"))
    hidden = address_of(library, "hidden")
    for file in (library, copy, library):
        assert name_of(symbols, file, hidden) == "hidden"
    assert symbols._kept == len("hidden")
