"""Files as if a process had them mapped, for look-ups of names."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NoReturn

from pyflame_ebpf.elf.image import open_regular
from pyflame_ebpf.host import mapped_files, maps
from pyflame_ebpf.symbols.mapped_file import MappedFile, OpenMapped
from pyflame_ebpf.symbols.native_symbols import NativeSymbols
from tests.elf.libraries import code_mapping


def opened_by_path(mapping: maps.Mapping) -> BinaryIO:
    """The file that lies at the mapping's path by now."""
    return open_regular(mapping.path)


def never_opened(mapping: maps.Mapping) -> NoReturn:
    """Fails the test in which a file is opened again."""
    raise AssertionError(mapping.path)


def mapped(path: Path, open_mapped: OpenMapped = opened_by_path) -> MappedFile:
    """The code of a file, mapped by a process that is gone, at the addresses that the file names."""
    return MappedFile(0, code_mapping(path), open_mapped)


def name_of(symbols: NativeSymbols, path: Path, vaddr: int) -> str:
    """The function at an address of a file."""
    file, name = symbols.lookup(mapped(path), vaddr)
    assert file == str(path)
    return name


def mapped_at(pid: int, address: int) -> MappedFile:
    """What a live process has mapped at an address."""
    mapping = next(each for each in maps.mappings(pid) if each.start <= address < each.end)
    return MappedFile(pid, mapping, lambda wanted: mapped_files.open_mapped_file(pid, wanted))
