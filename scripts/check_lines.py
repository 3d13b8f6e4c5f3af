#!/usr/bin/env python3
"""Compare line_table with what each CPython says of its own standard library, at every instruction.

    scripts/check_lines.py                                every interpreter of pyenv and /usr/bin
    scripts/check_lines.py --root DIR                     those in a chroot (needs root)
    scripts/check_lines.py --sample 60 /usr/bin/python3   60 files of one interpreter

Each interpreter compiles the .py files of its standard library, and prints every code object's table with its own
reading of the table: co_lines(), before 3.10 dis.findlinestarts.  Status 1 if a line differs.
"""

from __future__ import annotations

import argparse
import marshal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import _checkout  # noqa: F401 - finds the package

from pyflame_ebpf.cpython.line_table import LineTableFormat, decode_lines

# Runs in any CPython from 2.7 on; writes to stdout (version, files that do not compile), then per file a list of
# (first line, table, size of the bytecode, [(start, end, line), ...]), then None.
DUMPER = r"""
import dis, io, marshal, os, sys, sysconfig, warnings
warnings.simplefilter("ignore")
sample = int(sys.argv[1])
out = getattr(sys.stdout, "buffer", sys.stdout)

def put(value):
    out.write(marshal.dumps(value, 0))  # version 0: no references that another release cannot read

def truth(code):
    size = len(code.co_code)
    if hasattr(code, "co_lines"):
        return [(start, end, line or 0) for start, end, line in code.co_lines()]
    starts = list(dis.findlinestarts(code))
    ends = [start for start, line in starts[1:]] + [size]
    return [(0, starts[0][0] if starts else size, code.co_firstlineno)] + [
        (start, end, line) for (start, line), end in zip(starts, ends)]

def walk(code):
    pending, found = [code], []
    while pending:
        code = pending.pop()
        table = code.co_linetable if hasattr(code, "co_linetable") else code.co_lnotab
        found.append((code.co_firstlineno, table, len(code.co_code), truth(code)))
        pending += [const for const in code.co_consts if isinstance(const, type(code))]
    return found

top = sysconfig.get_path("stdlib")
names = []
for folder, folders, files in os.walk(top):
    folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
    names += [os.path.join(folder, name) for name in sorted(files) if name.endswith(".py")]
if sample:
    names = names[::max(1, len(names) // sample)][:sample]
put(sys.version_info[:3])
for name in names:
    try:
        with io.open(name, "rb") as stream:
            code = compile(stream.read(), name, "exec", 0, 1)
    except (SyntaxError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError):
        put(())
        continue
    put(walk(code))
put(None)
"""

Range = tuple[int, int, int]  # start and end in bytes, line; 0 is none
DumpedCode = tuple[int, bytes, int, Sequence[Range]]


@dataclass
class Tally:
    """The counts of one interpreter."""

    release: str = ""
    files: int = 0
    not_compiled: int = 0
    codes: int = 0
    positions: int = 0
    wrong: int = 0
    example: str = ""


def format_of(release: tuple[int, ...]) -> LineTableFormat:
    """Return the table format of a release."""
    if release >= (3, 11):
        return LineTableFormat.LOCATIONS
    if release >= (3, 10):
        return LineTableFormat.LINETABLE_310
    return LineTableFormat.LNOTAB if release >= (3, 6) else LineTableFormat.LNOTAB_UNSIGNED


def check(command: Sequence[str], sample: int) -> Tally:
    """Run the dumper in one interpreter, and compare every table that it prints."""
    tally = Tally()
    dumper = [*command, "-c", DUMPER, str(sample)]
    with subprocess.Popen(dumper, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        if process.stdout is None:
            raise RuntimeError("no pipe from the interpreter")
        release = tuple(marshal.load(process.stdout))
        tally.release = ".".join(map(str, release))
        step = 2 if release >= (3, 6) else 1
        while (codes := marshal.load(process.stdout)) is not None:
            tally.files += 1
            tally.not_compiled += not codes
            for code in codes:
                compare(tally, format_of(release), code, step)
    return tally


def compare(tally: Tally, table_format: LineTableFormat, code: DumpedCode, step: int) -> None:
    """Compare one code object, and add it to the tally."""
    first_line, table, size, ranges = code
    expected = [0] * size
    for start, end, line in ranges:
        expected[start:end] = [max(line, 0)] * (min(end, size) - start)
    decoded = decode_lines(table_format, table, first_line)
    tally.codes += 1
    for offset in range(0, size, step):
        tally.positions += 1
        if decoded.line_at(offset) != expected[offset]:
            tally.wrong += 1
            tally.example = (
                f"{table.hex()} from line {first_line}: {decoded.line_at(offset)} at {offset}, not {expected[offset]}"
            )


def interpreters() -> Iterator[list[str]]:
    """Yield the command of each interpreter of this machine: pyenv's and /usr/bin's."""
    for binaries in [*sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin")), Path("/usr/bin")]:
        yield from ([str(path)] for path in versioned(binaries))


def versioned(folder: Path) -> list[Path]:
    """Return the files in ``folder`` that are called python2.7 or python3.N."""
    found = [*folder.glob("python2.7"), *folder.glob("python3.[0-9]"), *folder.glob("python3.[0-9][0-9]")]
    return sorted(path for path in found if path.is_file())


def main() -> int:
    """Check each interpreter, two at a time, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interpreter", nargs="*", help="default: all that are found")
    parser.add_argument("--root", action="append", default=[], type=Path, help="a chroot with more interpreters")
    parser.add_argument("--sample", type=int, default=0, help="number of files of each interpreter; default all")
    options = parser.parse_args()
    commands = [[name] for name in options.interpreter] or ([] if options.root else list(interpreters()))
    for root in options.root:
        commands += [["chroot", str(root), f"/usr/bin/{path.name}"] for path in versioned(root / "usr/bin")]
    with ProcessPoolExecutor(max_workers=2) as pool:
        tallies = list(pool.map(check, commands, [options.sample] * len(commands)))
    print(f"{'release':<9}{'files':>7}{'failed':>8}{'code objects':>14}{'positions':>12}{'wrong':>7}  interpreter")
    for tally, command in zip(tallies, commands, strict=True):
        numbers = f"{tally.files:>7}{tally.not_compiled:>8}{tally.codes:>14}{tally.positions:>12}{tally.wrong:>7}"
        print(f"{tally.release:<9}{numbers}  {' '.join(command)}")
        if tally.example:
            print(f"    {tally.example}")
    wrong = sum(tally.wrong for tally in tallies)
    positions = sum(tally.positions for tally in tallies)
    print(f"{len(tallies)} interpreters, {positions} positions: {wrong} wrong")
    return 1 if wrong or not all(tally.positions for tally in tallies) or not tallies else 0


if __name__ == "__main__":
    sys.exit(main())
