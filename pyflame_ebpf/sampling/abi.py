"""The ctypes mirror of ``bpf/sample.h``, the only one in Python.

A test compiles every size, offset and enum value out of the header and compares it with the mirror.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import fields
from typing import Any

from pyflame_ebpf.cpython.layout import OFFSET_NONE, CPythonLayout
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Gil, NativeOutcome, Outcome

U8, U16, U32, U64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64

MAX_LAYOUTS = 256
COMM_SIZE = 16
MAPPINGS = 512
MAPPED_PROCESSES = 1024
UNUSED_MAPPING = 1 << 62
UNWIND_CHUNK_ROWS = 64
UNWIND_CHUNKS = 8
UNWIND_CHUNKS_IN_ALL = 24576
UNWIND_PAGES = 16384
UNWIND_ROW_SIZE = 8
OTHER_REGISTERS = 15
NO_SHIM = 256  # more than any owner, which is a byte

STAGES = (
    "process",
    "thread",
    "search",
    "walk",
    "native",
    "unwind",
    "rare",
    "finish",
    "new_stack",
    "codes",
    "send",
    "copy",
)
OUTCOMES = (
    Outcome.COMPLETE,
    Outcome.NOT_PYTHON,
    Outcome.NOT_IDENTIFIED,
    Outcome.NO_THREAD_STATE,
    Outcome.UNREADABLE_THREAD_STATE,
    Outcome.UNREADABLE_FRAME,
    Outcome.UNREADABLE_CODE,
    Outcome.TOO_DEEP,
)
NATIVE_OUTCOMES = (
    NativeOutcome.COMPLETE,
    NativeOutcome.NONE,
    NativeOutcome.NO_MAPPING,
    NativeOutcome.PAGE_MISS,
    NativeOutcome.NO_UNWIND_DATA,
    NativeOutcome.UNSUPPORTED,
    NativeOutcome.UNREADABLE,
    NativeOutcome.NOT_ADVANCING,
    NativeOutcome.TOO_DEEP,
)
GIL_STATES = (Gil.UNKNOWN, Gil.HELD, Gil.NOT_HELD)
FRAME_KERNEL, FRAME_NATIVE, FRAME_PYTHON, FRAME_BOUNDARY = range(4)
FRAME_KIND = 0xFF
FRAME_ENTRY = 0x100

BUDGET_WINDOW = 1_000_000_000  # ns
START_RESOLUTION = 10_000_000  # ns
PROCESS_ANNOUNCED, PROCESS_OTHER, PROCESS_PYTHON = range(3)
RECORD_PROCESS, RECORD_THREAD, RECORD_CODE, RECORD_STACK, RECORD_EXIT, RECORD_EXEC, RECORD_MISS = range(1, 8)
RECORD_STACK_COPY = 8
CODE_NO_NAME, CODE_NO_FILE, CODE_NO_LINE_TABLE = 1, 2, 4

COUNTERS = (
    "ticks",
    "ticks_idle",
    "ticks_filtered",
    "ticks_missed",
    "samples",
    "counts_full",
    "stacks_dropped",
    "codes_dropped",
    "processes_dropped",
    "stacks_unfinished",
    "tail_calls_failed",
    "identified_in_kernel",
    "copies_dropped",
    "targets_full",
    "stacks_walked",
    "sampling_ns",
)


class ProcessIdentity(ctypes.Structure):
    """``struct process_identity``: one run of one program."""

    _fields_ = (("start", U64), ("tgid", U32), ("exec_id", U32))


class StackFrame(ctypes.Structure):
    """``struct stack_frame``: one frame as the walker saw it."""

    _fields_ = (("address", U64), ("code_id", U64), ("position", ctypes.c_int32), ("kind", U32))


class ProcessEntry(ctypes.Structure):
    """``struct process_entry``: all that the programs know of a process."""

    _fields_ = (
        ("identity", ProcessIdentity),
        ("interpreters_head", U64),
        ("tstate_current", U64),
        ("layout", U32),
        ("state", U32),
        ("mappings", U32),
        ("known", U32),
        ("no_copies", U32),
        ("reserved", U32),
    )


class Mapping(ctypes.Structure):
    """``struct mapping``: executable memory of a process."""

    _fields_ = (("start", U64), ("bias", U64), ("pages", U32), ("file", U32))


class UnwindPageKey(ctypes.Structure):
    """``struct unwind_page_key``: a page of code of a file."""

    _fields_ = (("file", U32), ("page", U32))


class UnwindPage(ctypes.Structure):
    """``struct unwind_page``: where the rows of a page are."""

    _fields_ = (("chunk", U32), ("reserved", U16 * 2), ("first", U16 * UNWIND_CHUNKS))


class FileKey(ctypes.Structure):
    """``struct file_key``: an executable file, as the kernel knows it."""

    _fields_ = (("inode", U64), ("device", U32), ("size", U32))


class ExecutableEntry(ctypes.Structure):
    """``struct executable_entry``: how to find the interpreter in a process that runs this file."""

    _fields_ = (
        ("text", U64),
        ("debug_entry", U64),
        ("library_dynamic", U64),
        ("build_id", U64),
        ("build_id_start", U64),
        ("interpreters_head", U64),
        ("tstate_current", U64),
        ("layout", U32),
        ("reserved", U32),
    )


class CountKey(ctypes.Structure):
    """``struct count_key``: samples with equal keys are counted together."""

    _fields_ = (
        ("identity", ProcessIdentity),
        ("stack_id", U64),
        ("tid", U32),
        ("outcome", U8),
        ("gil", U8),
        ("kernel_mode", U8),
        ("native", U8),
    )


class Settings(ctypes.Structure):
    """``struct settings``: values that user space changes while the programs run."""

    _fields_ = (("counts", U32), ("ticks", U32), ("period", U64), ("deadline", U64), ("budget", U64))


class ProcessRecord(ctypes.Structure):
    """``struct process_record``."""

    _fields_ = (
        ("type", U32),
        ("parent", U32),
        ("identity", ProcessIdentity),
        ("executable", FileKey),
        ("start_code", U64),
        ("interpreters_head", U64),
        ("tstate_current", U64),
        ("state", U32),
        ("layout", U32),
        ("comm", ctypes.c_char * COMM_SIZE),
    )


class ThreadRecord(ctypes.Structure):
    """``struct thread_record``."""

    _fields_ = (("type", U32), ("tid", U32), ("identity", ProcessIdentity), ("comm", ctypes.c_char * COMM_SIZE))


class MissRecord(ctypes.Structure):
    """``struct miss_record``."""

    _fields_ = (
        ("type", U32),
        ("file", U32),
        ("identity", ProcessIdentity),
        ("address", U64),
    )


class ExitRecord(ctypes.Structure):
    """``struct exit_record``."""

    _fields_ = (
        ("type", U32),
        ("reserved", U32),
        ("identity", ProcessIdentity),
        ("cpu", U64),
        ("comm", ctypes.c_char * COMM_SIZE),
    )


class StackRecord(ctypes.Structure):
    """``struct stack_record``, without the frames behind it."""

    _fields_ = (
        ("type", U32),
        ("frames", U32),
        ("identity", ProcessIdentity),
        ("stack_id", U64),
        ("unsent", U32),
        ("reserved", U32),
    )


class StackCopyRecord(ctypes.Structure):
    """``struct stack_copy_record``, without the memory behind it."""

    _fields_ = (
        ("type", U32),
        ("size", U32),
        ("identity", ProcessIdentity),
        ("stack_id", U64),
        ("start", U64),
        ("ip", U64),
        ("sp", U64),
        ("bp", U64),
        ("interrupted", U64 * OTHER_REGISTERS),
        ("exact", U32),
        ("callee_exact", U32),
    )


class CodeRecord(ctypes.Structure):
    """``struct code_record``, without the three parts behind it."""

    _fields_ = (
        ("type", U32),
        ("layout", U32),
        ("identity", ProcessIdentity),
        ("code_id", U64),
        ("address", U64),
        ("name", U64),
        ("file", U64),
        ("line_table", U64),
        ("first_line", U32),
        ("missing", U32),
        ("name_size", U32),
        ("file_size", U32),
        ("line_table_size", U32),
        ("reserved", U32),
    )


# c_uint64 has another code of its own on each platform; sizes are the same on all.
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


def packing_of(structure: type[ctypes.Structure]) -> struct.Struct:
    """A structure of sample.h as a Struct of its members' values in order, those of structures inside it among them.

    Struct reads ten times faster than ctypes; for records that come often.
    """
    return struct.Struct("<" + _format(structure))


def _format(kind: Any) -> str:
    if issubclass(kind, ctypes.Structure):
        return "".join(_format(field[1]) for field in kind._fields_)
    if issubclass(kind, ctypes.Array):
        return f"{kind._length_}s" if kind._type_ is ctypes.c_char else kind._length_ * _format(kind._type_)
    code = _CODES[ctypes.sizeof(kind)]
    return code if kind(-1).value < 0 else code.upper()


_BYTE_FIELDS = {
    "instruction_kind",
    "gil_kind",
    "str_kind_shift",
    "str_compact_shift",
    "str_ascii_shift",
    "bytes_value",
}
_USER_SPACE_ONLY = {"line_table_format", "interpreters_head", "tstate_current", "free_threaded"} | {
    "frame_tlbc_index",
    "code_first_traceable",
    "code_tlbc",
}
LAYOUT_FIELDS = tuple(field.name for field in fields(CPythonLayout) if field.name not in _USER_SPACE_ONLY)


_DERIVED = {"frame_is_entry": (("frame_is_entry_mask", U8), ("frame_always_entry", U8))}  # each behind this field


class Layout(ctypes.Structure):
    """``struct cpython_layout``: fields of ``CPythonLayout`` in its order, and derived ones."""

    _fields_ = tuple(
        field
        for name in LAYOUT_FIELDS
        for field in ((name, U8 if name in _BYTE_FIELDS else U16), *_DERIVED.get(name, ()))
    )


def pack_layout(layout: CPythonLayout) -> Layout:
    """The layout as the programs read it."""
    packed = Layout(**{name: getattr(layout, name) for name in LAYOUT_FIELDS})
    if layout.frame_owner == OFFSET_NONE:
        packed.frame_owner, packed.frame_owner_shim = 0, NO_SHIM
        packed.frame_is_entry_mask = layout.frame_is_entry != OFFSET_NONE
        packed.frame_always_entry = layout.frame_is_entry == OFFSET_NONE
    return packed


def read_identity(raw: ProcessIdentity) -> Identity:
    """The identity in a record."""
    return Identity(raw.start, raw.tgid, raw.exec_id)


def raw_identity(identity: Identity) -> ProcessIdentity:
    """The identity as the programs read it."""
    return ProcessIdentity(identity.start, identity.tgid, identity.exec_id)
