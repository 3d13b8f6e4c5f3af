#!/usr/bin/env python3
"""Print the layout row of one CPython build, from its DWARF or, for 3.13 and later, from a running process.

scripts/cpython_layout_row.py libpython3.12.so.1.0          the row, as pyflame_ebpf/cpython/fixed_layouts.py has it
scripts/cpython_layout_row.py --check libpython3.12.so.1.0  status 1 if the committed row differs
scripts/cpython_layout_row.py --pid 4711                    the row of the process's own _Py_DebugOffsets
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import _checkout  # noqa: F401 - finds the package
from _dwarf_structs import Member, Structs
from elftools.elf.elffile import ELFFile

from pyflame_ebpf.cpython.debug_offsets import DEBUG_OFFSETS_READ, layout_from_debug_offsets
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.layout import OFFSET_NONE, CPythonLayout, GilKind, InstructionKind
from pyflame_ebpf.cpython.line_table import LineTableFormat

IDENTITY_SIZE = 96  # PF_CODE_IDENTITY_SIZE of bpf/sample.h


def layout_from_elf(path: Path) -> CPythonLayout:
    """Return the layout in the DWARF of an interpreter or libpython of 3.6 to 3.12."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        if not elf.has_dwarf_info():
            raise SystemExit(f"{path} has no DWARF: use a build with debug information")
        return layout_from_structs(release_of(path), Structs(elf.get_dwarf_info()))


def release_of(path: Path) -> tuple[int, int]:
    """Return the release in the file's name, symbolic links followed: (3, 12) for libpython3.12.so.1.0."""
    found = re.search(r"python(\d)\.(\d{1,2})", path.resolve().name)
    if not found:
        raise SystemExit(f"{path} is not named for its release: call it python3.N or libpython3.N.so")
    return int(found[1]), int(found[2])


def layout_from_structs(release: tuple[int, int], structs: Structs) -> CPythonLayout:
    """Make one row: offsets from the structs; kinds and tags, which DWARF does not have, by release."""

    def at(struct: str, *paths: str) -> int:
        members = (structs.member(struct, path) for path in paths)
        return next((member.offset for member in members if member), OFFSET_NONE)

    interp, thread, code = "PyInterpreterState", "PyThreadState", "PyCodeObject"
    frame = "_PyInterpreterFrame" if release >= (3, 11) else "PyFrameObject"
    gil = at(interp, "ceval.gil") if release >= (3, 12) else OFFSET_NONE
    active = structs.member(thread, "_status.active")
    kind, compact, ascii_ = _string_state(structs)
    return CPythonLayout(
        version=release[0] << 8 | release[1],
        instruction_kind=_instruction_kind(release),
        gil_kind=GilKind.INTERPRETER if release >= (3, 12) else GilKind.TSTATE_CURRENT,
        interp_next=at(interp, "next"),
        interp_threads_head=at(interp, "tstate_head", "threads.head"),
        interp_gil=gil,
        gil_last_holder=at("_gil_runtime_state", "last_holder") if gil != OFFSET_NONE else OFFSET_NONE,
        gil_locked=at("_gil_runtime_state", "locked") if gil != OFFSET_NONE else OFFSET_NONE,
        tstate_prev=at(thread, "prev"),
        tstate_next=at(thread, "next"),
        tstate_interp=at(thread, "interp"),
        tstate_thread_id=at(thread, "thread_id"),
        tstate_frame=at(thread, "frame", "cframe", "current_frame"),
        tstate_active=active.offset if active else OFFSET_NONE,
        tstate_active_mask=1 << active.bit if active else 0,
        tstate_holds_gil=OFFSET_NONE,
        cframe_current_frame=at("_PyCFrame" if release >= (3, 11) else "CFrame", "current_frame"),
        frame_size=_frame_size(structs, frame, release),
        frame_previous=at(frame, "f_back", "previous"),
        frame_code=at(frame, "f_code"),
        frame_instruction=at(frame, "f_lasti", "prev_instr"),
        frame_owner=at(frame, "owner") if release >= (3, 12) else OFFSET_NONE,
        frame_owner_shim=3 if release >= (3, 12) else 0,
        frame_code_tag_mask=0,
        frame_is_entry=at(frame, "is_entry"),
        frame_tlbc_index=OFFSET_NONE,
        code_identity=_code_identity(at, structs),
        code_first_line=at(code, "co_firstlineno"),
        code_filename=at(code, "co_filename"),
        code_name=at(code, "co_qualname", "co_name"),
        code_line_table=at(code, "co_linetable", "co_lnotab"),
        code_instructions=at(code, "co_code_adaptive"),
        code_first_traceable=at(code, "_co_firsttraceable"),
        code_tlbc=OFFSET_NONE,
        str_length=at("PyASCIIObject", "length"),
        str_state=kind.offset,
        str_kind_shift=kind.bit,
        str_compact_shift=compact.bit,
        str_ascii_shift=ascii_.bit,
        bytes_value=at("PyBytesObject", "ob_sval"),
        str_ascii_data=structs.size("PyASCIIObject"),
        str_compact_data=structs.size("PyCompactUnicodeObject"),
        bytes_size=at("PyBytesObject", "ob_base.ob_size"),
        line_table_format=_line_table_format(release),
        interpreters_head=_optional(at("_PyRuntimeState", "interpreters.head")),
        tstate_current=_optional(at("_PyRuntimeState", "gilstate.tstate_current")),
        free_threaded=False,
    )


def _string_state(structs: Structs) -> tuple[Member, Member, Member]:
    """The bit fields of a str's state, which the walker reads as one byte: kind, compact, ascii."""
    kind, compact, ascii_ = (structs.member("PyASCIIObject", f"state.{name}") for name in ("kind", "compact", "ascii"))
    if not (kind and compact and ascii_) or not kind.offset == compact.offset == ascii_.offset:
        raise SystemExit("the bit fields of PyASCIIObject.state are not in one byte")
    return kind, compact, ascii_


def _instruction_kind(release: tuple[int, int]) -> InstructionKind:
    if release >= (3, 11):
        return InstructionKind.PREV_INSTR
    return InstructionKind.LASTI_UNITS if release == (3, 10) else InstructionKind.LASTI_BYTES


def _line_table_format(release: tuple[int, int]) -> LineTableFormat:
    if release >= (3, 11):
        return LineTableFormat.LOCATIONS
    return LineTableFormat.LINETABLE_310 if release == (3, 10) else LineTableFormat.LNOTAB


def _frame_size(structs: Structs, frame: str, release: tuple[int, int]) -> int:
    """The bytes up to the end of the last field that the walker reads, in whole words."""
    names = ["f_back", "f_code", "f_lasti", "previous", "prev_instr", "is_entry"]
    names += ["owner"] if release >= (3, 12) else []
    members = (structs.member(frame, name) for name in names)
    return -(-max(member.offset + member.size for member in members if member) // 8) * 8


def _code_identity(at: Callable[..., int], structs: Structs) -> int:
    """The window that ends with the line table, moved past 3.11's warm-up counter, which every early call changes."""
    start = at("PyCodeObject", "co_linetable", "co_lnotab") + 8 - IDENTITY_SIZE
    warmup = structs.member("PyCodeObject", "co_warmup")
    return -(-(warmup.offset + warmup.size) // 8) * 8 if warmup and warmup.offset >= start else start


def _optional(offset: int) -> int | None:
    return None if offset == OFFSET_NONE else offset


def layout_from_process(pid: int) -> CPythonLayout:
    """Return the layout that a running 3.13 or later publishes at the start of its _PyRuntime."""
    address = _runtime_address(pid)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return layout_from_debug_offsets(memory.read(DEBUG_OFFSETS_READ))


def _runtime_address(pid: int) -> int:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _, offset, _, inode, *_ = line.split()
        if inode == "0" or int(offset, 16) != 0:
            continue
        start, end = (int(bound, 16) for bound in span.split("-"))
        with Path(f"/proc/{pid}/map_files/{start:x}-{end:x}").open("rb") as stream:  # no leading zeros there
            value = _runtime_symbol(stream)
        if value is not None:
            return value[0] + (start if value[1] else 0)
    raise SystemExit(f"process {pid} maps no file with the symbol _PyRuntime")


def _runtime_symbol(stream: Any) -> tuple[int, bool] | None:
    """The symbol's value, and whether the load address is added to it (ET_DYN); None if the file has no symbol."""
    if stream.read(4) != b"\x7fELF":
        return None
    elf = ELFFile(stream)
    for name in (".dynsym", ".symtab"):
        table: Any = elf.get_section_by_name(name)
        symbols = (table.get_symbol_by_name("_PyRuntime") or []) if table else []
        for symbol in symbols:
            if symbol["st_shndx"] != "SHN_UNDEF":
                return symbol["st_value"], elf["e_type"] == "ET_DYN"
    return None


def row_lines(layout: CPythonLayout) -> Iterator[str]:
    """Yield the Python source of one row, with the fields of one struct on a line."""
    yield f"    ({layout.version >> 8}, {layout.version & 255}): CPythonLayout("
    group: list[str] = []
    prefix = ""
    for name, text in ((field.name, _literal(field.name, getattr(layout, field.name))) for field in fields(layout)):
        here = name.split("_")[0]
        if group and here != prefix and here in ("interp", "tstate", "frame", "code", "str", "line"):
            yield from _wrapped(group)
            group = []
        prefix = here
        group.append(f"{name}={text},")
    yield from _wrapped(group)
    yield "    ),"


def _wrapped(items: list[str]) -> Iterator[str]:
    line = " " * 7
    for item in items:
        if len(line) + 1 + len(item) > 120:
            yield line
            line = " " * 7
        line += " " + item
    yield line


def _literal(name: str, value: object) -> str:
    if isinstance(value, (GilKind, InstructionKind, LineTableFormat)):
        return f"{type(value).__name__}.{value.name}"
    if value == OFFSET_NONE:
        return "OFFSET_NONE"
    return f"0x{value:04x}" if name == "version" else repr(value)


def differences(ours: CPythonLayout, theirs: CPythonLayout) -> list[str]:
    """Return the fields in which two layouts differ, as ``name: ours != theirs``."""
    pairs = ((field.name, getattr(ours, field.name), getattr(theirs, field.name)) for field in fields(ours))
    return [f"{name}: {mine} != {other}" for name, mine, other in pairs if mine != other]


def main() -> int:
    """Print or check one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("elf", nargs="?", type=Path, help="an interpreter or libpython with DWARF, 3.6 to 3.12")
    parser.add_argument("--pid", type=int, help="a running CPython 3.13 or later")
    parser.add_argument("--check", action="store_true", help="compare with the committed row instead of printing")
    options = parser.parse_args()
    if (options.elf is None) == (options.pid is None):
        parser.error("name an ELF file or a --pid, one of them")
    if options.pid is not None and options.check:
        parser.error("--check compares with a committed row, and a process that publishes its own has none")
    layout = layout_from_process(options.pid) if options.elf is None else layout_from_elf(options.elf)
    if not options.check:
        print("\n".join(row_lines(layout)))
        return 0
    found = differences(LAYOUTS[layout.version >> 8, layout.version & 255], layout)
    print("\n".join(found) or f"the committed row of {layout.version >> 8}.{layout.version & 255} is right")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
