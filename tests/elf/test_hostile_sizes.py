"""Files that take some KB on the disk and say that they are huge: each reader ends within its budget.

Time is that of the thread on a CPU, so a busy host changes nothing; memory is what Python allocates.
"""

from __future__ import annotations

import contextlib
import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.file_facts import FileFacts, FileFactsCache
from pyflame_ebpf.elf.bad_elf import OverBudget, ProcessOverBudget
from pyflame_ebpf.elf.budget import FILE_BYTES, FILE_SECONDS, NAMING_BYTES, NAMING_SECONDS, SharedBudget
from pyflame_ebpf.elf.function_table import SYMBOL
from pyflame_ebpf.elf.image import ElfImage, Section, Segment, open_regular
from pyflame_ebpf.symbols.native_symbols import NativeSymbols
from pyflame_ebpf.unwind.rows import UnwindTable
from tests.elf.sparse import (
    CIE,
    CODE_AT,
    MIB,
    SYMBOLS_AT,
    eh_frame,
    fde,
    loaded,
    on_disk,
    small_frames,
    write_sparse,
    write_symbols,
)
from tests.symbols.mapped import mapped

SLACK = 0.15  # seconds for the piece that was begun, and for a CPU that is slower by half
GNU_HASH, STRTAB, SYMTAB, STRSZ = 0x6FFFFEF5, 5, 6, 10
PLTRELSZ, RELA, RELASZ, JMPREL = 2, 7, 8, 23


@contextmanager
def spending(seconds: float) -> Iterator[None]:
    """Fail where more seconds of CPU time are spent."""
    began = time.thread_time()
    yield
    spent = time.thread_time() - began
    assert spent < seconds + SLACK, f"{spent:.2f} s"


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that a call has allocated at once; it takes four times as long meanwhile."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def false_hits(folder: Path) -> Path:
    """256 strings with each wanted name, of which none is a symbol's."""
    names = b"\0" + b"".join(name + b"\0" for name in (b"_PyRuntime", b"_PyThreadState_Current") for _ in range(256))
    return write_symbols(folder / "hits.so", 5 << 20, names=names)


def hits_everywhere(folder: Path) -> Path:
    """Symbols without a section that all have a wanted name."""
    symbols = SYMBOL.pack(1, 2, 0, 0, 0, 0) * 100_000
    return write_symbols(folder / "everywhere.so", 5 << 20, symbols, names=b"\0_PyRuntime\0")


def strings_without_end(folder: Path) -> Path:
    """1 GB of names without a NUL that begin as a wanted one."""
    return write_symbols(folder / "strings.so", 1000, strings=1 << 30, names=b"_PyRuntim" * 1000)


def dynamic(folder: Path, name: str, hash_table: bytes, size: int, symbols: bytes = b"") -> Path:
    """A library whose dynamic section leads to this hash table, which lies in a segment of this size."""
    tags = ((GNU_HASH, 4 * MIB), (SYMTAB, 0x1800), (STRTAB, 0x1900), (STRSZ, 64), (0, 0))
    table = b"".join(struct.pack("<QQ", *pair) for pair in tags)
    return write_sparse(
        folder / name,
        segments=[loaded(4 * MIB, size), Segment(2, 4, 0x1700, 0x1700, len(table), len(table))],
        parts=[(0x1700, table), (0x1800, symbols), (0x1900, b"\0wanted\0"), (4 * MIB, hash_table)],
        size=4 * MIB + size,
    )


def many_buckets(folder: Path) -> Path:
    return dynamic(folder, "buckets.so", struct.pack("<IIII", 32 * MIB - 64, 1, 1, 0), 140 * MIB)


def some_buckets(folder: Path) -> Path:
    return dynamic(folder, "some.so", struct.pack("<IIII", 4 * MIB - 64, 1, 1, 0), 140 * MIB)


def equal_hashes(folder: Path) -> Path:
    """A chain in which each symbol has the hash of a wanted name, and another name."""
    value = 5381
    for byte in b"_PyRuntime":
        value = value * 33 + byte & 0xFFFFFFFF
    chain = struct.pack("<I", value & ~1) * 100_000
    head = struct.pack("<IIIIQI", 1, 1, 1, 0, (1 << 64) - 1, 1)
    return dynamic(folder, "chain.so", head + chain, 2 * MIB, SYMBOL.pack(1, 2, 0, 1, 0, 0) * 4)


def notes(folder: Path) -> Path:
    """As many segments of notes as are read, all of them without a build id."""
    note = struct.pack("<III", 0, 0, 9)
    segments = [Segment(4, 4, 4 * MIB, 4 * MIB, 0xFFF0, 0xFFF0)] * 200
    return write_sparse(folder / "notes.so", segments=segments, parts=[(4 * MIB, note * 5460)])


def section_names(folder: Path) -> Path:
    """4,000 sections whose names have no end."""
    sections = [Section("", 1, 0, 0, 0, 0)] * 4000
    path = write_sparse(folder / "sections.so", sections=sections)
    with path.open("r+b") as file:
        file.seek(0x3000 + 64 * 4001)
        file.write(struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 8 * MIB, MIB, 0, 0, 0, 0))
        file.seek(8 * MIB)
        file.write(b"\xff" * MIB)
    return path


def counted_in_section_0(folder: Path) -> Path:
    """e_shnum of 0: the number of sections stands in the first one, and is 2^32 - 1."""
    path = write_sparse(folder / "count.so")
    with path.open("r+b") as file:
        file.seek(60)
        file.write(bytes(2))
        file.seek(0x3000)
        file.write(struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, (1 << 32) - 1, 0, 0, 0, 0))
    return path


def versions(folder: Path) -> Path:
    """An interpreter of 3.9 by its symbols, with 500 MB of constants."""
    symbols = SYMBOL.pack(1, 1, 0, 1, CODE_AT, 8) + SYMBOL.pack(12, 2, 0, 1, CODE_AT, 8)
    names = b"\0_PyRuntime\0PyFrame_GetCode\0"
    sections = [
        Section(".symtab", 2, 0, SYMBOLS_AT, len(symbols), 2),
        Section(".strtab", 3, 0, SYMBOLS_AT + MIB, len(names), 0),
        Section(".rodata", 1, 0, 8 * MIB, 500 * MIB, 0),
    ]
    parts = [(SYMBOLS_AT, symbols), (SYMBOLS_AT + MIB, names), (8 * MIB, b"3.9.1" * 200_000)]
    return write_sparse(folder / "versions.so", sections=sections, parts=parts, size=520 * MIB)


IDENTIFIED = [
    false_hits,
    hits_everywhere,
    strings_without_end,
    many_buckets,
    some_buckets,
    equal_hashes,
    notes,
    section_names,
    counted_in_section_0,
    versions,
]


def examined(path: Path) -> FileFacts | None:
    with open_regular(str(path)) as file:
        return FileFactsCache().of(file)


@pytest.mark.parametrize("make", IDENTIFIED, ids=lambda make: make.__name__)
def test_a_file_is_identified_or_given_up_within_its_budget(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    assert on_disk(path) < 6 * MIB
    with spending(FILE_SECONDS):
        examined(path)
    assert peak_of(lambda: examined(path)) < FILE_BYTES / 4


def test_a_file_over_its_budget_is_counted_and_not_read_again(tmp_path: Path) -> None:
    cache = FileFactsCache()
    path = strings_without_end(tmp_path)
    with open_regular(str(path)) as file:
        assert cache.of(file) is None
        with spending(0.0):
            assert cache.of(file) is None
    assert cache.over_budget == 1


def test_many_files_of_one_process_take_one_second_and_spoil_nothing_for_others(tmp_path: Path) -> None:
    cache, shared = FileFactsCache(), SharedBudget()
    paths = [strings_without_end(tmp_path).rename(tmp_path / f"{number}.so") for number in range(40)]
    honest = write_sparse(tmp_path / "honest.so")

    def refused(path: Path) -> bool:
        with open_regular(str(path)) as file, contextlib.suppress(ProcessOverBudget):
            cache.of(file, shared)
            return False
        return True

    with spending(1.0):
        assert sum(map(refused, [*paths, honest])) > 20
        assert refused(honest)
    with open_regular(str(honest)) as file:
        assert cache.of(file, SharedBudget()) is not None


# ---- unwind data ----


def common_entries(folder: Path) -> Path:
    return eh_frame(folder, "cies.so", CIE * (15 * MIB // len(CIE)))


def frames_of_many_common_entries(folder: Path) -> Path:
    """Each FDE has another CIE than the one before, and there are more of them than are kept."""
    entries = bytearray(CIE * 5000)
    for number in range(50_000):
        entries += fde(8 * MIB + len(entries), CODE_AT, 16, common_at=8 * MIB + number * 7 % 5000 * len(CIE))
    return eh_frame(folder, "mixed.so", bytes(entries))


@pytest.mark.parametrize("make", [common_entries, small_frames, frames_of_many_common_entries])
def test_a_section_without_a_table_is_walked_within_the_budget(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)

    def walk() -> UnwindTable:
        with open_regular(str(path)) as file, SharedBudget().file() as budget:
            return UnwindTable(ElfImage(file, budget))

    with spending(FILE_SECONDS):
        walk()
    assert peak_of(walk) < FILE_BYTES / 2


def test_what_was_walked_within_the_budget_has_its_rows(tmp_path: Path) -> None:
    path = small_frames(tmp_path)
    with open_regular(str(path)) as file, SharedBudget().file() as budget:
        image = ElfImage(file, budget)
        table = UnwindTable(image)
        with image.within(None):
            assert len(table.rows(CODE_AT >> 12)) > 8
        assert 0 < table.size < 4 * MIB


def test_pages_that_take_long_are_given_up_after_a_tenth_of_a_second(tmp_path: Path) -> None:
    """Each page is covered by thousands of entries that are full of instructions."""
    entries, table = bytearray(CIE), b""
    while len(entries) < MIB:
        at = 8 * MIB + len(entries)
        entries += fde(at, 0, 0x200000, b"\x0e\x10\x0a\x0b" * 15_000)
        table += struct.pack("<ii", -4 * MIB, at - 4 * MIB)
    path = eh_frame(tmp_path, "slow.so", bytes(entries), table)
    with open_regular(str(path)) as file:
        unwind = UnwindTable(ElfImage(file))
        began = time.thread_time()
        with contextlib.suppress(OverBudget):
            for page in range(400):
                unwind.rows(page)
        assert time.thread_time() - began < 0.1 + SLACK


def test_a_clock_that_says_each_page_is_slow_ends_the_file_s_rows(tmp_path: Path) -> None:
    ticks = iter(range(1000))
    path = small_frames(tmp_path)
    with open_regular(str(path)) as file:
        unwind = UnwindTable(ElfImage(file), clock=lambda: next(ticks) * 0.03)
        for _ in range(4):
            unwind.rows(1)
        with pytest.raises(OverBudget):
            unwind.rows(1)


# ---- names ----


def all_in_one_block(folder: Path) -> Path:
    """A million functions at the wanted address."""
    symbols = SYMBOL.pack(1, 2, 0, 1, CODE_AT, 16) * 1_000_000
    return write_symbols(folder / "block.so", 1_000_000, symbols, names=b"\0f\0")


def above_4_gib(folder: Path) -> Path:
    """A function above 4 GiB before a million others."""
    symbols = SYMBOL.pack(1, 2, 0, 1, 1 << 40, 16) + SYMBOL.pack(1, 2, 0, 1, CODE_AT, 16) * 999_999
    return write_symbols(folder / "above.so", 1_000_000, symbols, names=b"\0f\0")


def random_functions(folder: Path) -> Path:
    """Two million functions all over the first 4 GiB."""
    numbers = random.Random(1)
    block = b"".join(SYMBOL.pack(1, 2, 0, 1, numbers.getrandbits(32), 16) for _ in range(20_000))
    return write_symbols(folder / "random.so", 2_000_000, block * 100, names=b"\0f\0")


def relocations(folder: Path) -> Path:
    """A PLT of a million stubs, and five million relocations."""
    stub = b"\xff\x25\0\0\0\0\x68\0\0\0\0\xe9\0\0\0\0"
    tags = (
        (SYMTAB, 0x1800),
        (STRTAB, 0x1900),
        (STRSZ, 64),
        (7, 4 * MIB),
        (8, 120 * MIB),
        (23, 4 * MIB),
        (2, 120 * MIB),
    )
    table = b"".join(struct.pack("<QQ", *pair) for pair in (*tags, (0, 0)))
    return write_sparse(
        folder / "plt.so",
        segments=[loaded(4 * MIB, 124 * MIB), Segment(2, 4, 0x1700, 0x1700, len(table), len(table))],
        sections=[Section(".plt", 1, CODE_AT, CODE_AT, 16 * MIB, 0)],
        parts=[(0x1700, table), (CODE_AT, stub * 64)],
        size=130 * MIB,
    )


@pytest.mark.parametrize(
    "make", [false_hits, all_in_one_block, above_4_gib, random_functions, relocations, many_buckets]
)
def test_functions_are_found_or_given_up_within_the_budget(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    file = mapped(path)

    def name() -> str:
        symbols = NativeSymbols()
        symbols.expect(file, range(CODE_AT, CODE_AT + 1024, 8))
        try:
            return symbols.lookup(file, CODE_AT)[1]
        finally:
            symbols.close()

    with spending(NAMING_SECONDS):
        assert name()
    assert peak_of(name) < NAMING_BYTES
