"""Plumbing: the native functions of CPython that only carry calls from one function to the next.

They are known by name, for every release from 3.6 on (Objects/call.c, methodobject.c, descrobject.c, typeobject.c,
genobject.c, Python/ceval.c, pythonrun.c, Modules/main.c).  A function that works for the program is no plumbing,
whether Python called it (``list.sort``, ``exec``, ``functools.partial``) or the interpreter does the work by itself
(imports, the wait for the GIL, the end of an object).
"""

from __future__ import annotations

import re

_SUFFIX = r"(\.\w+|@plt)*"  # what compilers and linkers add to a function's name
_LOOP = re.compile(rf"(_PyEval_EvalFrameDefault|_TAIL_CALL_\w+){_SUFFIX}")
_PLUMBING = re.compile(
    rf"""(
    # into the evaluation loop
      _?PyEval_(EvalFrame(Ex)?|EvalCode(Ex|WithName)?|Vector|MakeFrameVector|Call(Object|Function|Method)\w*|CallTracing)
    | _PyEval_?Frame\w+ | _PyFrame_(Push|ClearExceptCode|New_NoTrack)
    | fast_function | call_function | do_call | do_call_core | function_code_fastcall | function_call
    | _?PyFunction_(Vectorcall|FastCall)\w*
    # to whatever can be called
    | _?PyObject_(Vectorcall|FastCall|MakeTpCall|Call(?!oc))\w* | _?PyVectorcall_\w+ | object_vacall
    | vectorcall_(method|maybe|unbound) | call_(method|maybe|unbound|unbound_noarg|attribute)
    # to methods and C functions
    | cfunction_(vectorcall|call)\w* | _?PyCFunction_(FastCall|Call)\w* | _PyMethodDef_Raw\w+
    | method_(vectorcall\w*|call) | instancemethod_call | (class)?methoddescr_call | sm_call
    | _PyMethodDescr_(Vectorcall|FastCallKeywords)
    # to and from the special methods of classes
    | type_call | tp_new_wrapper | slot_(am|bf|mp|nb|sq|tp)_\w+ | wrapperdescr_(raw_)?call | wrapper_call
    | wrap_(\w+func(_[lr])?|call|init|next|inquirypred|\w*objproc|objobjargproc|(sq_|del|set)(item|attr)|sq_\w+|del)
    | wrap_(descr_(get|set|delete)|buffer|releasebuffer|richcmpfunc)
    # into generators and coroutines
    | gen_(send_ex2?|iternext) | _?PyGen_(am_send|Send) | PyIter_(Next|NextItem|Send)
    | async_gen_(asend|athrow)_(iternext|send) | anextawaitable_(iternext|send)
    # to the functions of sys.setprofile and sys.settrace, and those of perf
    | (call|profile|trace)_trampoline | py_trampoline_evaluator
    # from the start of the interpreter to its first line
    | Py_BytesMain | pymain_\w+ | _?PyRun_\w+ | _?pyrun_\w+ | run_(mod|eval_code_obj|file|command|module)
    ){_SUFFIX}""",
    re.VERBOSE,
)
_PLACE = re.compile(r"\+0x[0-9a-f]+$")
_FIRST = re.compile(r"(\w+::)*g_initialstub(\(.*)?|_ZN\w*13g_initialstubE\w*")


def is_evaluation_loop(name: str) -> bool:
    """True for the function that runs Python frames, and for parts of it."""
    return _LOOP.fullmatch(name) is not None


def is_plumbing(name: str) -> bool:
    """True when a function of the interpreter's own file only carries calls; the evaluation loop is one."""
    return _LOOP.fullmatch(name) is not None or _PLUMBING.fullmatch(name) is not None


def is_unnamed(name: str) -> bool:
    """True for a place in a file, ``file+0xoffset``, which stands where a function's name is not known."""
    return _PLACE.search(name) is not None


def is_first_of_greenlet(name: str) -> bool:
    """True for the greenlet library's function at the root of each greenlet's stack."""
    return _FIRST.fullmatch(name) is not None
