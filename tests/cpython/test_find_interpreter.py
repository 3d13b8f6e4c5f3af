"""Which mapped file has the interpreter, by facts and memory that are made up."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from pyflame_ebpf.cpython.file_facts import FileFacts, RuntimeFacts
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.interpreter import (
    Interpreter,
    ReadMemory,
    UnsupportedInterpreter,
    find_interpreter,
    load_bias,
)
from pyflame_ebpf.cpython.recipe import Recipe
from pyflame_ebpf.elf.image import Segment
from pyflame_ebpf.host.maps import Mapping
from tests.cpython.test_layout import published

DEVICE = 8
BIAS = 0x5555_0000_0000
TEXT = Segment(1, 5, 0x1000, 0x2000, 0x3000, 0x3000)
DATA = Segment(1, 6, 0x5000, 0x7000, 0x100, 0x4000)


def mapping(inode: int, path: str, start: int = BIAS + 0x2000, *, executable: bool = True) -> Mapping:
    """The code of a file that is loaded at BIAS."""
    return Mapping(start, start + 0x3000, 0x1000, executable, DEVICE, inode, path)


def facts(runtime: RuntimeFacts | None, *, machine: int = 62, build_id: bytes = b"") -> FileFacts:
    """A file with one segment of code."""
    return FileFacts(
        machine=machine,
        segments=(TEXT, DATA),
        first_text_vaddr=0x2000,
        dynamic_vaddr=0x7100,
        debug_entry_vaddr=0x7200,
        build_id=build_id,
        build_id_vaddr=0x300,
        runtime=runtime,
    )


PROGRAM, LIBRARY, OTHER = (
    mapping(1, "/bin/program"),
    mapping(2, "/lib/libpython.so", BIAS + 0x10002000),
    mapping(3, "/x"),
)
NONE = facts(None)
OF_312 = RuntimeFacts(0x8000, 0, 0, (3, 12), "3.12.1")
OF_36 = RuntimeFacts(0, 0x8100, 0x8200, (3, 6), "3.6.15")
OF_313 = RuntimeFacts(0x8000, 0, 0, (3, 13), "3.13.0")


def no_memory(address: int, size: int) -> bytes:
    """A process whose memory cannot be read."""
    raise OSError(errno.EFAULT, "Bad address")


def holding(data: bytes) -> ReadMemory:
    """A process with these bytes wherever it is read, and zeros behind them."""
    return lambda _address, size: data[:size].ljust(size, b"\0")


def find(
    files: dict[Mapping, FileFacts | None], read: ReadMemory = no_memory
) -> Interpreter | UnsupportedInterpreter | None:
    """The interpreter of a process that has mapped these files and runs PROGRAM."""
    return find_interpreter(files, (DEVICE, 1), lambda mapped: files[mapped], read)


def test_an_interpreter_in_the_program_itself_is_found_with_its_roots() -> None:
    layout = LAYOUTS[3, 12]
    assert layout.interpreters_head == 40
    assert find({OTHER: None, PROGRAM: facts(OF_312, build_id=b"0123456789")}) == Interpreter(
        release=(3, 12),
        version="3.12.1",
        file="/bin/program",
        layout=layout,
        bias=BIAS,
        interpreters_head=BIAS + 0x8000 + 40,
        tstate_current=0,
        shared=False,
        build_id=b"0123456789",
        recipe=Recipe(first_text_vaddr=0x2000, interpreters_head=0x8028, tstate_current=0),
    )


def test_an_interpreter_in_a_library_has_a_recipe_that_leads_through_the_program() -> None:
    program = replace(NONE, first_text_vaddr=0x4000, debug_entry_vaddr=0x4400)
    found = find({LIBRARY: facts(OF_36, build_id=b"0123456789"), PROGRAM: program})
    assert isinstance(found, Interpreter)
    bias = BIAS + 0x10000000
    assert (found.shared, found.bias) == (True, bias)
    assert (found.interpreters_head, found.tstate_current) == (bias + 0x8100, bias + 0x8200)
    assert found.recipe == Recipe(
        first_text_vaddr=0x4000,
        interpreters_head=0x8100,
        tstate_current=0x8200,
        in_library=True,
        debug_entry_vaddr=0x4400,
        library_dynamic_vaddr=0x7100,
        library_build_id_vaddr=0x300,
        library_build_id_start=b"01234567",
    )


def test_both_roots_of_a_runtime_are_inside_it() -> None:
    layout = LAYOUTS[3, 9]
    found = find({PROGRAM: facts(replace(OF_312, release=(3, 9)))})
    assert isinstance(found, Interpreter)
    assert layout.tstate_current
    assert layout.interpreters_head
    assert (found.interpreters_head, found.tstate_current) == (
        BIAS + 0x8000 + layout.interpreters_head,
        BIAS + 0x8000 + layout.tstate_current,
    )


def test_the_program_is_asked_before_its_libraries() -> None:
    found = find({LIBRARY: facts(OF_36), PROGRAM: facts(OF_312)})
    assert found
    assert found.version == "3.12.1"


def test_a_library_s_interpreter_is_found_though_the_program_cannot_be_read() -> None:
    found = find({PROGRAM: None, LIBRARY: facts(OF_36)})
    assert isinstance(found, Interpreter)
    assert (found.shared, found.recipe.in_library, found.recipe.first_text_vaddr) == (True, True, 0x2000)


@pytest.mark.parametrize(
    "mapped",
    [mapping(1, "/bin/program", executable=False), mapping(0, "")],
    ids=["not executable", "anonymous"],
)
def test_memory_that_is_no_file_s_code_is_not_looked_at(mapped: Mapping) -> None:
    assert find({mapped: facts(OF_312)}) is None


def test_each_file_is_asked_for_once() -> None:
    asked: list[Mapping] = []

    def facts_of(mapped: Mapping) -> FileFacts | None:
        asked.append(mapped)
        return None

    again = replace(LIBRARY, start=LIBRARY.start + 0x10000)
    assert find_interpreter([OTHER, LIBRARY, again, PROGRAM], (DEVICE, 1), facts_of, no_memory) is None
    assert asked == [PROGRAM, OTHER, LIBRARY]


def unsupported(runtime: RuntimeFacts, read: ReadMemory = no_memory, machine: int = 62) -> UnsupportedInterpreter:
    """What is said of an interpreter that cannot be read."""
    found = find({PROGRAM: facts(runtime, machine=machine)}, read)
    assert isinstance(found, UnsupportedInterpreter)
    return found


def test_an_interpreter_for_another_machine_is_said_to_be_one() -> None:
    found = unsupported(OF_312, machine=3)
    assert found == UnsupportedInterpreter("3.12.1", "/bin/program", "it is not built for x86-64 or arm64")
    assert found.name == "CPython 3.12.1"


def test_a_file_that_is_not_mapped_as_its_headers_say_is_named() -> None:
    moved = replace(PROGRAM, offset=0x9000)
    found = find({moved: facts(OF_312)})
    assert isinstance(found, UnsupportedInterpreter)
    assert found.reason == "its file is not mapped as its headers say"


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        (replace(OF_36, release=(), version=""), "which release it is cannot be told: it is older than 3.13, and"),
        (replace(OF_36, release=(2, 7), version="2.7.18"), "Python 2.7 is not among the releases that can be read"),
        (replace(OF_36, release=(3, 5), version=""), "Python 3.5 is not among the releases that can be read"),
        (replace(OF_313, runtime=0), "its debug offsets are not filled in yet, or damaged"),
        (OF_313, "its memory cannot be read: Bad address"),
    ],
)
def test_why_an_interpreter_cannot_be_read_is_said(runtime: RuntimeFacts, reason: str) -> None:
    assert unsupported(runtime).reason.startswith(reason)


def test_debug_offsets_that_are_not_filled_in_yet_are_said_to_be_so() -> None:
    assert unsupported(OF_313, holding(b"")).reason == "its debug offsets are not filled in yet, or damaged"


@pytest.mark.parametrize("runtime", [OF_313, OF_312, replace(OF_313, release=(), version="")])
def test_what_a_process_publishes_counts_for_more_than_its_file(runtime: RuntimeFacts) -> None:
    found = find({PROGRAM: facts(runtime)}, holding(published(14)))
    assert isinstance(found, Interpreter)
    assert (found.release, found.version, found.layout.version) == ((3, 14), "3.14.0", 0x030E)


def test_hostile_debug_offsets_are_named_with_the_release_that_they_claim() -> None:
    found = unsupported(OF_313, holding(published(14, {"thread_state.size": 1 << 60})))
    assert found.version == "3.14.0"
    assert found.reason.startswith("the process's _Py_DebugOffsets cannot be used: thread_state.size is")


def test_a_version_that_is_not_known_leaves_the_name() -> None:
    assert UnsupportedInterpreter("", "/bin/program", "").name == "CPython"


@pytest.mark.parametrize(
    ("start", "offset", "executable", "bias"),
    [
        (0x12000, 0x1000, True, 0x10000),
        (0x13000, 0x2000, True, 0x10000),
        (0x12000, 0x1000, False, None),
        (0x14000, 0x4000, True, None),
        (0x17000, 0x5000, False, 0x10000),
        (0x17000, 0x6000, False, None),
        (0x11000, 0x0000, True, None),
    ],
)
def test_a_bias_is_told_by_the_segment_that_is_mapped(
    start: int, offset: int, executable: bool, bias: int | None
) -> None:
    mapped = Mapping(start, start + 0x1000, offset, executable, DEVICE, 1, "/x")
    assert load_bias(mapped, (TEXT, DATA)) == bias


def test_a_segment_that_begins_within_a_page_is_mapped_from_the_page_on() -> None:
    segment = TEXT._replace(offset=0x1234, vaddr=0x2234)
    mapped = Mapping(0x12000, 0x15000, 0x1000, executable=True, device=DEVICE, inode=1, path="/x")
    assert load_bias(mapped, (segment,)) == 0x10000


@pytest.mark.parametrize(
    ("in_library", "debug_entry", "dynamic", "usable"),
    [(False, 0, 0, True), (True, 1, 1, True), (True, 0, 1, False), (True, 1, 0, False)],
)
def test_a_recipe_needs_the_linker_s_list_only_for_a_library(
    in_library: bool, debug_entry: int, dynamic: int, usable: bool
) -> None:
    recipe = Recipe(
        first_text_vaddr=1,
        interpreters_head=2,
        tstate_current=3,
        in_library=in_library,
        debug_entry_vaddr=debug_entry,
        library_dynamic_vaddr=dynamic,
    )
    assert recipe.usable is usable
