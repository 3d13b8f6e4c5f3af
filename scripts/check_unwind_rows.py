#!/usr/bin/env python3
"""Compare unwind rows with readelf's reading of .eh_frame, at every address, and measure what they cost.

    scripts/check_unwind_rows.py                    the dynamic linker, libc, libstdc++, Python and what it maps
    scripts/check_unwind_rows.py FILE...            these files, or all ELF files in these folders
    scripts/check_unwind_rows.py --no-table FILE... as if the file had no .eh_frame_hdr

Two of binutils' readings serve: the interpreted one for the rules, and the plain one for the text of expressions, of
which the interpreted one only says that they are there.  Status 1 if a row differs.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from pyflame_ebpf.elf.image import ElfImage, open_regular
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.unwind.page_rows import PAGE_SHIFT, PAGE_SIZE, ROWS_MAX
from pyflame_ebpf.unwind.row import CfaKind, RbpKind, unpack_rows
from pyflame_ebpf.unwind.rows import UnwindTable

Row = tuple[CfaKind, int, RbpKind, int]  # how the CFA is found, how rbp is
Rows = list[tuple[int, Row]]  # from an address on; sorted
Columns = dict[str, str]  # of readelf's table

NONE: Row = (CfaKind.NONE, 0, RbpKind.SAME, 0)
ROOT: Row = (CfaKind.ROOT, 0, RbpKind.SAME, 0)
UNSUPPORTED: Row = (CfaKind.UNSUPPORTED, 0, RbpKind.SAME, 0)
REGISTERS = [*(f"r{number}" for number in range(8, 16)), "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx"]
CIE = re.compile(r'^([0-9a-f]{8}) [0-9a-f]+ [0-9a-f]+ CIE "([^"]*)"')
FDE = re.compile(r"^([0-9a-f]{8}) [0-9a-f]+ [0-9a-f]+ FDE cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)")
IN_REGISTER = re.compile(r"(r\d+) \(\w+\)")
ADVANCE = re.compile(r"^  DW_CFA_(?:advance_loc|set_loc).* (?:to )?([0-9a-f]{8,})$")
CFA_EXPRESSION = re.compile(r"^  DW_CFA_def_cfa_expression \((.*)\)$")
RBP_EXPRESSION = re.compile(r"^  DW_CFA_expression: r6 \(rbp\) \((.*)\)$")
PLT = re.compile(
    r"DW_OP_breg7 \(rsp\): 8; DW_OP_breg16 \(rip\): 0; DW_OP_lit15; DW_OP_and; DW_OP_lit(\d+); DW_OP_ge; "
    r"DW_OP_lit3; DW_OP_shl; DW_OP_plus"
)
DEREFERENCED = re.compile(r"DW_OP_breg([67]) \((?:rbp|rsp)\): (-?\d+); DW_OP_deref(?:; DW_OP_plus_uconst: (\d+))?")
INDEXED = re.compile(
    r"DW_OP_breg7 \(rsp\): (\d+); DW_OP_breg(\d+) \(r\d+\): 0; DW_OP_lit8; DW_OP_mul; DW_OP_plus; DW_OP_deref; "
    r"DW_OP_plus_uconst: (\d+)"
)
AT_REGISTER = re.compile(r"DW_OP_breg([67]) \(r[bs]p\): (-?\d+)")
FILES = (
    "/lib64/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libm.so.6",
)


@dataclass
class Entry:
    """An FDE as readelf tells it."""

    start: int
    end: int
    is_signal: bool
    rows: list[tuple[int, Columns]]
    expressions: list[tuple[int, str, str]] = field(default_factory=list)  # from an address on: CFA's, rbp's


def readelf(path: Path, what: str) -> Iterator[str]:
    """Yield the lines about .eh_frame."""
    command = ["readelf", "-W", f"--debug-dump=no-follow-links,{what}", str(path)]
    wanted = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("Contents of the "):
                wanted = line.startswith("Contents of the .eh_frame section")
            elif wanted:
                yield line.rstrip("\n")


def interpreted(path: Path) -> dict[str, Entry]:
    """Every FDE by its place in the section, from the interpreted reading."""
    commons: dict[str, tuple[bool, Columns]] = {}
    entries: dict[str, Entry] = {}
    names: list[str] = []
    entry: Entry | None = None
    common = ""
    for line in readelf(path, "frames-interp"):
        if match := CIE.match(line):
            entry, common = None, match[1]
            commons[common] = ("S" in match[2], {})
        elif match := FDE.match(line):
            is_signal, initial = commons[match[2].zfill(8)]
            start = int(match[3], 16)
            entry = entries[match[1]] = Entry(start, int(match[4], 16), is_signal, [(start, initial)])
        elif line.startswith("   LOC"):
            names = line.split()[1:]
        elif re.match(r"^[0-9a-f]{16} ", line):
            address, *values = IN_REGISTER.sub(r"\1", line).split()
            columns = dict(zip(names, values, strict=True))
            if entry:
                entry.rows.append((int(address, 16), columns))
            else:
                commons[common] = (commons[common][0], columns)
    return entries


def add_expressions(path: Path, entries: dict[str, Entry]) -> None:
    """Note the expressions in force at each address, from the plain reading."""
    entry: Entry | None = None
    location, state, saved = 0, ("", ""), [("", "")]
    for line in readelf(path, "frames"):
        if CIE.match(line):
            entry = None
        elif match := FDE.match(line):
            entry = entries[match[1]]
            location, state, saved = entry.start, ("", ""), []
        elif match := ADVANCE.match(line):
            location = int(match[1], 16)
        elif match := CFA_EXPRESSION.match(line):
            state = (match[1], state[1])
        elif match := RBP_EXPRESSION.match(line):
            state = (state[0], match[1])
        elif line == "  DW_CFA_remember_state":
            saved.append(state)
        elif line == "  DW_CFA_restore_state" and saved:
            state = saved.pop()
        if entry:
            entry.expressions.append((location, *state))


def expected_rows(entries: Iterable[Entry]) -> Rows:
    """Rows of a whole file as they should be: gaps and merged neighbours included."""
    ordered = sorted((entry for entry in entries if entry.end > entry.start), key=lambda entry: entry.start)
    limits = [*(entry.start for entry in ordered), 1 << 64][1:]
    rows: Rows = []
    for entry, limit in zip(ordered, limits, strict=True):
        expressions = {location: texts for location, *texts in entry.expressions}
        texts = ["", ""]
        for address, columns in entry.rows:
            texts = expressions.get(address, texts)
            if address < min(limit, entry.end):
                rows.append((address, expected_row(columns, texts, entry.is_signal)))
        if entry.end < limit:
            rows.append((entry.end, NONE))
    return merged(rows)


def expected_row(columns: Columns, expressions: list[str], is_signal: bool) -> Row:
    """Say what a line of readelf's table should become."""
    if columns.get("ra") == "u":
        return ROOT
    if is_signal and expressions[0] == "DW_OP_breg7 (rsp): 160; DW_OP_deref":
        return CfaKind.SIGNAL, 160, RbpKind.SAME, 0
    if columns.get("ra") != "c-8":
        return UNSUPPORTED
    kind, offset = expected_cfa(columns["CFA"], expressions[0])
    return (
        (kind, offset, *expected_rbp(columns.get("rbp", "u"), expressions[1]))
        if kind != UNSUPPORTED[0]
        else UNSUPPORTED
    )


def expected_cfa(text: str, expression: str) -> tuple[CfaKind, int]:
    """Say what a CFA column should become."""
    if text == "exp":
        return expected_cfa_expression(expression)
    name, sign, digits = re.fullmatch(r"(\w+?)([+-])(\d+)", text).groups()  # type: ignore[union-attr]
    offset = int(sign + digits)
    if name in ("rsp", "rbp"):
        return CfaKind[name.upper()], offset
    if name not in REGISTERS:
        return CfaKind.UNSUPPORTED, 0
    return CfaKind.REGISTER, offset * 16 + REGISTERS.index(name)


def expected_cfa_expression(expression: str) -> tuple[CfaKind, int]:
    """Say what an expression for the CFA should become."""
    if match := PLT.fullmatch(expression):
        return CfaKind.PLT, int(match[1])
    if match := INDEXED.fullmatch(expression):
        place, number, addend = map(int, match.groups())
        return CfaKind.INDEXED, addend * 65536 + place * 16 + REGISTERS.index(f"r{number}")
    if not (match := DEREFERENCED.fullmatch(expression)):
        return CfaKind.UNSUPPORTED, 0
    place, addend = int(match[2]), int(match[3] or 0)
    if match[1] == "6" and not addend:
        return CfaKind.RBP_DEREF, place
    return (CfaKind.RBP_DEREF_PLUS if match[1] == "6" else CfaKind.RSP_DEREF_PLUS), addend * 65536 + place % 65536


def expected_rbp(text: str, expression: str) -> tuple[RbpKind, int]:
    """Say what an rbp column should become."""
    if text in ("u", "s"):
        return RbpKind.SAME, 0
    if match := re.fullmatch(r"c([+-]\d+)", text):
        kind, offset = RbpKind.AT_CFA, int(match[1])
    elif text == "exp" and (match := AT_REGISTER.fullmatch(expression)):
        kind, offset = RbpKind.AT_RBP if match[1] == "6" else RbpKind.AT_RSP, int(match[2])
    else:
        return RbpKind.UNKNOWN, 0
    if kind is RbpKind.AT_CFA and -1016 <= offset <= -16:
        kind = RbpKind.BELOW_CFA
    return (kind, offset // 8) if offset % 8 == 0 and -1024 <= offset <= 1016 else (RbpKind.UNKNOWN, 0)


def merged(rows: Rows) -> Rows:
    """Drop rows that say what the one before says, and all but the last at one address."""
    latest = dict(rows)
    kept: Rows = []
    for address, row in latest.items():
        if not kept or kept[-1][1] != row:
            kept.append((address, row))
    return kept


class WithoutTable(ElfImage):
    """A file whose .eh_frame_hdr is not looked at."""

    @property
    def unwind_index(self) -> None:
        """None, always."""


@dataclass
class Report:
    """What one file gave."""

    path: Path
    entries: int = 0
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
    """Compare one file; None for one without .eh_frame."""
    entries = interpreted(path)
    add_expressions(path, entries)
    rows = expected_rows(entries.values())
    if not rows:
        return None
    report = Report(path, len(entries), len(rows))
    pages = {page for entry in entries.values() for page in pages_of(entry)}
    with open_regular(str(path)) as file:
        image = image_type(file)
        started = time.perf_counter()
        table = UnwindTable(image)
        report.open_ms = 1e3 * (time.perf_counter() - started)
        for page in sorted(pages):
            compare(report, page, expected_page(rows, page), decoded_page(report, table, page))
    return report


def by_address(rows: Rows) -> Rows:
    """Repeat each row of a page for all its addresses."""
    ends = [start for start, _ in rows[1:]] + [PAGE_SIZE]
    return [(address, row) for (start, row), end in zip(rows, ends, strict=True) for address in range(start, end)]


def pages_of(entry: Entry) -> range:
    """All pages that an FDE reaches into."""
    return range(entry.start >> PAGE_SHIFT, (entry.end >> PAGE_SHIFT) + 1)


def expected_page(rows: Rows, page: int) -> Rows:
    """One page's part of a file's rows, by offset; with too many, padding between functions is left out."""
    begin = page << PAGE_SHIFT
    first = bisect_right(rows, begin, key=itemgetter(0))
    last = bisect_right(rows, begin + PAGE_SIZE - 1, key=itemgetter(0))
    found = [(0, rows[first - 1][1] if first else NONE), *((address - begin, row) for address, row in rows[first:last])]
    if len(found) <= ROWS_MAX:
        return found
    ends = [start for start, _ in found[1:]] + [PAGE_SIZE]
    return merged([item for item, end in zip(found, ends, strict=True) if item[1] != NONE or end - item[0] >= 16])


def decoded_page(report: Report, table: UnwindTable, page: int) -> Rows:
    """Decode one page, timed; none for one that is refused."""
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
    """Note every row that only one of them has; of a page with too many rows, every address with another row."""
    if not found:
        return  # refused, which is counted
    if len(expected) > ROWS_MAX:
        expected, found = by_address(expected), by_address(found)
        given_up = {start for start, row in found if row == UNSUPPORTED}
        report.given_up += len(given_up)
        expected, found = ([item for item in rows if item[0] not in given_up] for rows in (expected, found))
    for start, row in sorted(set(expected) ^ set(found)):
        who = "only expected" if (start, row) in expected else "only found"
        report.wrong.append(f"{(page << PAGE_SHIFT) + start:#x}: {who} {row}")


def files(arguments: list[str]) -> Iterator[Path]:
    """Yield the files that were asked for, each once, whatever its names."""
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
    """Whether a file begins as an ELF executable or shared library for a 64-bit machine does."""
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
