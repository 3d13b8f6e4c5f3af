"""Interpreters found in live processes: shared, static, stripped, renamed, in a venv, embedded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.interpreter import Interpreter, UnsupportedInterpreter, interpreter_of
from pyflame_ebpf.cpython.recipe import Recipe
from pyflame_ebpf.host import maps, memory

WAIT = "import sys; sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()"
SPIN = "import sys; sys.stdout.write('ready\\n'); sys.stdout.flush()\nwhile True: pass"  # holds the GIL for ever
PYENV = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin/python"))
PYTHON3 = [python for python in PYENV if not python.parts[-3].startswith("2.")]
SYSTEM = Path("/usr/bin/python3")


@contextmanager
def running(command: Sequence[str | Path], env: dict[str, str] | None = None) -> Iterator[int]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def version_of(python: Path) -> str:
    program = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def word(pid: int, address: int) -> int:
    return int.from_bytes(memory.read_memory(pid, address, 8), "little")


def first_thread_id(pid: int, found: Interpreter) -> int:
    """thread_id of the main interpreter's only thread state, reached from the roots; it is pthread_self()."""
    layout = found.layout
    if found.interpreters_head:
        interpreter = word(pid, found.interpreters_head)
        thread = word(pid, interpreter + layout.interp_threads_head)
    else:
        thread, deadline = 0, time.monotonic() + 5
        while not thread and time.monotonic() < deadline:  # nobody holds the GIL while "ready" is being written
            thread = word(pid, found.tstate_current)
    return word(pid, thread + layout.tstate_thread_id)


def roots_by_recipe(pid: int, recipe: Recipe) -> tuple[int, ...]:
    """(interpreters_head, tstate_current) found as a BPF program finds them."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    bias = int(fields[23]) - recipe.first_text_vaddr  # startcode, mm->start_code
    if recipe.in_library:
        link_map = word(pid, word(pid, bias + recipe.debug_entry_vaddr) + 8)
        while word(pid, link_map + 16) - word(pid, link_map) != recipe.library_dynamic_vaddr or (
            memory.read_memory(pid, word(pid, link_map) + recipe.library_build_id_vaddr, 8)
            != recipe.library_build_id_start
        ):
            link_map = word(pid, link_map + 24)
        bias = word(pid, link_map)
    heads = recipe.interpreters_head, recipe.tstate_current
    return tuple(bias + vaddr if vaddr else 0 for vaddr in heads)


def assert_found(pid: int, version: str) -> Interpreter:
    found = interpreter_of(pid, FileFactsCache())
    assert isinstance(found, Interpreter), found
    assert found.name == f"CPython {version}"
    mapped = maps.mappings(pid)
    assert any(mapping.start <= first_thread_id(pid, found) < mapping.end for mapping in mapped)
    assert roots_by_recipe(pid, found.recipe) == (found.interpreters_head, found.tstate_current)
    return found


@pytest.mark.parametrize("python", PYTHON3, ids=lambda path: path.parts[-3])
def test_installed_interpreters_are_found_with_their_roots(python: Path) -> None:
    with running([python, "-c", WAIT]) as pid:
        assert_found(pid, python.parts[-3])


def test_the_systems_static_stripped_interpreter_is_found() -> None:
    with running([SYSTEM, "-c", WAIT]) as pid:
        found = assert_found(pid, version_of(SYSTEM))
    assert Path(found.file).samefile(SYSTEM.resolve())


def test_a_renamed_copy_is_found(tmp_path: Path) -> None:
    copy = shutil.copy(SYSTEM.resolve(), tmp_path / "billing-service")
    with running([copy, "-c", WAIT], env={**os.environ, "PYTHONHOME": "/usr"}) as pid:
        found = assert_found(pid, version_of(SYSTEM))
    assert found.file == str(copy)


def test_a_venv_is_found(tmp_path: Path) -> None:
    venv.create(tmp_path, symlinks=True)
    with running([tmp_path / "bin" / "python", "-c", WAIT]) as pid:
        assert_found(pid, ".".join(map(str, sys.version_info[:3])))


@pytest.mark.parametrize("python", PYTHON3, ids=lambda path: path.parts[-3])
def test_a_stripped_library_is_found(python: Path, tmp_path: Path) -> None:
    library = next(python.parents[1].glob("lib/libpython3.*.so.1.0"))
    subprocess.run(["strip", "-o", tmp_path / library.name, library], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "LD_PRELOAD": str(tmp_path / library.name)}
    with running([python, "-c", SPIN], env=environment) as pid:
        found = assert_found(pid, python.parts[-3])
    assert (Path(found.file).parent, found.shared) == (tmp_path, True)


EMBEDDING = """
#include <Python.h>
int main(void) { Py_Initialize(); return PyRun_SimpleString(WAIT); }
"""


@pytest.mark.parametrize("python", PYTHON3[-1:], ids=lambda path: path.parts[-3])
def test_an_interpreter_embedded_in_another_program_is_found(python: Path, tmp_path: Path) -> None:
    prefix = python.parents[1]
    include = next(prefix.glob("include/python3.*"))
    library = next(prefix.glob("lib/libpython3.*.so.1.0"))
    text = WAIT.replace("\\", "\\\\").replace('"', '\\"')
    subprocess.run(
        [
            "gcc",
            "-x",
            "c",
            "-",
            "-o",
            tmp_path / "game",
            f"-I{include}",
            f'-DWAIT="{text}"',
            "-x",
            "none",
            library,
            f"-Wl,-rpath,{prefix / 'lib'}",
        ],
        input=EMBEDDING.encode(),
        check=True,
    )
    with running([tmp_path / "game"], env={**os.environ, "PYTHONHOME": str(prefix)}) as pid:
        found = assert_found(pid, python.parts[-3])
    assert found.file == str(library)


@pytest.mark.parametrize(
    "python", [python for python in PYENV if python not in PYTHON3], ids=lambda path: path.parts[-3]
)
def test_python_2_is_named_and_said_to_be_unsupported(python: Path) -> None:
    with running([python, "-c", WAIT]) as pid:
        found = interpreter_of(pid, FileFactsCache())
    assert isinstance(found, UnsupportedInterpreter)
    assert (found.name, "Python 2.7" in found.reason) == (f"CPython {python.parts[-3]}", True)


def test_a_process_without_an_interpreter_has_none() -> None:
    with running(["sh", "-c", "echo ready; read line"]) as pid:
        assert interpreter_of(pid, FileFactsCache()) is None
