"""The unwind rows of a file as readelf has them, from two of binutils' readings of .eh_frame.

The interpreted reading has the rules of every address, but says only that an expression is there.  The plain reading
has the texts of the expressions.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import _checkout  # noqa: F401 - finds the package

from pyflame_ebpf.unwind.row import CfaKind, RbpKind

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


@dataclass
class Entry:
    """One FDE in readelf's reading."""

    start: int
    end: int
    is_signal: bool
    rows: list[tuple[int, Columns]]
    expressions: list[tuple[int, str, str]] = field(default_factory=list)  # from an address on: CFA's, rbp's


def readelf(path: Path, what: str) -> Iterator[str]:
    """Yield readelf's lines about .eh_frame."""
    command = ["readelf", "-W", f"--debug-dump=no-follow-links,{what}", str(path)]
    wanted = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("Contents of the "):
                wanted = line.startswith("Contents of the .eh_frame section")
            elif wanted:
                yield line.rstrip("\n")


def read_entries(path: Path) -> list[Entry]:
    """Read every FDE of a file."""
    entries = interpreted(path)
    add_expressions(path, entries)
    return list(entries.values())


def interpreted(path: Path) -> dict[str, Entry]:
    """Return every FDE by its place in the section, from the interpreted reading."""
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
    """Add the expressions in force at each address, from the plain reading."""
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
    """Return the rows that a whole file should have: gaps have rows, equal neighbours are one row."""
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
    """Return the row for one line of readelf's table."""
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
    """Return the kind and operand for a CFA column."""
    if text == "exp":
        return expected_cfa_expression(expression)
    name, sign, digits = re.split(r"([+-])", text, maxsplit=1)
    offset = int(sign + digits)
    if name in ("rsp", "rbp"):
        return CfaKind[name.upper()], offset
    if name not in REGISTERS:
        return CfaKind.UNSUPPORTED, 0
    return CfaKind.REGISTER, offset * 16 + REGISTERS.index(name)


def expected_cfa_expression(expression: str) -> tuple[CfaKind, int]:
    """Return the kind and operand for a CFA expression."""
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
    """Return the kind and operand for an rbp column."""
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
    """Drop rows that repeat the row before, and all but the last row at one address."""
    latest = dict(rows)
    kept: Rows = []
    for address, row in latest.items():
        if not kept or kept[-1][1] != row:
            kept.append((address, row))
    return kept
