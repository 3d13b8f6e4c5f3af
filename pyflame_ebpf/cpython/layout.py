"""Where a CPython build keeps what the walker reads: the offsets of one release or build."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pyflame_ebpf.cpython.line_table import LineTableFormat

OFFSET_NONE = 0xFFFF  # PF_OFFSET_NONE: this release has no such field


class InstructionKind(IntEnum):
    """How a frame says which instruction it is at: enum instruction_kind of bpf/sample.h."""

    LASTI_BYTES = 0
    LASTI_UNITS = 1
    PREV_INSTR = 2
    INSTR_PTR = 3


class GilKind(IntEnum):
    """Where the holder of the GIL is found: enum gil_kind of bpf/sample.h."""

    UNKNOWN = 0
    TSTATE_CURRENT = 1
    INTERPRETER = 2
    THREAD_FLAG = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CPythonLayout:
    """Byte offsets in one build's structs, OFFSET_NONE where there is no such field.

    The fields of ``struct cpython_layout`` in bpf/sample.h, which documents them, have their names and order here.
    User space alone uses the others: ``frame_is_entry`` (3.11: this frame began a C call of the evaluation loop);
    ``frame_tlbc_index`` and ``code_tlbc`` (free-threaded builds from 3.14 on run copies of the bytecode);
    ``code_first_traceable`` (_co_firsttraceable, in code units); ``interpreters_head`` and ``tstate_current``, offsets
    in _PyRuntime, None where the release keeps the value elsewhere (3.6: the symbols interp_head and
    _PyThreadState_Current) or not at all.
    """

    version: int
    instruction_kind: InstructionKind
    gil_kind: GilKind

    interp_next: int
    interp_threads_head: int
    interp_gil: int
    gil_last_holder: int
    gil_locked: int

    tstate_prev: int
    tstate_next: int
    tstate_interp: int
    tstate_thread_id: int
    tstate_frame: int
    tstate_active: int
    tstate_active_mask: int
    tstate_holds_gil: int
    cframe_current_frame: int

    frame_size: int
    frame_previous: int
    frame_code: int
    frame_instruction: int
    frame_owner: int
    frame_owner_shim: int
    frame_code_tag_mask: int
    frame_is_entry: int
    frame_tlbc_index: int

    code_identity: int
    code_first_line: int
    code_filename: int
    code_name: int
    code_line_table: int
    code_instructions: int
    code_first_traceable: int
    code_tlbc: int

    str_length: int
    str_state: int
    str_kind_shift: int
    str_compact_shift: int
    str_ascii_shift: int
    bytes_value: int
    str_ascii_data: int
    str_compact_data: int
    bytes_size: int

    line_table_format: LineTableFormat
    interpreters_head: int | None
    tstate_current: int | None
    free_threaded: bool
