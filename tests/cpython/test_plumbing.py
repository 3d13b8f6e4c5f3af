"""Which of CPython's functions are shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.plumbing import is_evaluation_loop, is_first_of_greenlet, is_plumbing, is_unnamed
from pyflame_ebpf.elf.image import ElfImage
from pyflame_ebpf.elf.symbols import ElfSymbols
from tests.interpreters import PROBE, Interpreter

CARRIERS = [
    "_PyEval_EvalFrameDefault",
    "_PyEval_EvalFrameDefault.cold",
    "_TAIL_CALL_CALL_PY_EXACT_ARGS.llvm.77",
    "PyEval_EvalFrameEx",
    "_PyEval_EvalFrame.lto_priv.0",
    "_PyEval_Vector",
    "PyEval_EvalCode",
    "PyEval_EvalCodeEx",
    "_PyEval_EvalCodeWithName",
    "_PyEvalFramePushAndInit",
    "_PyEval_FrameClearAndPop",
    "fast_function",
    "call_function.constprop.0",
    "do_call_core",
    "function_code_fastcall.part.0",
    "_PyFunction_Vectorcall",
    "_PyFunction_FastCallDict",
    "PyObject_Vectorcall@plt",
    "_PyObject_MakeTpCall",
    "_PyObject_FastCallDictTstate",
    "_PyObject_Call_Prepend",
    "PyObject_CallFunctionObjArgs",
    "PyObject_CallOneArg",
    "PyVectorcall_Call",
    "_PyVectorcall_Call",
    "object_vacall",
    "vectorcall_method",
    "vectorcall_maybe",
    "cfunction_vectorcall_FASTCALL_KEYWORDS",
    "cfunction_call_varargs",
    "_PyCFunction_FastCallKeywords",
    "PyCFunction_Call",
    "_PyMethodDef_RawFastCallKeywords",
    "method_vectorcall",
    "method_vectorcall_VARARGS_KEYWORDS",
    "method_call",
    "methoddescr_call",
    "type_call",
    "tp_new_wrapper",
    "slot_tp_call",
    "slot_tp_init",
    "slot_nb_add",
    "slot_tp_iternext",
    "slot_tp_finalize",
    "wrapperdescr_call",
    "wrap_call",
    "wrap_init",
    "wrap_unaryfunc",
    "wrap_objobjargproc",
    "wrap_binaryfunc_l",
    "wrap_next",
    "gen_send_ex",
    "gen_send_ex2",
    "gen_iternext",
    "PyGen_am_send",
    "PyIter_Send",
    "async_gen_asend_send",
    "trace_trampoline",
    "py_trampoline_evaluator",
    "Py_BytesMain",
    "pymain_run_python",
    "pymain_run_file.isra.0",
    "_PyRun_SimpleFileObject",
    "PyRun_FileExFlags",
    "run_mod",
    "run_eval_code_obj",
]

# Called by Python and known by name, work that costs time, and what is at a thread's root.
SHOWN = [
    "list_sort",
    "list_sort_impl",
    "dict_get",
    "dict_vectorcall",
    "list_vectorcall",
    "type_new",
    "type_vectorcall",
    "object_new",
    "list___init__",
    "builtin_exec",
    "builtin___build_class__",
    "builtin_sorted",
    "builtin___import__",
    "PyImport_ImportModuleLevelObject",
    "_functools_reduce",
    "partial_call",
    "partial_vectorcall",
    "lru_cache_call",
    "scanner_call",
    "itemgetter_vectorcall",
    "gen_send",
    "gen_throw",
    "gen_close",
    "_PyGen_Finalize",
    "PyObject_Calloc",
    "PyObject_Malloc",
    "_PyObject_GC_Calloc",
    "PyObject_RichCompare",
    "PyObject_GenericGetAttr",
    "PyObject_IsInstance",
    "PyEval_RestoreThread",
    "PyEval_SaveThread",
    "take_gil",
    "gc_collect_main",
    "_PyEval_UnpackIterable",
    "_PyEval_MakePendingCalls",
    "subtype_dealloc",
    "frame_dealloc",
    "wrap_strftime",
    "thread_run",
    "pythread_wrapper",
    "clone3",
    "start_thread",
    "_start",
    "main",
    "__libc_start_main",
    "Py_RunMain",
    "Py_Main",
    "weakref_call",
    "property_descr_get",
    "long_mul",
    "unicode_join",
    "memcpy",
]


@pytest.mark.parametrize("name", CARRIERS)
def test_what_only_carries_calls_is_plumbing(name: str) -> None:
    assert is_plumbing(name)


@pytest.mark.parametrize("name", SHOWN)
def test_what_does_something_is_shown(name: str) -> None:
    assert not is_plumbing(name)


@pytest.mark.parametrize("name", ["_PyEval_EvalFrameDefault", "_PyEval_EvalFrameDefault.cold.12", "_TAIL_CALL_RESUME"])
def test_evaluation_loop_is_known_with_its_parts(name: str) -> None:
    assert is_evaluation_loop(name)


@pytest.mark.parametrize("name", ["PyEval_EvalFrameEx", "_PyEval_EvalFrame", "_PyEval_Vector", ""])
def test_what_calls_the_evaluation_loop_is_not_it(name: str) -> None:
    assert not is_evaluation_loop(name)


def interpreter_image(interpreter: Interpreter) -> Path:
    """The file that holds the interpreter, seen from here."""
    said = subprocess.run([*interpreter.argv, "-c", PROBE], capture_output=True, text=True, check=True).stdout
    path = said.rstrip("\n").split(" ", 2)[2]
    return Path(path if path.startswith(interpreter.root) else interpreter.root.rstrip("/") + path).resolve()


def test_evaluation_loop_of_every_interpreter_is_known_by_its_address(each_interpreter: Interpreter) -> None:
    with interpreter_image(each_interpreter).open("rb") as file:
        symbols = ElfSymbols(ElfImage(file))
        loop = symbols.symbol("_PyEval_EvalFrameDefault")
        assert loop
        named = symbols.function_at(loop.vaddr + 1)
    assert named
    assert is_evaluation_loop(named[0])


@pytest.mark.parametrize(
    "name",
    [
        "g_initialstub",
        "greenlet::UserGreenlet::g_initialstub(void*)",
        "_ZN8greenlet12UserGreenlet13g_initialstubEPv",
        "_ZN8greenlet8Greenlet13g_initialstubEPv",
        "_ZN13g_initialstubE",
        "greenlet::Greenlet::g_initialstub",
    ],
)
def test_root_of_a_greenlet_is_known_in_every_spelling(name: str) -> None:
    assert is_first_of_greenlet(name)


@pytest.mark.parametrize(
    "name",
    [
        "g_switch",
        "my_g_initialstub",
        "g_initialstub_again",
        "greenlet::g_initialstub::other(void*)",
        "_ZN8greenlet12UserGreenlet8g_switchEv",
        "_ZN8greenlet12UserGreenlet13g_initialstubEPv.cold",
        "_PyEval_EvalFrameDefault",
        "",
    ],
)
def test_other_functions_are_no_root_of_a_greenlet(name: str) -> None:
    assert not is_first_of_greenlet(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libfoo.so+0x12af", True),
        ("a file+0x0", True),
        ("operator+", False),
        ("libfoo.so+0x12ag", False),
        ("libfoo.so+0x", False),
        ("libfoo.so+0x12af (deleted)", False),
        ("memcpy", False),
    ],
)
def test_a_place_in_a_file_is_no_name(name: str, expected: bool) -> None:
    assert is_unnamed(name) is expected
