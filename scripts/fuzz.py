#!/usr/bin/env python3
"""Fuzz the readers of foreign files, guided by coverage: .eh_frame, ELF symbols, debug data, perf maps.

    scripts/fuzz.py                           all readers, ten minutes, each in a process of its own at the same time
    scripts/fuzz.py --seconds 5 perfmap       one of them, quickly

Needs atheris: pip install 'pyflame-ebpf[fuzz]'.  Status 1 on an exception that a reader does not promise, on an input
that takes more than 10 s, and on more than 1,024 MB of memory.  The input is left in the corpus directory.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import _checkout  # noqa: F401 - finds the package

from pyflame_ebpf.elf.image import BadElf, ElfImage
from pyflame_ebpf.elf.plt import PltStubs
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.symbols.debug_files import checksum, debug_paths, is_debug_file_of, unpack_debug_data, wanted_by
from pyflame_ebpf.symbols.perf_map import PerfMap
from pyflame_ebpf.unwind.page_rows import TooManyRows
from pyflame_ebpf.unwind.row import unpack_rows
from pyflame_ebpf.unwind.rows import UnwindTable

INPUT_MAX = 1 << 16  # bytes
TIME_MAX = 10  # seconds of one input
MEMORY_MAX = 1024  # MB of a process, atheris' own 100 included
INSTRUMENTED = (
    "unwind.call_frame_information",
    "symbols.debug_files",
    "unwind.dwarf_numbers",
    "elf.file",
    "elf.image",
    "unwind.frame_entries",
    "unwind.frame_index",
    "elf.function_table",
    "symbols.perf_map",
    "elf.plt",
    "elf.symbol_search",
    "unwind.page_rows",
    "unwind.row",
    "unwind.rows",
    "unwind.x86_64",
)
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


def read_elf(data: bytes) -> None:
    """Ask an ELF file everything but its unwind data, each question by itself."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        image = ElfImage(file)
        symbols = ElfSymbols(image)
        questions: tuple[Callable[[], object], ...] = (
            lambda: image.build_id,
            lambda: image.sections,
            lambda: image.debug_entry_vaddr,
            lambda: symbols.symbol("visible"),
            lambda: symbols.symbol("no such symbol"),
            lambda: symbols.function_at(image.entry),
            lambda: symbols.dynamic_functions([image.first_text_vaddr, image.entry]),
            lambda: image.vaddr_of(0x1000),
            lambda: _stubs(symbols),
        )
        for ask in questions:
            with contextlib.suppress(BadElf):
                ask()


def _stubs(symbols: ElfSymbols) -> None:
    """Ask for names at every place of every section that may hold stubs."""
    sections = [section for section in symbols.image.sections if section.name.startswith(".plt")]
    vaddrs = [section.vaddr + place for section in sections for place in range(0, min(section.size, 128), 4)]
    stubs = PltStubs(symbols, vaddrs)
    choosers = symbols.functions(stubs.choosers)
    for vaddr in vaddrs:
        stubs.at(vaddr, choosers)


def read_debug_data(data: bytes) -> None:
    """Read compressed symbols and the debug link, and check the file as its own debug file."""
    with file_of(data) as file, contextlib.suppress(BadElf):
        image = ElfImage(file)
        with contextlib.suppress(BadElf):
            wanted = wanted_by(ElfSymbols(image))
            if wanted is not None:
                list(debug_paths(wanted, "/usr/lib/x.so"))
                is_debug_file_of(ElfSymbols(image), wanted, lambda: checksum(file, image.file_size))
        unpacked = unpack_debug_data(image)
        if unpacked is not None:
            with unpacked:
                ElfSymbols(ElfImage(unpacked)).static_functions([image.entry])


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


def debug_data_seeds(folder: Path) -> Iterator[bytes]:
    """Yield files with compressed symbols and with a debug link."""
    for number, data in enumerate(elf_seeds(folder)):
        plain, packed, target = folder / "plain", folder / "packed", folder / "with"
        plain.write_bytes(data)
        packed.write_bytes(lzma.compress(data, preset=number))
        for section in (".gnu_debugdata", ".gnu_debuglink"):
            if section == ".gnu_debuglink":
                packed.write_bytes(b"x.debug\0" + struct.pack("<I", zlib.crc32(data)))
            subprocess.run(["objcopy", f"--add-section={section}={packed}", plain, target], check=True)
            yield target.read_bytes()


def perf_map_seeds(_: Path) -> Iterator[bytes]:
    """Yield perf maps as node and Java write them, and broken ones."""
    yield b"7f0012340000 40 JS:*hot /a.js:1:2\n7f0012340040 1c0 LazyCompile:~f\n"
    yield b"0x10 0x20 name with blanks\n10 8 inner\n10 8 later\r\nffffffffffffffff 1 last\n"
    yield b"ffffffffffffffff ffffffffffffffff too much\n0 0 empty\n 12 x y\nzz\n\0\xff 1 2\n"


READERS: dict[str, tuple[Callable[[bytes], None], Callable[[Path], Iterator[bytes]]]] = {
    "frames": (read_frames, elf_seeds),
    "elf": (read_elf, elf_seeds),
    "debugdata": (read_debug_data, debug_data_seeds),
    "perfmap": (read_perf_map, perf_map_seeds),
}


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one reader in this process, which ends with the fuzzer."""
    import atheris  # noqa: PLC0415 - only the workers need it

    os.nice(15)
    reader, seeds = READERS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds(Path(folder))):
            (corpus / f"seed{number}").write_bytes(data)
    for module in INSTRUMENTED:
        instrument(atheris, sys.modules[f"pyflame_ebpf.{module}"])
    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_MAX}",
        f"-timeout={TIME_MAX}",
        f"-rss_limit_mb={MEMORY_MAX}",
        f"-artifact_prefix={corpus}/bad-",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], reader)
    atheris.Fuzz()


def instrument(atheris: Any, module: ModuleType) -> None:
    """Let the fuzzer see which branches the functions and methods of a module take."""
    for value in vars(module).values():
        holders = (
            [value]
            if callable(value) and not isinstance(value, type)
            else list(vars(value).values() if isinstance(value, type) else ())
        )
        for holder in holders:
            function = getattr(holder, "func", getattr(holder, "fget", holder))  # of cached_property and property
            if getattr(function, "__code__", None) and function.__module__ == module.__name__:
                atheris.instrument_func(function)


def main() -> int:
    """Run the chosen readers' fuzzers.  Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="READER", help=", ".join(READERS))
    parser.add_argument("--seconds", type=int, default=600, help="of each reader; default 600")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "pyflame-fuzz", help="directory")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.targets or list(READERS)
    if unknown := set(names) - READERS.keys():
        parser.error(f"no such reader: {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    if options.here:
        fuzz(names[0], options.seconds, options.corpus)
        return 0
    return watch(names, options.seconds, options.corpus)


def watch(names: list[str], seconds: int, corpus: Path) -> int:
    """Start a fuzzer for each reader, and print its figures when it ends.  Returns 1 if one found something."""
    corpus.mkdir(parents=True, exist_ok=True)
    running = {}
    for name in names:
        log = (corpus / f"{name}.log").open("w+")
        command = [sys.executable, __file__, "--here", "--seconds", str(seconds), "--corpus", str(corpus / name), name]
        running[name] = subprocess.Popen(command, stdout=log, stderr=log), log
    failed = 0
    for name, (process, log) in running.items():
        _, status, usage = os.wait4(process.pid, 0)
        log.seek(0)
        text = log.read()
        executed = re.search(r"number_of_executed_units:\s*(\d+)", text)
        found = sorted(path.name for path in (corpus / name).glob("bad-*"))
        print(
            f"{name}: {executed[1] if executed else '?'} executions, {len(found)} crashes, "
            f"{usage.ru_utime + usage.ru_stime:.0f} s CPU, {usage.ru_maxrss >> 10} MB, status {status} {found or ''}",
            flush=True,
        )
        failed |= bool(found) or status != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
