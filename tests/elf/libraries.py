"""C and C++ compiled for a test, and what is asked of the files that come out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pyflame_ebpf.elf.function_table import Hit
from pyflame_ebpf.elf.image import ElfImage, open_regular
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.host import maps

LIBRARY = """
extern int elsewhere(int);
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
__attribute__((noinline)) int visible(int x) { return hidden(x) + elsewhere(x) + elsewhere(x + 1); }
asm(".globl sizeless\\n.type sizeless, @function\\nsizeless:\\n nop\\n nop\\n ret\\n");
"""
SHARED = ("-shared", "-fPIC")


class Build(Protocol):
    """Compiles a source into a file of a test's own folder."""

    def __call__(self, source: str, *flags: str, language: str = "c", name: str = "built") -> Path:
        """The file that was made."""


def builder(folder: Path) -> Build:
    """What compiles into a folder."""

    def build(source: str, *flags: str, language: str = "c", name: str = "built") -> Path:
        target = folder / name
        compiler = {"c": "gcc", "c++": "g++"}[language]
        subprocess.run([compiler, "-O1", "-x", language, "-", "-o", target, *flags], input=source.encode(), check=True)
        return target

    return build


def run(*command: str | Path) -> None:
    """Run a tool that must succeed."""
    subprocess.run(command, check=True)


@contextmanager
def image_of(path: Path) -> Iterator[ElfImage]:
    """An ELF file, open."""
    with open_regular(str(path)) as file:
        yield ElfImage(file)


@contextmanager
def symbols_of(path: Path) -> Iterator[ElfSymbols]:
    """The symbols of a file, which is open."""
    with image_of(path) as image:
        yield ElfSymbols(image)


def address_of(path: Path, name: str) -> int:
    """The address of a symbol that the file has."""
    with symbols_of(path) as symbols:
        return known(symbols.symbol(name)).vaddr


def function_at(path: Path, vaddr: int) -> Hit | None:
    """What holds an address."""
    with symbols_of(path) as symbols:
        return symbols.function_at(vaddr)


class Known(Protocol):
    """A symbol."""

    @property
    def vaddr(self) -> int:
        """Its address."""


def known(symbol: Known | None) -> Known:
    """A symbol that must be there."""
    assert symbol is not None
    return symbol


def libc() -> Path:
    """The libc of this process."""
    paths = (mapping.path for mapping in maps.mappings(os.getpid()))
    return Path(next(path for path in paths if "/libc.so.6" in path or "/libc-2" in path))


def code_mapping(path: Path) -> maps.Mapping:
    """A mapping of a file's code, as if the file were loaded at the addresses that it names."""
    with image_of(path) as image:
        segment = next(segment for segment in image.segments if segment.flags & 1)
    begin = segment.vaddr & ~4095
    size = max(segment.file_size + 8191 & ~4095, 0x10000)
    return maps.Mapping(begin, begin + size, segment.offset & ~4095, True, 1, path.stat().st_ino, str(path))


def objdump_stubs(path: Path) -> dict[int, str]:
    """Address → name@plt as binutils has them."""
    text = subprocess.run(["objdump", "-d", path], capture_output=True, text=True, check=True).stdout
    heads = [line.split(maxsplit=1) for line in text.splitlines() if line.endswith("@plt>:")]
    return {int(address, 16): name[1:-2] for address, name in heads if not name.startswith("<*ABS*")}
