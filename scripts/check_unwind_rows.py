#!/usr/bin/env python3
"""Compare unwind rows with readelf's reading of .eh_frame, at every address, and measure what they cost.

    scripts/check_unwind_rows.py                    the dynamic linker, libc, libstdc++, Python and what it maps
    scripts/check_unwind_rows.py FILE...            these files, or all ELF files in these folders
    scripts/check_unwind_rows.py --no-table FILE... as if the file had no .eh_frame_hdr

Status 1 if a row differs.  At a file's entry point a root may stand where readelf has nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from _readelf_rows import NONE, ROOT, UNSUPPORTED, Entry, Rows, expected_rows, merged, read_entries

from pyflame_ebpf.elf.image import ElfImage, open_regular
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.unwind.page_rows import PAGE_SHIFT, PAGE_SIZE, ROWS_MAX
from pyflame_ebpf.unwind.row import CfaKind, unpack_rows
from pyflame_ebpf.unwind.rows import UnwindTable

FILES = (
    "/lib64/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libm.so.6",
)


class WithoutTable(ElfImage):
    """A file as if it had no .eh_frame_hdr."""

    @property
    def unwind_index(self) -> None:
        """None: no table."""


@dataclass
class Report:
    """The figures of one file, and the rows that differ."""

    path: Path
    entries: int = 0
    entry_point: int = 0
    rows: int = 0
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    open_ms: float = 0.0
    page_us: list[float] = field(default_factory=list)
    page_rows: list[int] = field(default_factory=list)
    refused: int = 0
    given_up: int = 0  # addresses

    def line(self) -> str:
        """One line of the table."""
        times, rows = sorted(self.page_us), self.page_rows
        return (
            f"{self.entries:>8}{self.rows:>9}{len(self.wrong):>6}{self.open_ms:>8.2f}{len(times):>7}"
            f"{statistics.median(times):>8.0f}{times[len(times) * 99 // 100]:>7.0f}{times[-1]:>7.0f}"
            f"{statistics.median(rows):>6.0f}{max(rows):>5}{self.refused:>5}{self.given_up:>6}  {self.path}"
        )


def check(path: Path, image_type: type[ElfImage]) -> Report | None:
    """Compare one file.  Returns None if it has no .eh_frame."""
    entries = read_entries(path)
    rows = expected_rows(entries)
    if not rows:
        return None
    report = Report(path, len(entries), rows=len(rows))
    pages = {page for entry in entries for page in pages_of(entry)}
    with open_regular(str(path)) as file:
        image = image_type(file)
        report.entry_point = image.entry
        started = time.perf_counter()
        table = UnwindTable(image)
        report.open_ms = 1e3 * (time.perf_counter() - started)
        for page in sorted(pages):
            compare(report, page, expected_page(rows, page), decoded_page(report, table, page))
    return report


def by_address(rows: Rows) -> Rows:
    """Return each row of a page once for every address that it holds for."""
    ends = [start for start, _ in rows[1:]] + [PAGE_SIZE]
    return [(address, row) for (start, row), end in zip(rows, ends, strict=True) for address in range(start, end)]


def pages_of(entry: Entry) -> range:
    """Return all pages that an FDE reaches into."""
    return range(entry.start >> PAGE_SHIFT, (entry.end >> PAGE_SHIFT) + 1)


def expected_page(rows: Rows, page: int) -> Rows:
    """Return the rows of one page, by offset in it.

    A page with more than ``ROWS_MAX`` rows has none for the padding between functions.
    """
    begin = page << PAGE_SHIFT
    first = bisect_right(rows, begin, key=itemgetter(0))
    last = bisect_right(rows, begin + PAGE_SIZE - 1, key=itemgetter(0))
    found = [(0, rows[first - 1][1] if first else NONE), *((address - begin, row) for address, row in rows[first:last])]
    if len(found) <= ROWS_MAX:
        return found
    ends = [start for start, _ in found[1:]] + [PAGE_SIZE]
    return merged([item for item, end in zip(found, ends, strict=True) if item[1] != NONE or end - item[0] >= 16])


def decoded_page(report: Report, table: UnwindTable, page: int) -> Rows:
    """Decode one page and note the time.  Returns no rows for a page that is refused."""
    started = time.perf_counter()
    try:
        packed = table.rows(page)
    except PyflameError:
        report.refused += 1
        return []
    finally:
        report.page_us.append(1e6 * (time.perf_counter() - started))
    rows = unpack_rows(packed)
    report.page_rows.append(len(rows))
    report.kinds.update(row.cfa.name for row in rows)
    report.kinds.update(f"rbp {row.rbp.name}" for row in rows if row.cfa != CfaKind.NONE)
    return [(row.start, (row.cfa, row.cfa_offset, row.rbp, row.rbp_offset)) for row in rows]


def compare(report: Report, page: int, expected: Rows, found: Rows) -> None:
    """Note every row that only one side has; of a page with too many rows, every address whose rows differ."""
    if not found:
        return  # refused, which is counted
    if len(expected) > ROWS_MAX:
        expected, found = by_address(expected), by_address(found)
        given_up = {start for start, row in found if row == UNSUPPORTED}
        report.given_up += len(given_up)
        expected, found = ([item for item in rows if item[0] not in given_up] for rows in (expected, found))
    for start, row in sorted(set(expected) ^ set(found)):
        address = (page << PAGE_SHIFT) + start
        if address == report.entry_point and row in (NONE, ROOT):
            continue  # the dynamic linker has no entry for the code where the kernel begins: it is a root by its bytes
        who = "only expected" if (start, row) in expected else "only found"
        report.wrong.append(f"{address:#x}: {who} {row}")


def files(arguments: list[str]) -> Iterator[Path]:
    """Yield the chosen files, each once even if it has several names."""
    seen: set[tuple[int, int]] = set()
    for argument in arguments or [*FILES, sys.executable]:
        path = Path(argument)
        for candidate in sorted(path.rglob("*")) if path.is_dir() else [path]:
            resolved = candidate.resolve()
            if not resolved.is_file() or (path.is_dir() and not is_elf(resolved)):
                continue
            status = resolved.stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                yield resolved


def is_elf(path: Path) -> bool:
    """True for an ELF executable or shared library of a 64-bit machine, by its first 18 bytes."""
    with path.open("rb") as file:
        head = file.read(18)
    return head[:5] == b"\x7fELF\x02" and head[16:17] in (b"\x02", b"\x03")


def main() -> int:
    """Check each file and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="*", help="default: what most Python processes map")
    parser.add_argument("--no-table", action="store_true", help="walk the section instead of searching the table")
    options = parser.parse_args()
    print("    FDEs     rows wrong  open  pages  median    99%    max  rows  max many given  file")
    kinds: Counter[str] = Counter()
    wrong = checked = 0
    for path in files(options.file):
        report = check(path, WithoutTable if options.no_table else ElfImage)
        if report is None:
            continue
        print(report.line(), flush=True)
        for difference in report.wrong[:3]:
            print(f"    {difference}")
        kinds.update(report.kinds)
        wrong += len(report.wrong)
        checked += report.rows
    print(", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    print(f"{checked} rows: {wrong} wrong")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
