"""Which CPython a process runs, and where its roots are, from what it has mapped; never from a file's name.

Pure: files and memory are reached through what is passed in, except in ``interpreter_of``, the one edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pyflame_ebpf.cpython.debug_offsets import DEBUG_OFFSETS_COOKIE, DEBUG_OFFSETS_READ, layout_from_debug_offsets
from pyflame_ebpf.cpython.file_facts import FileFacts, FileFactsCache, RuntimeFacts, unpack_version
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.cpython.recipe import Recipe, recipe_for
from pyflame_ebpf.elf.budget import PROCESS_SECONDS, Budget, SharedBudget
from pyflame_ebpf.elf.image import BadElf, Segment
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import maps
from pyflame_ebpf.host.mapped_files import executable_identity, open_mapped_file, statuses_of
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.host.memory import read_memory
from pyflame_ebpf.host.process_directory import PidOrDirectory

ReadMemory = Callable[[int, int], bytes]  # (address, size) → exactly size bytes, or OSError
FactsOf = Callable[[Mapping], FileFacts | None]

_MACHINES = (62, 183)  # EM_X86_64, EM_AARCH64: the layouts are those of 64-bit Linux
_PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A supported CPython in a process.

    ``interpreters_head`` is the address of the pointer to the first PyInterpreterState, ``tstate_current`` the address
    of the pointer to the thread state that holds the GIL; both are absolute, 0 where this build has none.  ``bias`` is
    added to the addresses in its file.  ``shared``: its file is not the process's executable.
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
    """A CPython whose stacks cannot be read, and the reason in words."""

    version: str
    file: str
    reason: str

    @property
    def name(self) -> str:
        """As people say it: ``CPython 2.7.18``."""
        return f"CPython {self.version}".strip()


def load_bias(mapping: Mapping, segments: Iterable[Segment]) -> int | None:
    """The number to add to a file's addresses for where this mapping of it lies; None when no segment fits."""
    for segment in segments:
        first_page = segment.offset & -_PAGE
        inside = first_page <= mapping.offset < segment.offset + segment.file_size
        if inside and bool(segment.flags & 1) == mapping.executable:
            return mapping.start - (segment.vaddr - segment.offset + mapping.offset)
    return None


def find_interpreter(
    mappings: Iterable[Mapping], executable_inode: tuple[int, int], facts_of: FactsOf, read_memory: ReadMemory
) -> Interpreter | UnsupportedInterpreter | None:
    """Find the CPython of a process; None when none of its files has one.

    ``executable_inode`` is (device, inode) of the process's program, as its mappings have them.
    """
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
    """The interpreter in this file; ``executable`` is the program's file where that is another file."""
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
        recipe=recipe_for(facts, executable, head, current),
    )


def _layout_in_process(
    runtime: RuntimeFacts, bias: int, read_memory: ReadMemory
) -> tuple[tuple[int, ...], str, CPythonLayout | None, str]:
    """(release, version, layout or None, why there is none).

    What the process publishes counts for more than what the file says.
    """
    data = b""
    if runtime.runtime:
        try:
            data = read_memory(bias + runtime.runtime, DEBUG_OFFSETS_READ)
        except OSError as error:
            if runtime.release >= (3, 13):
                return runtime.release, runtime.version, None, f"its memory cannot be read: {error.strerror}"
    if data.startswith(DEBUG_OFFSETS_COOKIE):
        release, version = unpack_version(int.from_bytes(data[8:16], "little") & 0xFFFFFFFF)
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
    """The addresses of (interpreters_head, tstate_current) inside the image, 0 where there is none."""
    if not runtime.runtime:
        return runtime.interpreters_head, runtime.tstate_current
    head, current = layout.interpreters_head, layout.tstate_current
    return runtime.runtime + head if head else 0, runtime.runtime + current if current else 0


def interpreter_of(
    process: PidOrDirectory, cache: FileFactsCache, budget: SharedBudget | None = None
) -> Interpreter | UnsupportedInterpreter | None:
    """Find the CPython of a running process; None when it has none.  Raises ProcessGone, ProcessDenied.

    ``budget`` is what all looks at the process's files may take together; files beyond it count as having none.
    """
    mappings = maps.mappings(process)
    met = statuses_of(process, _one_per_file(mappings))
    shared = budget or SharedBudget()
    look = Budget(PROCESS_SECONDS)  # a process may have mapped 65,530 files, and to open them takes seconds

    def facts_of(mapping: Mapping) -> FileFacts | None:
        if mapping in met and cache.has(met[mapping]):
            return cache.known(met[mapping])
        try:
            look.check("process's files")
            with open_mapped_file(process, mapping) as file:
                return cache.of(file, shared)
        except (OSError, BadElf):
            return None

    return find_interpreter(
        mappings,
        executable_identity(process, mappings),
        facts_of,
        lambda address, size: read_memory(process, address, size),
    )
