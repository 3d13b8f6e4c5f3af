"""What one ELF file says about the interpreter in it: where its variables are, and which release it is.

Goes by symbols, sections and constants, never by the file's name.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from pyflame_ebpf.elf.bad_elf import OverBudget
from pyflame_ebpf.elf.budget import Budget, SharedBudget
from pyflame_ebpf.elf.image import BadElf, ElfImage, Extent, Segment
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.host.guarded_reads import FileStatus

_VERSION_MAX = 32  # bytes of a version string with the byte before and the NUL behind it
_VERSIONS_MAX = 64  # different strings; of two the version cannot be told any more
_REMEMBERED_MAX = 1 << 16  # files

# Functions that the C API gained in a release, newest first (the "What's New" page of each, section C API), so that
# the first one present tells the release.  Needed for up to 3.10 only: 3.11 added Py_Version.
_ADDED_IN = (
    ("PyType_FromMetaclass", (3, 12)),
    ("PyModule_AddObjectRef", (3, 10)),
    ("PyFrame_GetCode", (3, 9)),
    ("PyCode_NewWithPosOnlyArgs", (3, 8)),
    ("PyThread_tss_create", (3, 7)),
    ("PyOS_FSPath", (3, 6)),
)
_PYTHON_2_ONLY = "PyString_FromString"
_NUMBER_BEFORE = re.compile(rb"[\d.]")
_RELEASE_LEVELS = {0xA: "a", 0xB: "b", 0xC: "rc", 0xF: ""}


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """The interpreter in a file.  Addresses are inside the image, 0 for a variable that the file does not have.

    ``runtime`` is _PyRuntime (3.7 and later); older releases have ``interpreters_head`` and ``tstate_current`` instead.
    ``release`` is () and ``version`` "" when the file does not say.
    """

    runtime: int
    interpreters_head: int
    tstate_current: int
    release: tuple[int, ...]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What the search for an interpreter needs to know of one file, which many processes may share."""

    machine: int
    segments: tuple[Segment, ...]
    first_text_vaddr: int
    dynamic_vaddr: int
    debug_entry_vaddr: int
    build_id: bytes
    build_id_vaddr: int
    runtime: RuntimeFacts | None


def examine(image: ElfImage) -> FileFacts:
    """Collect everything that one file says.  Raises BadElf."""
    return FileFacts(
        machine=image.machine,
        segments=image.segments,
        first_text_vaddr=image.first_text_vaddr,
        dynamic_vaddr=image.dynamic_vaddr,
        debug_entry_vaddr=image.debug_entry_vaddr,
        build_id=image.build_id,
        build_id_vaddr=image.build_id_vaddr,
        runtime=_runtime_facts(ElfSymbols(image)),
    )


def _runtime_facts(symbols: ElfSymbols) -> RuntimeFacts | None:
    """The interpreter in a file; None when it has none or only refers to the interpreter of another file."""
    runtime, head, current = _roots(symbols)
    if not (runtime or head or current):
        return None
    release, version = _version_in_file(symbols)
    return RuntimeFacts(runtime, head, current, release, version)


def _roots(symbols: ElfSymbols) -> tuple[int, int, int]:
    """The addresses of (_PyRuntime, interp_head, _PyThreadState_Current), 0 for each that the file does not have.

    Dynamic symbols are asked for first: their hash table says at once that a file has none, as nearly every file.
    """
    runtime = symbols.dynamic_symbol("_PyRuntime")
    if runtime:
        return runtime.vaddr, 0, 0
    current = symbols.dynamic_symbol("_PyThreadState_Current")
    if current is None:
        section = symbols.image.section(".PyRuntime")  # from 3.10 on, also where the symbol is hidden and stripped
        if section:
            return section.vaddr, 0, 0
        found = symbols.named(["_PyRuntime", "_PyThreadState_Current"])
        runtime, current = found.get("_PyRuntime"), found.get("_PyThreadState_Current")
        if runtime:
            return runtime.vaddr, 0, 0
    head = symbols.symbol("interp_head") if current else None
    return 0, head.vaddr if head else 0, current.vaddr if current else 0


def _version_in_file(symbols: ElfSymbols) -> tuple[tuple[int, ...], str]:
    """((major, minor), full version), by Py_Version, else by the functions that exist and the string in .rodata.

    () and "" for what cannot be told.
    """
    constant = symbols.symbol("Py_Version")
    if constant:
        return unpack_version(int.from_bytes(symbols.image.read_virtual(constant.vaddr, 4), "little"))
    release = _release_by_functions(symbols)
    versions = _version_strings(symbols.image, release)
    if len(versions) != 1:
        return release, ".".join(map(str, release))
    version = versions.pop()
    major, minor, _ = version.split(".", 2)
    return (int(major), int(minor)), version


def unpack_version(number: int) -> tuple[tuple[int, ...], str]:
    """((major, minor), full version) of a PY_VERSION_HEX: 0x030c01f0 is 3.12.1."""
    major, minor, micro = number >> 24, number >> 16 & 255, number >> 8 & 255
    level, serial = _RELEASE_LEVELS.get(number >> 4 & 15, "?"), number & 15
    return (major, minor), f"{major}.{minor}.{micro}" + (f"{level}{serial}" if level else "")


def _release_by_functions(symbols: ElfSymbols) -> tuple[int, ...]:
    found = symbols.named([_PYTHON_2_ONLY, *(function for function, _ in _ADDED_IN)])
    if _PYTHON_2_ONLY in found:
        return (2, 7)
    return next((release for function, release in _ADDED_IN if function in found), ())


def _version_strings(image: ElfImage, release: tuple[int, ...]) -> set[str]:
    """The strings among the constants that look like a version of this release, or of any release for ().

    PY_VERSION may be the tail of a longer string ("/usr/local/python-3.9.18"), since linkers merge equal tails.  The
    pattern begins with literal characters, so that re searches at the speed of memchr.
    """
    section = image.section(".rodata")
    if section is None:
        return set()
    start = rf"{release[0]}\.{release[1]}\." if release else r"3\.\d{1,2}\."
    pattern = re.compile((start + r"\d{1,3}(?:(?:a|b|rc)\d{1,2})?\+?(?=\0)").encode())
    versions: set[str] = set()
    before = b""
    for piece in image.pieces(Extent(section.offset, section.size), ".rodata"):
        data = before + piece
        versions |= {
            found.group().decode("ascii")
            for found in pattern.finditer(data)
            if not _NUMBER_BEFORE.search(data, max(found.start() - 1, 0), found.start())
        }
        if len(versions) > _VERSIONS_MAX:
            break
        before = data[-_VERSION_MAX:]
    return versions


def _identity(status: os.stat_result | FileStatus) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(slots=True)
class FileFactsCache:
    """The facts of files that were met, so that each file is read once however many processes map it."""

    _facts: dict[tuple[int, int, int, int], FileFacts | None] = field(default_factory=dict)
    over_budget: int = 0  # files that took too much to read: they count as unusable

    def has(self, status: FileStatus) -> bool:
        """Whether a file was met, as long as it is unchanged."""
        return _identity(status) in self._facts

    def known(self, status: FileStatus) -> FileFacts | None:
        """The facts of a file that was met."""
        return self._facts[_identity(status)]

    def of(self, file: BinaryIO, shared: SharedBudget | None = None) -> FileFacts | None:
        """The facts of an open file; None for a file that is not a usable ELF file or is over its budget.

        ``shared`` is what all files of a process may take; a file that is not begun for lack of it is not remembered.
        Raises OverBudget for such a file.
        """
        identity = _identity(os.fstat(file.fileno()))
        if identity not in self._facts:
            if len(self._facts) >= _REMEMBERED_MAX:
                self._facts.clear()
            with (shared or SharedBudget()).file() as budget:
                self._facts[identity] = self._examined(file, budget)
        return self._facts[identity]

    def _examined(self, file: BinaryIO, budget: Budget) -> FileFacts | None:
        try:
            return examine(ElfImage(file, budget))
        except OverBudget:
            self.over_budget += 1
        except (BadElf, struct.error):
            pass
        return None
