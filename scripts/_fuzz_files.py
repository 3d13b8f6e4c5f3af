"""What scripts/fuzz.py tries on the readers of files: ELF, unwind data, debug data, perf maps."""

from __future__ import annotations

import contextlib
import lzma
import os
import re
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import _checkout  # noqa: F401 - finds the package
from _fuzz_target import Target

from pyflame_ebpf.cpython.file_facts import examine
from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.elf.notes import build_id_in, notes_in
from pyflame_ebpf.elf.plt import PltStubs
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.symbols.debug_files import checksum, debug_paths, is_debug_file_of, unpack_debug_data, wanted_by
from pyflame_ebpf.symbols.perf_map import PerfMap
from pyflame_ebpf.unwind.page_rows import TooManyRows
from pyflame_ebpf.unwind.row import unpack_rows
from pyflame_ebpf.unwind.rows import UnwindTable

SOURCE = """
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
extern int elsewhere(int);
__attribute__((noinline)) int visible(int x) { return hidden(x) + elsewhere(x); }
int alias_of_visible(int) __attribute__((alias("visible")));
"""
PAGES_MAX = 32


@contextlib.contextmanager
def file_of(data: bytes) -> Iterator[BinaryIO]:
    """Yield the bytes as an open file."""
    with os.fdopen(os.memfd_create("fuzz"), "r+b", buffering=0) as file:
        file.write(data)
        yield file


def read_frames(data: bytes) -> None:
    """Read all unwind rows of a file's first pages of code."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        image = ElfImage(file)
        table = UnwindTable(image)
        pages = {page for segment in image.segments for page in range(segment.vaddr >> 12, (segment.vaddr >> 12) + 8)}
        for page in sorted(pages)[:PAGES_MAX]:
            with contextlib.suppress(BadElf, TooManyRows):
                unpack_rows(table.rows(page))


def _ask(*questions: Callable[[], object]) -> None:
    """Ask each question by itself; only BadElf may be the answer to a bad file."""
    for ask in questions:
        with contextlib.suppress(BadElf):
            ask()


def read_image(data: bytes) -> None:
    """Ask an ELF file for its headers, sections and notes."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        image = ElfImage(file)
        _ask(
            lambda: image.build_id,
            lambda: image.sections,
            lambda: image.debug_entry_vaddr,
            lambda: image.first_text_vaddr,
            lambda: image.vaddr_of(0x1000),
        )


def read_symbols(data: bytes) -> None:
    """Look up symbols of an ELF file by name and by address."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        symbols = ElfSymbols(ElfImage(file))
        image = symbols.image
        _ask(
            lambda: symbols.symbol("visible"),
            lambda: symbols.symbol("no such symbol"),
            lambda: symbols.function_at(image.entry),
            lambda: symbols.dynamic_functions([image.first_text_vaddr, image.entry]),
            lambda: symbols.static_functions([image.first_text_vaddr, image.entry]),
        )


def read_stubs(data: bytes) -> None:
    """Name the stubs of an ELF file."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        _stubs(ElfSymbols(ElfImage(file)))


def _stubs(symbols: ElfSymbols) -> None:
    """Ask for names at every place of every section that may hold stubs."""
    sections = [section for section in symbols.image.sections if section.name.startswith(".plt")]
    vaddrs = [section.vaddr + place for section in sections for place in range(0, min(section.size, 128), 4)]
    stubs = PltStubs(symbols, vaddrs)
    choosers = symbols.functions(stubs.choosers)
    for vaddr in vaddrs:
        stubs.at(vaddr, choosers)


def read_interpreter(data: bytes) -> None:
    """Look for an interpreter in an ELF file."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        examine(ElfImage(file))


def read_notes(data: bytes) -> None:
    """Read notes, and the build id among them."""
    for note in notes_in(data):
        if note.start + note.size > len(data):
            raise AssertionError("a note that goes beyond the data")
    build_id_in(data)


def read_debug_data(data: bytes) -> None:
    """Read compressed symbols."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        image = ElfImage(file)
        unpacked = unpack_debug_data(image)
        if unpacked is not None:
            with unpacked:
                ElfSymbols(ElfImage(unpacked)).static_functions([image.entry])


def read_debug_link(data: bytes) -> None:
    """Read the debug link, and check the file as its own debug file."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        image = ElfImage(file)
        wanted = wanted_by(ElfSymbols(image))
        if wanted is not None:
            list(debug_paths(wanted, "/usr/lib/x.so"))
            is_debug_file_of(ElfSymbols(image), wanted, lambda: checksum(file, image.file_size))


def read_perf_map(data: bytes) -> None:
    """Read a perf map, and look up the start of each entry and both ends of the address space."""
    text = PerfMap(data)
    starts = [int(match[1][:16], 16) for match in re.finditer(rb"^([0-9a-f]+) ", data[:4096], re.MULTILINE)]
    for address in (0, (1 << 64) - 1, *starts):
        text.at(address)


def elf_seeds(folder: Path) -> Iterator[bytes]:
    """Yield small linked files with all that the readers look for."""
    flags: tuple[list[str], ...] = (
        [],
        ["-fcf-protection=full"],
        ["-Wl,-z,now", "-fno-plt"],
        ["-Wl,--hash-style=sysv"],
        ["-g0", "-s"],
    )
    for more in flags:
        target = folder / "seed.so"
        command = [
            "gcc",
            "-O1",
            "-x",
            "c",
            "-",
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-o",
            str(target),
            "-Wl,-z,noseparate-code",
        ]
        subprocess.run([*command, *more], input=SOURCE.encode(), check=True)
        yield target.read_bytes()


def _seeds_with(folder: Path, section: str) -> Iterator[bytes]:
    for number, data in enumerate(elf_seeds(folder)):
        plain, added, target = folder / "plain", folder / "added", folder / "with"
        plain.write_bytes(data)
        link = b"x.debug\0" + struct.pack("<I", zlib.crc32(data))
        added.write_bytes(link if section == ".gnu_debuglink" else lzma.compress(data, preset=number))
        subprocess.run(["objcopy", f"--add-section={section}={added}", plain, target], check=True)
        yield target.read_bytes()


def debug_data_seeds(folder: Path) -> Iterator[bytes]:
    """Yield files with compressed symbols."""
    yield from _seeds_with(folder, ".gnu_debugdata")


def debug_link_seeds(folder: Path) -> Iterator[bytes]:
    """Yield files with a debug link."""
    yield from _seeds_with(folder, ".gnu_debuglink")


def note_seeds(_: Path) -> Iterator[bytes]:
    """Yield notes as linkers write them, and broken ones."""
    build_id = struct.pack("<III4s20s", 4, 20, 3, b"GNU\0", bytes(range(20)))
    yield build_id
    yield struct.pack("<III4sIIII", 4, 16, 1, b"GNU\0", 0, 3, 2, 0) + build_id
    yield struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 3) + b"GNU\0"


def perf_map_seeds(_: Path) -> Iterator[bytes]:
    """Yield perf maps as node and Java write them, and broken ones."""
    yield b"7f0012340000 40 JS:*hot /a.js:1:2\n7f0012340040 1c0 LazyCompile:~f\n"
    yield b"0x10 0x20 name with blanks\n10 8 inner\n10 8 later\r\nffffffffffffffff 1 last\n"
    yield b"ffffffffffffffff ffffffffffffffff too much\n0 0 empty\n 12 x y\nzz\n\0\xff 1 2\n"


FILE_TARGETS = {
    "image": Target(read_image, elf_seeds, ("elf.file", "elf.image", "elf.notes")),
    "symbols": Target(read_symbols, elf_seeds, ("elf.image", "elf.symbols", "elf.symbol_search", "elf.function_table")),
    "plt": Target(read_stubs, elf_seeds, ("elf.image", "elf.plt")),
    "notes": Target(read_notes, note_seeds, ("elf.notes",)),
    "interpreter": Target(read_interpreter, elf_seeds, ("cpython.file_facts", "elf.symbols")),
    "frames": Target(
        read_frames,
        elf_seeds,
        (
            "unwind.call_frame_information",
            "unwind.dwarf_numbers",
            "unwind.frame_entries",
            "unwind.frame_index",
            "unwind.page_rows",
            "unwind.row",
            "unwind.rows",
            "unwind.x86_64",
        ),
    ),
    "debugdata": Target(read_debug_data, debug_data_seeds, ("symbols.debug_files", "elf.image")),
    "debuglink": Target(read_debug_link, debug_link_seeds, ("symbols.debug_files", "elf.image")),
    "perfmap": Target(read_perf_map, perf_map_seeds, ("symbols.perf_map",)),
}
