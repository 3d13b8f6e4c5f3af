"""The layout of CPython 3.13 and later, from the _Py_DebugOffsets that a process publishes.

_PyRuntime starts with that structure.  It differs in every minor release and comes from a process that may be hostile,
so every value is checked before use.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from pyflame_ebpf.cpython.layout import OFFSET_NONE, CPythonLayout, GilKind, InstructionKind
from pyflame_ebpf.cpython.line_table import LineTableFormat
from pyflame_ebpf.cpython.published_offsets import HEADER, PUBLISHED, PublishedOffsets
from pyflame_ebpf.errors import PyflameError

FRAME_READ_MAX = 128  # PF_FRAME_READ_MAX
CODE_IDENTITY_SIZE = 96  # PF_CODE_IDENTITY_SIZE

DEBUG_OFFSETS_COOKIE = b"xdebugpy"
_LARGEST_STRUCT = 1 << 24  # bytes; the largest published, 3.15's free-threaded _PyRuntimeState, has 409,296


class UnsupportedPythonError(PyflameError):
    """The stacks of the interpreter's release cannot be read."""

    exit_code = 17


class DebugOffsetsError(PyflameError):
    """A process has bytes that no CPython writes where its _Py_DebugOffsets should be."""

    exit_code = 19


DEBUG_OFFSETS_READ = max(release.size for release in PUBLISHED.values())  # bytes: enough of every release

_FREE_THREADED_SHIFT = 16  # PyObject has 32 bytes without the GIL, 16 with it (Include/object.h)
_POINTER_FIELDS = (  # 8-byte members that are read, by the struct they are in
    "interpreter_state.next",
    "interpreter_state.threads_head",
    "interpreter_state.ceval_gil",
    "thread_state.prev",
    "thread_state.next",
    "thread_state.interp",
    "thread_state.current_frame",
    "thread_state.thread_id",
    "interpreter_frame.previous",
    "interpreter_frame.executable",
    "interpreter_frame.instr_ptr",
    "code_object.filename",
    "code_object.name",
    "code_object.qualname",
    "code_object.linetable",
    "bytes_object.ob_size",
    "unicode_object.length",
    "runtime_state.interpreters_head",
)
_WORD_FIELDS = ("thread_state.status", "code_object.firstlineno")  # 4 bytes
_BYTE_FIELDS = ("interpreter_frame.owner", "code_object.co_code_adaptive", "bytes_object.ob_sval")


def layout_from_debug_offsets(data: bytes) -> CPythonLayout:
    """The layout that a process of 3.13 or later publishes.

    ``data`` are DEBUG_OFFSETS_READ bytes from the address of _PyRuntime; fewer do where the release's structure is
    shorter.  Raises DebugOffsetsError for bytes that no CPython writes, UnsupportedPythonError for an unknown release.
    """
    release, free_threaded = _header(data)
    facts = PUBLISHED[release]
    if len(data) < facts.size:
        raise _implausible(f"{len(data)} bytes of {facts.size} could be read")
    values = struct.unpack_from(f"<{len(facts.names)}Q", data, HEADER.size)
    offsets = dict(zip(facts.names, values, strict=True))
    _check_members(offsets)
    layout = _layout(release, facts, offsets, free_threaded)
    _check_layout(layout, offsets)
    return layout


def _header(data: bytes) -> tuple[tuple[int, int], bool]:
    """(release, whether the build is free-threaded).  Raises DebugOffsetsError, UnsupportedPythonError."""
    if len(data) < HEADER.size:
        raise _implausible(f"only {len(data)} bytes could be read")
    cookie, version, free_threaded = HEADER.unpack_from(data)
    if cookie != DEBUG_OFFSETS_COOKIE:
        raise _implausible("it does not start with the cookie 'xdebugpy'")
    if version >> 32 or free_threaded not in (0, 1):
        raise _implausible(f"version {version:#x} or free_threaded {free_threaded:#x} is out of range")
    release = (version >> 24, version >> 16 & 0xFF)
    if release not in PUBLISHED:
        raise _unsupported(*release)
    return release, bool(free_threaded)


def _unsupported(major: int, minor: int) -> UnsupportedPythonError:
    newest = max(PUBLISHED)
    return UnsupportedPythonError(
        f"CPython {major}.{minor} is not supported",
        f"Supported are 3.6 to {newest[0]}.{newest[1]}; a newer pyflame-ebpf may know more.",
    )


def _check_members(offsets: Mapping[str, int]) -> None:
    """Check that structs have a plausible size, and that each member that is read lies in its struct, aligned.

    Raises DebugOffsetsError.
    """
    for name, value in offsets.items():
        if name.endswith(".size") and not 0 < value <= _LARGEST_STRUCT and name != "gc.size":
            raise _implausible(f"{name} is {value}")
    for names, width in ((_POINTER_FIELDS, 8), (_WORD_FIELDS, 4), (_BYTE_FIELDS, 1)):
        for name in names:
            _check_member(offsets, name, width)


def _check_member(offsets: Mapping[str, int], name: str, width: int) -> None:
    size = offsets[name.partition(".")[0] + ".size"]
    value = offsets[name]
    if value % width or value >= OFFSET_NONE or value + width > size:
        raise _implausible(f"{name} is at {value} of {size} bytes")


def _layout(
    release: tuple[int, int], facts: PublishedOffsets, offsets: Mapping[str, int], free_threaded: bool
) -> CPythonLayout:
    shift = _FREE_THREADED_SHIFT if free_threaded else 0
    bytecode_copies = free_threaded and facts.thread_local_bytecode
    state_byte = facts.free_threaded_state_byte if free_threaded else 0
    kind_shift = 0 if state_byte else 2  # the two bits of `interned` come first unless it is a byte of its own
    ascii_size = offsets["unicode_object.asciiobject_size"]
    line_table = offsets["code_object.linetable"]
    gil = offsets["interpreter_state.gil_runtime_state"]
    return CPythonLayout(
        version=release[0] << 8 | release[1],
        instruction_kind=InstructionKind.INSTR_PTR,
        gil_kind=_gil_kind(facts, free_threaded),
        interp_next=offsets["interpreter_state.next"],
        interp_threads_head=offsets["interpreter_state.threads_head"],
        interp_gil=offsets["interpreter_state.ceval_gil"],
        gil_last_holder=offsets["interpreter_state.gil_runtime_state_holder"] - gil,
        gil_locked=offsets["interpreter_state.gil_runtime_state_locked"] - gil,
        tstate_prev=offsets["thread_state.prev"],
        tstate_next=offsets["thread_state.next"],
        tstate_interp=offsets["thread_state.interp"],
        tstate_thread_id=offsets["thread_state.thread_id"],
        tstate_frame=offsets["thread_state.current_frame"],
        tstate_active=facts.tstate_state,
        tstate_active_mask=1,  # 0 detached, 1 attached, 2 suspended; 3.14's 3, shutting down, runs no Python code
        tstate_holds_gil=offsets.get("thread_state.holds_gil", facts.holds_gil),
        cframe_current_frame=OFFSET_NONE,
        frame_size=_frame_size(offsets, bytecode_copies),
        frame_previous=offsets["interpreter_frame.previous"],
        frame_code=offsets["interpreter_frame.executable"],
        frame_instruction=offsets["interpreter_frame.instr_ptr"],
        frame_owner=offsets["interpreter_frame.owner"],
        frame_owner_shim=facts.owner_shim,
        frame_code_tag_mask=facts.code_tag_mask,
        frame_is_entry=OFFSET_NONE,
        frame_tlbc_index=offsets["interpreter_frame.tlbc_index"] if bytecode_copies else OFFSET_NONE,
        # co_flags to co_linetable: counts, first line, co_version, names of locals, file, name, qualified name.
        # What a running code object changes (co_weakreflist and on) starts behind it; cpython/code.h.
        code_identity=line_table + 8 - CODE_IDENTITY_SIZE,
        code_first_line=offsets["code_object.firstlineno"],
        code_filename=offsets["code_object.filename"],
        code_name=offsets["code_object.qualname"],
        code_line_table=line_table,
        code_instructions=offsets["code_object.co_code_adaptive"],
        code_first_traceable=facts.first_traceable + shift,
        code_tlbc=offsets["code_object.co_tlbc"] if bytecode_copies else OFFSET_NONE,
        str_length=offsets["unicode_object.length"],
        str_state=offsets["unicode_object.state"] + state_byte,
        str_kind_shift=kind_shift,
        str_compact_shift=kind_shift + 3,
        str_ascii_shift=kind_shift + 4,
        bytes_value=offsets["bytes_object.ob_sval"],
        str_ascii_data=ascii_size,
        # Before 3.15 not published: the ASCII header, utf8_length and utf8 (cpython/unicodeobject.h).
        str_compact_data=offsets.get("unicode_object.compactunicodeobject_size", ascii_size + 16),
        bytes_size=offsets["bytes_object.ob_size"],
        line_table_format=LineTableFormat.LOCATIONS,
        interpreters_head=offsets["runtime_state.interpreters_head"],
        tstate_current=None,
        free_threaded=free_threaded,
    )


def _gil_kind(facts: PublishedOffsets, free_threaded: bool) -> GilKind:
    """How the GIL's holder is found.

    Free-threaded builds have a GIL that is off unless a module turns it on, so no thread holds it as a rule.
    """
    if free_threaded:
        return GilKind.UNKNOWN
    return GilKind.INTERPRETER if facts.holds_gil == OFFSET_NONE else GilKind.THREAD_FLAG


def _frame_size(offsets: Mapping[str, int], bytecode_copies: bool) -> int:
    """Bytes of a frame up to the end of the last field that the walker reads, in whole words of 8 bytes."""
    names = ["previous", "executable", "instr_ptr", "owner"] + ["tlbc_index"] * bytecode_copies
    return max(offsets[f"interpreter_frame.{name}"] // 8 * 8 + 8 for name in names)


def _check_layout(layout: CPythonLayout, offsets: Mapping[str, int]) -> None:
    """Check what _check_members cannot see: members that are not published, and how members lie to each other.

    Raises DebugOffsetsError.
    """
    code_size = offsets["code_object.size"]
    frame_size = offsets["interpreter_frame.size"]
    thread_size = offsets["thread_state.size"]
    string_size = offsets["unicode_object.size"]
    identity = range(layout.code_identity, layout.code_identity + CODE_IDENTITY_SIZE)
    named = (layout.code_first_line, layout.code_filename, layout.code_name, layout.code_line_table)
    _require(
        ("interpreter_frame", layout.frame_size <= min(frame_size, FRAME_READ_MAX)),
        ("interpreter_frame.tlbc_index", _fits(layout.frame_tlbc_index, 4, frame_size)),
        ("thread_state.state", _fits(layout.tstate_active, 4, thread_size)),
        ("thread_state.holds_gil", _fits(layout.tstate_holds_gil, 4, thread_size)),
        ("interpreter_state.gil_runtime_state_holder", _fits(layout.gil_last_holder, 8, OFFSET_NONE)),
        ("interpreter_state.gil_runtime_state_locked", _fits(layout.gil_locked, 4, OFFSET_NONE)),
        ("code_object", layout.code_identity >= offsets["pyobject.size"] and all(at in identity for at in named)),
        ("code_object.firsttraceable", _fits(layout.code_first_traceable, 4, code_size)),
        ("code_object.co_tlbc", _fits(layout.code_tlbc, 8, code_size)),
        ("unicode_object.state", _fits(layout.str_state, 1, string_size)),
        ("unicode_object.asciiobject_size", layout.str_state < layout.str_ascii_data <= string_size),
        ("unicode_object.size", layout.str_ascii_data < layout.str_compact_data <= string_size < OFFSET_NONE),
        ("bytes_object.ob_sval", layout.bytes_value < 1 << 8),
    )


def _fits(offset: int, width: int, size: int) -> bool:
    """True when a member is aligned and inside its struct, or when there is none."""
    return offset == OFFSET_NONE or (offset >= 0 and offset % width == 0 and offset + width <= size)


def _require(*checks: tuple[str, bool]) -> None:
    wrong: Iterable[str] = (name for name, holds in checks if not holds)
    for name in wrong:
        raise _implausible(f"{name} does not fit the structures around it")


def _implausible(what: str) -> DebugOffsetsError:
    return DebugOffsetsError(
        f"the process's _Py_DebugOffsets cannot be used: {what}",
        "It is overwritten, or not CPython's: the process is sampled without its Python frames.",
    )
