"""One row per CPython release up to 3.12: where it keeps what the walker reads, on 64-bit Linux.

Rows are printed by scripts/cpython_layout_row.py and not edited; a test compares each with the DWARF of an installed
build.  Later releases publish their layout themselves (debug_offsets.layout_from_debug_offsets).
"""

from __future__ import annotations

from pyflame_ebpf.cpython.layout import OFFSET_NONE, CPythonLayout, GilKind, InstructionKind
from pyflame_ebpf.cpython.line_table import LineTableFormat

# Each row is from the DWARF of that release; the headers are where it defines the structs.
# fmt: off
LAYOUTS: dict[tuple[int, int], CPythonLayout] = {
    # CPython 3.6.15: Include/pystate.h (_is, _ts), Include/frameobject.h, Include/code.h, Include/unicodeobject.h
    (3, 6): CPythonLayout(
        version=0x0306, instruction_kind=InstructionKind.LASTI_BYTES, gil_kind=GilKind.TSTATE_CURRENT,
        interp_next=0, interp_threads_head=8, interp_gil=OFFSET_NONE, gil_last_holder=OFFSET_NONE,
        gil_locked=OFFSET_NONE,
        tstate_prev=0, tstate_next=8, tstate_interp=16, tstate_thread_id=152, tstate_frame=24,
        tstate_active=OFFSET_NONE, tstate_active_mask=0, tstate_holds_gil=OFFSET_NONE, cframe_current_frame=OFFSET_NONE,
        frame_size=128, frame_previous=24, frame_code=32, frame_instruction=120, frame_owner=OFFSET_NONE,
        frame_owner_shim=0, frame_code_tag_mask=0, frame_is_entry=OFFSET_NONE, frame_tlbc_index=OFFSET_NONE,
        code_identity=24, code_first_line=36, code_filename=96, code_name=104, code_line_table=112,
        code_instructions=OFFSET_NONE, code_first_traceable=OFFSET_NONE, code_tlbc=OFFSET_NONE,
        str_length=16, str_state=32, str_kind_shift=2, str_compact_shift=5, str_ascii_shift=6, bytes_value=32,
        str_ascii_data=48, str_compact_data=72, bytes_size=16,
        line_table_format=LineTableFormat.LNOTAB, interpreters_head=None,
        tstate_current=None, free_threaded=False,
    ),
    # CPython 3.7.16: Include/internal/pystate.h (_PyRuntimeState, _is), Include/pystate.h (_ts),
    # Include/frameobject.h, Include/code.h
    (3, 7): CPythonLayout(
        version=0x0307, instruction_kind=InstructionKind.LASTI_BYTES, gil_kind=GilKind.TSTATE_CURRENT,
        interp_next=0, interp_threads_head=8, interp_gil=OFFSET_NONE, gil_last_holder=OFFSET_NONE,
        gil_locked=OFFSET_NONE,
        tstate_prev=0, tstate_next=8, tstate_interp=16, tstate_thread_id=176, tstate_frame=24,
        tstate_active=OFFSET_NONE, tstate_active_mask=0, tstate_holds_gil=OFFSET_NONE, cframe_current_frame=OFFSET_NONE,
        frame_size=112, frame_previous=24, frame_code=32, frame_instruction=104, frame_owner=OFFSET_NONE,
        frame_owner_shim=0, frame_code_tag_mask=0, frame_is_entry=OFFSET_NONE, frame_tlbc_index=OFFSET_NONE,
        code_identity=24, code_first_line=36, code_filename=96, code_name=104, code_line_table=112,
        code_instructions=OFFSET_NONE, code_first_traceable=OFFSET_NONE, code_tlbc=OFFSET_NONE,
        str_length=16, str_state=32, str_kind_shift=2, str_compact_shift=5, str_ascii_shift=6, bytes_value=32,
        str_ascii_data=48, str_compact_data=72, bytes_size=16,
        line_table_format=LineTableFormat.LNOTAB, interpreters_head=24,
        tstate_current=1480, free_threaded=False,
    ),
    # CPython 3.8.18: Include/internal/pycore_pystate.h (_PyRuntimeState, _is), Include/cpython/pystate.h (_ts),
    # Include/frameobject.h, Include/code.h
    (3, 8): CPythonLayout(
        version=0x0308, instruction_kind=InstructionKind.LASTI_BYTES, gil_kind=GilKind.TSTATE_CURRENT,
        interp_next=0, interp_threads_head=8, interp_gil=OFFSET_NONE, gil_last_holder=OFFSET_NONE,
        gil_locked=OFFSET_NONE,
        tstate_prev=0, tstate_next=8, tstate_interp=16, tstate_thread_id=176, tstate_frame=24,
        tstate_active=OFFSET_NONE, tstate_active_mask=0, tstate_holds_gil=OFFSET_NONE, cframe_current_frame=OFFSET_NONE,
        frame_size=112, frame_previous=24, frame_code=32, frame_instruction=104, frame_owner=OFFSET_NONE,
        frame_owner_shim=0, frame_code_tag_mask=0, frame_is_entry=OFFSET_NONE, frame_tlbc_index=OFFSET_NONE,
        code_identity=32, code_first_line=40, code_filename=104, code_name=112, code_line_table=120,
        code_instructions=OFFSET_NONE, code_first_traceable=OFFSET_NONE, code_tlbc=OFFSET_NONE,
        str_length=16, str_state=32, str_kind_shift=2, str_compact_shift=5, str_ascii_shift=6, bytes_value=32,
        str_ascii_data=48, str_compact_data=72, bytes_size=16,
        line_table_format=LineTableFormat.LNOTAB, interpreters_head=32,
        tstate_current=1368, free_threaded=False,
    ),
    # CPython 3.9.18: Include/internal/pycore_runtime.h, pycore_interp.h, Include/cpython/pystate.h, frameobject.h,
    # code.h
    (3, 9): CPythonLayout(
        version=0x0309, instruction_kind=InstructionKind.LASTI_BYTES, gil_kind=GilKind.TSTATE_CURRENT,
        interp_next=0, interp_threads_head=8, interp_gil=OFFSET_NONE, gil_last_holder=OFFSET_NONE,
        gil_locked=OFFSET_NONE,
        tstate_prev=0, tstate_next=8, tstate_interp=16, tstate_thread_id=176, tstate_frame=24,
        tstate_active=OFFSET_NONE, tstate_active_mask=0, tstate_holds_gil=OFFSET_NONE, cframe_current_frame=OFFSET_NONE,
        frame_size=112, frame_previous=24, frame_code=32, frame_instruction=104, frame_owner=OFFSET_NONE,
        frame_owner_shim=0, frame_code_tag_mask=0, frame_is_entry=OFFSET_NONE, frame_tlbc_index=OFFSET_NONE,
        code_identity=32, code_first_line=40, code_filename=104, code_name=112, code_line_table=120,
        code_instructions=OFFSET_NONE, code_first_traceable=OFFSET_NONE, code_tlbc=OFFSET_NONE,
        str_length=16, str_state=32, str_kind_shift=2, str_compact_shift=5, str_ascii_shift=6, bytes_value=32,
        str_ascii_data=48, str_compact_data=72, bytes_size=16,
        line_table_format=LineTableFormat.LNOTAB, interpreters_head=32,
        tstate_current=568, free_threaded=False,
    ),
    # CPython 3.10.13: Include/internal/pycore_runtime.h, pycore_interp.h, Include/cpython/pystate.h, frameobject.h,
    # code.h
    (3, 10): CPythonLayout(
        version=0x030a, instruction_kind=InstructionKind.LASTI_UNITS, gil_kind=GilKind.TSTATE_CURRENT,
        interp_next=0, interp_threads_head=8, interp_gil=OFFSET_NONE, gil_last_holder=OFFSET_NONE,
        gil_locked=OFFSET_NONE,
        tstate_prev=0, tstate_next=8, tstate_interp=16, tstate_thread_id=176, tstate_frame=24,
        tstate_active=OFFSET_NONE, tstate_active_mask=0, tstate_holds_gil=OFFSET_NONE, cframe_current_frame=OFFSET_NONE,
        frame_size=104, frame_previous=24, frame_code=32, frame_instruction=96, frame_owner=OFFSET_NONE,
        frame_owner_shim=0, frame_code_tag_mask=0, frame_is_entry=OFFSET_NONE, frame_tlbc_index=OFFSET_NONE,
        code_identity=32, code_first_line=40, code_filename=104, code_name=112, code_line_table=120,
        code_instructions=OFFSET_NONE, code_first_traceable=OFFSET_NONE, code_tlbc=OFFSET_NONE,
        str_length=16, str_state=32, str_kind_shift=2, str_compact_shift=5, str_ascii_shift=6, bytes_value=32,
        str_ascii_data=48, str_compact_data=72, bytes_size=16,
        line_table_format=LineTableFormat.LINETABLE_310, interpreters_head=32,
        tstate_current=568, free_threaded=False,
    ),
    # CPython 3.11.7: Include/internal/pycore_runtime.h, pycore_interp.h, pycore_frame.h, Include/cpython/pystate.h,
    # code.h
    # code_identity starts behind co_warmup (52), which each of the first calls counts up, and so takes in
    # co_weakreflist (144): a first weak reference to the code object makes it look new once.
    (3, 11): CPythonLayout(
        version=0x030b, instruction_kind=InstructionKind.PREV_INSTR, gil_kind=GilKind.TSTATE_CURRENT,
        interp_next=0, interp_threads_head=16, interp_gil=OFFSET_NONE, gil_last_holder=OFFSET_NONE,
        gil_locked=OFFSET_NONE,
        tstate_prev=0, tstate_next=8, tstate_interp=16, tstate_thread_id=152, tstate_frame=56,
        tstate_active=OFFSET_NONE, tstate_active_mask=0, tstate_holds_gil=OFFSET_NONE, cframe_current_frame=8,
        frame_size=72, frame_previous=48, frame_code=32, frame_instruction=56, frame_owner=OFFSET_NONE,
        frame_owner_shim=0, frame_code_tag_mask=0, frame_is_entry=68, frame_tlbc_index=OFFSET_NONE,
        code_identity=56, code_first_line=72, code_filename=112, code_name=128, code_line_table=136,
        code_instructions=184, code_first_traceable=168, code_tlbc=OFFSET_NONE,
        str_length=16, str_state=32, str_kind_shift=2, str_compact_shift=5, str_ascii_shift=6, bytes_value=32,
        str_ascii_data=48, str_compact_data=72, bytes_size=16,
        line_table_format=LineTableFormat.LOCATIONS, interpreters_head=40,
        tstate_current=576, free_threaded=False,
    ),
    # CPython 3.12.1: Include/internal/pycore_runtime.h, pycore_interp.h, pycore_gil.h, pycore_frame.h,
    # Include/cpython/pystate.h, code.h
    # tstate_active_mask is _status.active; 3 is FRAME_OWNED_BY_CSTACK.
    (3, 12): CPythonLayout(
        version=0x030c, instruction_kind=InstructionKind.PREV_INSTR, gil_kind=GilKind.INTERPRETER,
        interp_next=0, interp_threads_head=72, interp_gil=384, gil_last_holder=8, gil_locked=16,
        tstate_prev=0, tstate_next=8, tstate_interp=16, tstate_thread_id=136, tstate_frame=56, tstate_active=24,
        tstate_active_mask=16, tstate_holds_gil=OFFSET_NONE, cframe_current_frame=0,
        frame_size=72, frame_previous=8, frame_code=0, frame_instruction=56, frame_owner=70, frame_owner_shim=3,
        frame_code_tag_mask=0, frame_is_entry=OFFSET_NONE, frame_tlbc_index=OFFSET_NONE,
        code_identity=48, code_first_line=68, code_filename=112, code_name=128, code_line_table=136,
        code_instructions=192, code_first_traceable=176, code_tlbc=OFFSET_NONE,
        str_length=16, str_state=32, str_kind_shift=2, str_compact_shift=5, str_ascii_shift=6, bytes_value=32,
        str_ascii_data=40, str_compact_data=56, bytes_size=16,
        line_table_format=LineTableFormat.LOCATIONS, interpreters_head=40,
        tstate_current=None, free_threaded=False,
    ),
}
# fmt: on
