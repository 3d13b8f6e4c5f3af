#!/usr/bin/env python3
"""Compare the package's reading of ELF files with that of pyelftools: segments, sections, build ids and symbols.

    scripts/check_elf.py                 all ELF files in /usr/bin and /usr/lib
    scripts/check_elf.py FILE...         these files, or all ELF files in these folders
    scripts/check_elf.py --quick         the dynamic linker and what this Python has mapped

Every function of .symtab and .dynsym that has a size must be found at its first address, unless it has more than 16
names, and one in a hundred of the dynamic symbols by its name.  Prints what differs, then the number of files and the
time of each reader.  Status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _checkout  # noqa: F401 - finds the package
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection
from elftools.elf.segments import NoteSegment

from pyflame_ebpf.elf.function_table import Hit
from pyflame_ebpf.elf.image import BadElf, ElfImage, open_regular
from pyflame_ebpf.elf.symbols import ElfSymbols

FOLDERS = (Path("/usr/bin"), Path("/usr/lib"))
SUFFIXES_OF_OTHER_FILES = {".a", ".o", ".py", ".pyc"}
NAMES_MAX = 16  # of one function; the package looks no further
NAMES_ASKED = 100  # of so many dynamic symbols one is looked up by name
SEGMENT_TYPES = {1: "PT_LOAD", 2: "PT_DYNAMIC", 3: "PT_INTERP", 4: "PT_NOTE", 0x6474E550: "PT_GNU_EH_FRAME"}
FUNCTION_TYPES = {"STT_FUNC", "STT_LOOS"}  # STT_GNU_IFUNC is 10, where what belongs to operating systems begins


@dataclass(slots=True)
class Facts:
    """A file as one of the readers has it; addresses, offsets and sizes in bytes."""

    segments: list[tuple[object, ...]] = field(default_factory=list)
    sections: list[tuple[object, ...]] = field(default_factory=list)
    build_id: str = ""
    symbols: int = 0
    functions: dict[str, dict[int, list[str]]] = field(default_factory=dict)  # table → first address → names
    sized: set[int] = field(default_factory=set)  # first addresses of functions that have a size
    addresses: dict[str, set[int]] = field(default_factory=dict)  # dynamic symbol → addresses


def facts_of(file: ELFFile) -> Facts:
    """The file as pyelftools reads it."""
    facts = Facts()
    for segment in file.iter_segments():
        head = segment.header
        facts.segments.append((head.p_type, head.p_flags, head.p_offset, head.p_vaddr, head.p_filesz, head.p_memsz))
        if isinstance(segment, NoteSegment) and not facts.build_id:
            facts.build_id = _build_id(segment)
    for section in file.iter_sections():
        head = section.header
        facts.sections.append((section.name, head.sh_addr, head.sh_offset, head.sh_size, head.sh_link))
        if isinstance(section, NoteSection) and not file.num_segments():
            facts.build_id = facts.build_id or _build_id(section)
        if isinstance(section, SymbolTableSection) and section.name in {".symtab", ".dynsym"}:
            _add_symbols(facts, section)
    return facts


def _build_id(notes: Any) -> str:
    return next((str(note.n_desc) for note in notes.iter_notes() if note.n_type == "NT_GNU_BUILD_ID"), "")


def _add_symbols(facts: Facts, section: Any) -> None:
    functions = facts.functions.setdefault(section.name, {})
    facts.symbols += section.num_symbols()
    for symbol in section.iter_symbols():
        entry = symbol.entry
        if entry.st_shndx == "SHN_UNDEF":
            continue
        if section.name == ".dynsym" and symbol.name:
            facts.addresses.setdefault(symbol.name, set()).add(entry.st_value)
        if entry.st_info.type in FUNCTION_TYPES:
            functions.setdefault(entry.st_value, []).append(symbol.name.partition("@")[0])
            if entry.st_size:
                facts.sized.add(entry.st_value)


def differences(symbols: ElfSymbols, facts: Facts) -> Iterator[str]:
    """What the package reads otherwise than pyelftools did."""
    image = symbols.image
    segments = [(SEGMENT_TYPES.get(each.kind, each.kind), *each[1:]) for each in image.all_segments]
    expected = [(_known_type(kind, own[0]), *rest) for (kind, *rest), own in zip(facts.segments, segments, strict=True)]
    if segments != expected:
        yield f"segments: {segments} instead of {expected}"
    sections: list[tuple[object, ...]] = [
        (each.name, each.vaddr, each.offset, each.size, each.link) for each in image.sections
    ]
    if sections != facts.sections:
        yield f"sections: {Counter(sections) - Counter(facts.sections)} are not in pyelftools' list"
    if image.build_id.hex() != facts.build_id:
        yield f"build id: {image.build_id.hex()} instead of {facts.build_id}"
    if symbols.count != facts.symbols:
        yield f"symbols: {symbols.count} instead of {facts.symbols}"
    for table, found in _functions(symbols, facts).items():
        for vaddr, names in facts.functions[table].items():
            hit = found.get(vaddr)
            asked = any(names) and len(names) <= NAMES_MAX and vaddr in facts.sized
            if asked and (hit is None or hit[1] or hit[0] not in names):
                yield f"function of {table} at {vaddr:#x}: {hit} instead of {sorted(names)}"
    for name, vaddrs in list(facts.addresses.items())[::NAMES_ASKED]:
        symbol = symbols.dynamic_symbol(name)
        if symbol is None or symbol.vaddr not in vaddrs:
            yield f"dynamic symbol {name}: {symbol} instead of {sorted(vaddrs)}"


def _known_type(kind: object, own: object) -> object:
    """A segment's type, the package's where it has no name for it."""
    return kind if kind in SEGMENT_TYPES.values() else own


def _functions(symbols: ElfSymbols, facts: Facts) -> dict[str, dict[int, Hit]]:
    ask = {".symtab": symbols.static_functions, ".dynsym": symbols.dynamic_functions}
    return {table: ask[table](functions) for table, functions in facts.functions.items()}


def elf_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The ELF files among these and in these folders, each once and without following links."""
    seen = set()
    for path in paths:
        for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if found.suffix in SUFFIXES_OF_OTHER_FILES or (path.is_dir() and found.is_symlink()):
                continue
            if found.is_file() and (identity := found.stat().st_ino) not in seen:
                seen.add(identity)
                with found.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield found


def mapped_here() -> set[Path]:
    """The files that this process has mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {Path(line.split(maxsplit=5)[5]) for line in lines if "/" in line and not line.endswith("(deleted)")}


@dataclass(slots=True)
class Report:
    """What came of all files."""

    files: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # files by the reason of the package's reader
    symbols: int = 0
    different: int = 0
    own_seconds: float = 0.0
    pyelftools_seconds: float = 0.0


def check(path: Path, report: Report) -> list[str]:
    """What differs in one file."""
    with open_regular(str(path)) as file:
        began = time.process_time()
        try:
            image = ElfImage(file)
        except BadElf as error:
            report.refused[error.message] += 1
            return []
        report.own_seconds += time.process_time() - began
        began = time.process_time()
        try:
            facts = facts_of(ELFFile(file))
        except (ELFError, UnicodeDecodeError) as error:
            return [f"pyelftools cannot read it: {error}"]
        report.pyelftools_seconds += time.process_time() - began
        began = time.process_time()
        found = list(differences(ElfSymbols(image), facts))
        report.own_seconds += time.process_time() - began
    report.files += 1
    report.symbols += facts.symbols
    report.different += bool(found)
    return found


def main() -> int:
    """Compare the files of the command line; returns the exit status."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, default=FOLDERS, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="only what this Python has mapped")
    options = parser.parse_args()
    report = Report()
    for path in elf_files(mapped_here() if options.quick else options.paths):
        for difference in check(path, report):
            print(f"{path}: {difference}"[:400])
    print(
        f"{report.files} files with {report.symbols} symbols, {report.different} read otherwise by pyelftools; "
        f"{report.own_seconds:.1f} s, pyelftools {report.pyelftools_seconds:.1f} s"
    )
    for reason, count in report.refused.items():
        print(f"{count} more refused: {reason}")
    return int(report.different > 0 or not report.files)


if __name__ == "__main__":
    sys.exit(main())
