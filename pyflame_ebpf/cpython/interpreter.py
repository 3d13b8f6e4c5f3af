"""Which CPython a process runs, and where its roots are, from what it has mapped; never from a file's name.

Pure: files and memory are reached through what is passed in, except in ``interpreter_of``, the one edge.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from pyflame_ebpf.cpython.debug_offsets import DEBUG_OFFSETS_READ, layout_from_debug_offsets
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.cpython.rows import LAYOUTS
from pyflame_ebpf.elf.image import BadElf, ElfImage, ElfType, Segment
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.proc import Mapping

ReadMemory = Callable[[int, int], bytes]  # (address, size) → exactly size bytes, or OSError

_DEBUG_OFFSETS_COOKIE = b"xdebugpy"
_MACHINES = (62, 183)  # EM_X86_64, EM_AARCH64: the layouts are those of 64-bit Linux
_READ_ONLY_DATA_MAX = 64 << 20
_PAGE = 4096

# Functions that the C API gained in a release, newest first (the "What's New" page of each, section C API), so that
# the first one present tells the release.  Needed for up to 3.10 only: 3.11 added Py_Version.
_ADDED_IN = (
    ("PyType_FromMetaclass", (3, 12)),
    ("Py_Version", (3, 11)),
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
    """The interpreter in a file: addresses inside the image, 0 where it has none.

    ``runtime`` is _PyRuntime (3.7 and later); ``interpreters_head`` and ``tstate_current`` are the variables that older
    releases have instead.  ``release`` is () and ``version`` "" when the file does not say.
    """

    runtime: int
    interpreters_head: int
    tstate_current: int
    release: tuple[int, ...]
    version: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the search for an interpreter needs to know of one file; kept per file, since files are shared."""

    type: ElfType
    machine: int
    segments: tuple[Segment, ...]
    first_text_vaddr: int
    dynamic_vaddr: int
    debug_entry_vaddr: int
    build_id: bytes
    build_id_vaddr: int
    runtime: RuntimeFacts | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a BPF program finds the interpreter by itself in later processes that run the same executable file.

    Addresses are inside the images, as in the ELF headers.

    1. Executable's bias: mm->start_code - ``first_text_vaddr`` (0 for an EXEC file).
    2. Interpreter in the executable (``in_library`` false): roots are bias + ``interpreters_head`` and
       bias + ``tstate_current``; done.
    3. Else read the pointer at bias + ``debug_entry_vaddr``: the dynamic linker's struct r_debug, whose r_map (at 8)
       heads the list of link_map {l_addr 0, l_name 8, l_ld 16, l_next 24}; NULL until the linker has filled it.
    4. The library is the entry with l_ld - l_addr == ``library_dynamic_vaddr`` and, where ``build_id_size`` is not 0,
       the 8 bytes at l_addr + ``library_build_id_vaddr`` equal to ``library_build_id_start``.
    5. Roots are l_addr + ``interpreters_head`` and l_addr + ``tstate_current``.

    A root of 0 does not exist in this build.
    """

    executable_type: ElfType
    first_text_vaddr: int
    interpreters_head: int
    tstate_current: int
    in_library: bool = False
    debug_entry_vaddr: int = 0
    library_dynamic_vaddr: int = 0
    library_build_id_vaddr: int = 0
    library_build_id_start: bytes = b""

    @property
    def usable(self) -> bool:
        """Whether the steps lead anywhere: a statically linked executable has no list of libraries."""
        return not self.in_library or bool(self.debug_entry_vaddr and self.library_dynamic_vaddr)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A supported CPython in a process.

    ``interpreters_head`` is the address of the pointer to the first PyInterpreterState, ``tstate_current`` the address
    of the pointer to the thread state that holds the GIL, both absolute, 0 where this build has none.  ``bias`` is what
    the addresses of its file are moved by, ``shared`` whether that file is not the process's executable.
    """

    release: tuple[int, int]
    version: str
    file: str
    layout: CPythonLayout
    bias: int
    interpreters_head: int
    tstate_current: int
    shared: bool
    build_id: bytes
    recipe: Recipe

    @property
    def name(self) -> str:
        """As people say it: ``CPython 3.12.1``."""
        return f"CPython {self.version}"


@dataclass(frozen=True, slots=True)
class UnsupportedInterpreter:
    """A CPython whose stacks cannot be read, and why."""

    version: str
    file: str
    reason: str

    @property
    def name(self) -> str:
        """As people say it: ``CPython 2.7.18``."""
        return f"CPython {self.version}".strip()


def examine(image: ElfImage) -> FileFacts:
    """Everything that one file says; BadElf."""
    return FileFacts(
        type=image.type,
        machine=image.machine,
        segments=image.segments,
        first_text_vaddr=image.first_text_vaddr,
        dynamic_vaddr=image.dynamic_vaddr,
        debug_entry_vaddr=image.debug_entry_vaddr,
        build_id=image.build_id,
        build_id_vaddr=image.build_id_vaddr,
        runtime=_runtime_facts(image),
    )


def _runtime_facts(image: ElfImage) -> RuntimeFacts | None:
    """The interpreter in a file; None when it has none, or only refers to one in another file."""
    runtime, head, current = _roots(image)
    if not (runtime or head or current):
        return None
    release, version = _version_in_file(image)
    return RuntimeFacts(runtime, head, current, release, version)


def _roots(image: ElfImage) -> tuple[int, int, int]:
    """(_PyRuntime, interp_head, _PyThreadState_Current).

    All of the dynamic symbols before the others: nearly every file is none, and their hash table says so at once.
    """
    runtime = image.dynamic_symbol("_PyRuntime")
    if runtime:
        return runtime.vaddr, 0, 0
    current = image.dynamic_symbol("_PyThreadState_Current")
    if current is None:
        section = image.section(".PyRuntime")  # since 3.10, also where the symbol is hidden and stripped
        if section:
            return section.vaddr, 0, 0
        runtime = image.symbol("_PyRuntime")
        if runtime:
            return runtime.vaddr, 0, 0
        current = image.symbol("_PyThreadState_Current")
    head = image.symbol("interp_head") if current else None
    return 0, head.vaddr if head else 0, current.vaddr if current else 0


def _version_in_file(image: ElfImage) -> tuple[tuple[int, ...], str]:
    """((major, minor), full version): by Py_Version, else by which functions there are and the string in .rodata."""
    constant = image.symbol("Py_Version")
    if constant:
        return _unpack_version(int.from_bytes(image.read_virtual(constant.vaddr, 4), "little"))
    release = _release_by_functions(image)
    versions = _version_strings(image, release)
    if len(versions) != 1:
        return release, ".".join(map(str, release))
    version = versions.pop()
    major, minor, _ = version.split(".", 2)
    return (int(major), int(minor)), version


def _unpack_version(number: int) -> tuple[tuple[int, ...], str]:
    """PY_VERSION_HEX in words: 0x030c01f0 is 3.12.1."""
    major, minor, micro = number >> 24, number >> 16 & 255, number >> 8 & 255
    level, serial = _RELEASE_LEVELS.get(number >> 4 & 15, "?"), number & 15
    return (major, minor), f"{major}.{minor}.{micro}" + (f"{level}{serial}" if level else "")


def _release_by_functions(image: ElfImage) -> tuple[int, ...]:
    if image.symbol(_PYTHON_2_ONLY):
        return (2, 7)
    return next((release for function, release in _ADDED_IN if image.symbol(function)), ())


def _version_strings(image: ElfImage, release: tuple[int, ...]) -> set[str]:
    """Strings among the constants that look like a version of this release, or of any when it is ().

    PY_VERSION may be the tail of a longer string ("/usr/local/python-3.9.18"), since linkers merge equal tails.  The
    literal start of the pattern lets re search at the speed of memchr.
    """
    section = image.section(".rodata")
    if section is None:
        return set()
    data = image.section_data(section, _READ_ONLY_DATA_MAX)
    start = rf"{release[0]}\.{release[1]}\." if release else r"3\.\d{1,2}\."
    pattern = re.compile((start + r"\d{1,3}(?:(?:a|b|rc)\d{1,2})?\+?(?=\0)").encode())
    return {
        found.group().decode("ascii")
        for found in pattern.finditer(data)
        if not _NUMBER_BEFORE.search(data, max(found.start() - 1, 0), found.start())
    }


@dataclass(slots=True)
class FileFactsCache:
    """Facts by file identity, so that each file is read once however many processes map it."""

    _facts: dict[tuple[int, int, int, int], FileFacts | None] = field(default_factory=dict)

    def of(self, file: BinaryIO) -> FileFacts | None:
        """The facts of an open file; None when it is no ELF file that can be used."""
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if identity not in self._facts:
            try:
                self._facts[identity] = examine(ElfImage(file))
            except (BadElf, struct.error):
                self._facts[identity] = None
        return self._facts[identity]


FactsOf = Callable[[Mapping], FileFacts | None]


def load_bias(mapping: Mapping, segments: Iterable[Segment]) -> int | None:
    """What a file's addresses are moved by where this mapping of it lies; None when no segment fits."""
    for segment in segments:
        first_page = segment.offset & -_PAGE
        inside = first_page <= mapping.offset < segment.offset + segment.file_size
        if inside and bool(segment.flags & 1) == mapping.executable:
            return mapping.start - (segment.vaddr - segment.offset + mapping.offset)
    return None


def find_interpreter(
    mappings: Iterable[Mapping], executable_inode: tuple[int, int], facts_of: FactsOf, read_memory: ReadMemory
) -> Interpreter | UnsupportedInterpreter | None:
    """The CPython of a process; ``executable_inode`` is (device, inode) of its program, as its mappings have them."""
    executable: FileFacts | None = None
    for mapping in _executable_first(_one_per_file(mappings), executable_inode):
        facts = facts_of(mapping)
        if facts is None:
            continue
        is_executable = (mapping.device, mapping.inode) == executable_inode
        executable = facts if is_executable else executable
        if facts.runtime is not None:
            program = None if is_executable else executable or facts
            return _identify(mapping, facts, facts.runtime, program, read_memory)
    return None


def _one_per_file(mappings: Iterable[Mapping]) -> list[Mapping]:
    """The first executable mapping of each file."""
    found: dict[tuple[int, int], Mapping] = {}
    for mapping in mappings:
        if mapping.executable and mapping.inode:
            found.setdefault((mapping.device, mapping.inode), mapping)
    return list(found.values())


def _executable_first(mappings: list[Mapping], executable_inode: tuple[int, int]) -> list[Mapping]:
    return sorted(mappings, key=lambda mapping: (mapping.device, mapping.inode) != executable_inode)


def _identify(
    mapping: Mapping, facts: FileFacts, runtime: RuntimeFacts, executable: FileFacts | None, read_memory: ReadMemory
) -> Interpreter | UnsupportedInterpreter:
    """The interpreter in this file; ``executable`` is the program's file when that is another one."""
    if facts.machine not in _MACHINES:
        return UnsupportedInterpreter(runtime.version, mapping.path, "it is not built for x86-64 or arm64")
    bias = load_bias(mapping, facts.segments)
    if bias is None:
        return UnsupportedInterpreter(runtime.version, mapping.path, "its file is not mapped as its headers say")
    release, version, layout, reason = _layout_in_process(runtime, bias, read_memory)
    if layout is None:
        return UnsupportedInterpreter(version, mapping.path, reason)
    head, current = _root_vaddrs(runtime, layout)
    return Interpreter(
        release=(release[0], release[1]),
        version=version,
        file=mapping.path,
        layout=layout,
        bias=bias,
        interpreters_head=bias + head if head else 0,
        tstate_current=bias + current if current else 0,
        shared=executable is not None,
        build_id=facts.build_id,
        recipe=_recipe(facts, executable, head, current),
    )


def _layout_in_process(
    runtime: RuntimeFacts, bias: int, read_memory: ReadMemory
) -> tuple[tuple[int, ...], str, CPythonLayout | None, str]:
    """(release, version, layout or None, why not): what the process publishes comes before what the file says."""
    data = b""
    if runtime.runtime:
        try:
            data = read_memory(bias + runtime.runtime, DEBUG_OFFSETS_READ)
        except OSError as error:
            if runtime.release >= (3, 13):
                return runtime.release, runtime.version, None, f"its memory cannot be read: {error.strerror}"
    if data.startswith(_DEBUG_OFFSETS_COOKIE):
        release, version = _unpack_version(int.from_bytes(data[8:16], "little") & 0xFFFFFFFF)
        try:
            return release, version, layout_from_debug_offsets(data), ""
        except (PyflameError, ValueError) as error:
            return release, version, None, str(error)
    layout = LAYOUTS.get((runtime.release[0], runtime.release[1])) if runtime.release else None
    return runtime.release, runtime.version, layout, "" if layout else _why_unsupported(runtime)


def _why_unsupported(runtime: RuntimeFacts) -> str:
    if not runtime.release:
        return "which release it is cannot be told: it is older than 3.13, and stripped of its C API"
    if runtime.release >= (3, 13):
        return "its debug offsets are not filled in yet, or damaged"
    return f"Python {'.'.join(map(str, runtime.release))} is not among the releases that can be read"


def _root_vaddrs(runtime: RuntimeFacts, layout: CPythonLayout) -> tuple[int, int]:
    """(interpreters_head, tstate_current) inside the image, 0 where there is none."""
    if not runtime.runtime:
        return runtime.interpreters_head, runtime.tstate_current
    head, current = layout.interpreters_head, layout.tstate_current
    return runtime.runtime + head if head else 0, runtime.runtime + current if current else 0


def _recipe(facts: FileFacts, executable: FileFacts | None, head: int, current: int) -> Recipe:
    if executable is None:
        return Recipe(facts.type, facts.first_text_vaddr, head, current)
    return Recipe(
        executable_type=executable.type,
        first_text_vaddr=executable.first_text_vaddr,
        interpreters_head=head,
        tstate_current=current,
        in_library=True,
        debug_entry_vaddr=executable.debug_entry_vaddr,
        library_dynamic_vaddr=facts.dynamic_vaddr,
        library_build_id_vaddr=facts.build_id_vaddr,
        library_build_id_start=facts.build_id[:8],
    )


def interpreter_of(pid: int, cache: FileFactsCache) -> Interpreter | UnsupportedInterpreter | None:
    """The CPython of a running process; None when it has none; ProcessGone, ProcessDenied."""
    mappings = proc.mappings(pid)

    def facts_of(mapping: Mapping) -> FileFacts | None:
        try:
            with proc.open_mapped_file(pid, mapping) as file:
                return cache.of(file)
        except (OSError, BadElf):
            return None

    return find_interpreter(
        mappings,
        proc.executable_identity(pid, mappings),
        facts_of,
        lambda address, size: proc.read_memory(pid, address, size),
    )
