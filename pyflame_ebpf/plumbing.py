"""Which native functions of CPython only carry calls from one Python function to the next."""

from __future__ import annotations

import re

_LOOP = re.compile(
    r"(_PyEval_EvalFrameDefault|PyEval_EvalFrameEx|_TAIL_CALL_\w+)(\.cold|\.part\.\d+|\.constprop\.\d+)*$"
)
_PLUMBING = re.compile(
    r"""(
      _?PyEval_\w+ | _PyFunction_\w*(Vectorcall|FastCall)\w* | function_code_fastcall | fast_function | call_function
    | _?PyObject_(Vectorcall|VectorcallTstate|FastCall|MakeTpCall|Call)\w* | _?PyVectorcall_\w+ | do_call_core
    | method_vectorcall\w* | cfunction_(vectorcall|call)\w* | _PyCFunction_\w*Call\w* | _PyMethodDef_Raw\w+
    | _PyMethodDescr_(Vectorcall|FastCallKeywords) | vectorcall_\w+ | slot_tp_call | method_call | function_call
    | _PyVectorcall_\w+ | object_vacall | partial_vectorcall\w* | type_call | builtin_exec\w* | PyRun_\w+ | _PyRun_\w+
    | run_mod | run_eval_code_obj | pymain_\w+ | Py_RunMain | Py_BytesMain | gen_send_ex2? | gen_iternext
    | _PyGen_\w*Send\w* | call_trampoline | trampoline_\w+ | _Py_trampoline\w* | py_trampoline\w*
    )(\.\w+)*$""",
    re.VERBOSE,
)


def is_evaluation_loop(name: str) -> bool:
    """Whether this is the function, or a part of it, that runs Python frames."""
    return _LOOP.match(name) is not None


def is_plumbing(name: str) -> bool:
    """Whether a function of the interpreter's own file only carries calls."""
    return _LOOP.match(name) is not None or _PLUMBING.match(name) is not None
