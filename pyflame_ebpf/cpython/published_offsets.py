"""What each release from 3.13 on publishes in _Py_DebugOffsets: the order of its members, and the facts it leaves out.

Sources: Include/internal/pycore_runtime.h in 3.13, pycore_debug_offsets.h from 3.14 on, for the orders.  The headers of
CPython 3.13.0, 3.14.10 and 3.15.2, with and without Py_GIL_DISABLED, for the facts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyflame_ebpf.cpython.layout import OFFSET_NONE

HEADER = struct.Struct("<8sQQ")  # cookie, PY_VERSION_HEX, free_threaded


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedOffsets:
    """What one minor release publishes, and the facts about it that it leaves out.

    ``names`` are the 8-byte members of struct _Py_DebugOffsets behind the header, in order.  Offsets in code objects
    and strings are those of the build with the GIL.
    """

    names: tuple[str, ...]
    tstate_state: int  # PyThreadState.state: 1 is _Py_THREAD_ATTACHED (internal/pycore_pystate.h)
    holds_gil: int  # PyThreadState.holds_gil (cpython/pystate.h)
    first_traceable: int  # PyCodeObject._co_firsttraceable (cpython/code.h)
    owner_shim: int  # the first of enum _frameowner that is no Python frame
    code_tag_mask: int  # Py_TAG_BITS of f_executable (internal/pycore_stackref.h)
    thread_local_bytecode: bool  # free-threaded builds run copies of the bytecode, co_tlbc
    free_threaded_state_byte: int  # free-threaded: byte of PyASCIIObject.state that holds kind, compact and ascii

    @property
    def size(self) -> int:
        """sizeof(struct _Py_DebugOffsets), in bytes."""
        return HEADER.size + 8 * len(self.names)


def _order(text: str) -> tuple[str, ...]:
    """The dotted names of lines that give a struct's name and then its members."""
    lines = (line.split() for line in text.strip().splitlines())
    return tuple(f"{line[0]}.{member}" for line in lines for member in line[1:])


_ORDER_313 = _order("""
    runtime_state size finalizing interpreters_head
    interpreter_state size id next threads_head gc imports_modules sysdict builtins ceval_gil
    interpreter_state gil_runtime_state gil_runtime_state_enabled gil_runtime_state_locked gil_runtime_state_holder
    thread_state size prev next interp current_frame thread_id native_thread_id datastack_chunk status
    interpreter_frame size previous executable instr_ptr localsplus owner
    code_object size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds
    code_object co_code_adaptive
    pyobject size ob_type
    type_object size tp_name tp_repr tp_flags
    tuple_object size ob_item ob_size
    list_object size ob_item ob_size
    dict_object size ma_keys ma_values
    float_object size ob_fval
    long_object size lv_tag ob_digit
    bytes_object size ob_size ob_sval
    unicode_object size state length asciiobject_size
    gc size collecting
""")

_ORDER_314 = _order("""
    runtime_state size finalizing interpreters_head
    interpreter_state size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil
    interpreter_state gil_runtime_state gil_runtime_state_enabled gil_runtime_state_locked gil_runtime_state_holder
    interpreter_state code_object_generation tlbc_generation
    thread_state size prev next interp current_frame thread_id native_thread_id datastack_chunk status
    interpreter_frame size previous executable instr_ptr localsplus owner stackpointer tlbc_index
    code_object size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds
    code_object co_code_adaptive co_tlbc
    pyobject size ob_type
    type_object size tp_name tp_repr tp_flags
    tuple_object size ob_item ob_size
    list_object size ob_item ob_size
    set_object size used table mask
    dict_object size ma_keys ma_values
    float_object size ob_fval
    long_object size lv_tag ob_digit
    bytes_object size ob_size ob_sval
    unicode_object size state length asciiobject_size
    gc size collecting
    gen_object size gi_name gi_iframe gi_frame_state
    llist_node next prev
    debugger_support eval_breaker remote_debugger_support remote_debugging_enabled debugger_pending_call
    debugger_support debugger_script_path debugger_script_path_size
""")

_ORDER_315 = _order("""
    runtime_state size finalizing interpreters_head
    interpreter_state size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil
    interpreter_state gil_runtime_state gil_runtime_state_enabled gil_runtime_state_locked gil_runtime_state_holder
    interpreter_state code_object_generation tlbc_generation
    thread_state size prev next interp current_frame base_frame last_profiled_frame last_profiled_frame_seq
    thread_state thread_id native_thread_id datastack_chunk status holds_gil gil_requested current_exception exc_state
    err_stackitem exc_value
    interpreter_frame size previous executable instr_ptr localsplus owner stackpointer tlbc_index
    code_object size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds
    code_object co_code_adaptive co_tlbc
    pyobject size ob_type
    type_object size tp_name tp_repr tp_flags tp_basicsize tp_dictoffset
    heap_type_object size ht_cached_keys
    tuple_object size ob_item ob_size
    list_object size ob_item ob_size
    set_object size used table mask
    dict_object size ma_keys ma_values
    float_object size ob_fval
    long_object size lv_tag ob_digit
    bytes_object size ob_size ob_sval
    unicode_object size state length asciiobject_size compactunicodeobject_size
    gc size collecting frame generation_stats_size generation_stats
    gen_object size gi_name gi_iframe gi_frame_state
    llist_node next prev
    debugger_support eval_breaker remote_debugger_support remote_debugging_enabled debugger_pending_call
    debugger_support debugger_script_path debugger_script_path_size
""")

# Owners of 3 and more are in 3.13: FRAME_OWNED_BY_CSTACK; in 3.14: FRAME_OWNED_BY_INTERPRETER, ..._CSTACK; in 3.15:
# FRAME_OWNED_BY_INTERPRETER.
PUBLISHED: dict[tuple[int, int], PublishedOffsets] = {
    (3, 13): PublishedOffsets(
        names=_ORDER_313,
        tstate_state=40,
        holds_gil=OFFSET_NONE,
        first_traceable=184,
        owner_shim=3,
        code_tag_mask=0,
        thread_local_bytecode=False,
        free_threaded_state_byte=0,
    ),
    (3, 14): PublishedOffsets(
        names=_ORDER_314,
        tstate_state=44,
        holds_gil=36,
        first_traceable=192,
        owner_shim=3,
        code_tag_mask=3,
        thread_local_bytecode=True,
        free_threaded_state_byte=1,
    ),
    (3, 15): PublishedOffsets(
        names=_ORDER_315,
        tstate_state=48,
        holds_gil=36,
        first_traceable=192,
        owner_shim=3,
        code_tag_mask=3,
        thread_local_bytecode=True,
        free_threaded_state_byte=1,
    ),
}
