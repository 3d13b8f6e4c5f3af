"""Layouts: the committed rows against DWARF, the published ones against a live process, hostile ones refused."""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.cpython.debug_offsets import (
    DEBUG_OFFSETS_READ,
    DebugOffsetsError,
    UnsupportedPythonError,
    layout_from_debug_offsets,
)
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.layout import OFFSET_NONE, CPythonLayout, GilKind, InstructionKind
from pyflame_ebpf.cpython.line_table import LineTableFormat
from pyflame_ebpf.cpython.published_offsets import PUBLISHED
from pyflame_ebpf.errors import PyflameError

ROOT = Path(__file__).parent.parent.parent
PYENV = Path("~/.pyenv/versions").expanduser()

spec = importlib.util.spec_from_file_location("cpython_layout_row", ROOT / "scripts" / "cpython_layout_row.py")
assert spec
assert spec.loader
row_script = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = row_script
spec.loader.exec_module(row_script)


def installed(major: int, minor: int) -> Path | None:
    """A build of that release with DWARF."""
    for home in sorted(PYENV.glob(f"{major}.{minor}.*")):
        for elf in [*home.glob("lib/libpython3.*.so.1.0"), home / f"bin/python{major}.{minor}"]:
            if elf.is_file():
                return elf
    return None


def example(minor: int, free_threaded: bool = False) -> dict[str, int]:
    """What 3.13.0, 3.14.10 or 3.15.2 publishes, without the members that are not read."""
    shift = 16 if free_threaded else 0
    extra = 8 if minor > 13 else 0
    base = {13: 0, 14: 176, 15: 304}[minor]
    tlbc = free_threaded and minor > 13
    return {
        "runtime_state.size": 409296,
        "runtime_state.interpreters_head": 632 + base,
        "interpreter_state.size": 250328,
        "interpreter_state.next": 7264,
        "interpreter_state.threads_head": 7344,
        "interpreter_state.ceval_gil": 16,
        "interpreter_state.gil_runtime_state": 7752,
        "interpreter_state.gil_runtime_state_locked": 7768,
        "interpreter_state.gil_runtime_state_holder": 7760,
        "thread_state.size": 304,
        "thread_state.prev": 0,
        "thread_state.next": 8,
        "thread_state.interp": 16,
        "thread_state.current_frame": 72,
        "thread_state.thread_id": 152,
        "thread_state.status": 32,
        "thread_state.holds_gil": 36,
        "interpreter_frame.size": 80 + extra,
        "interpreter_frame.previous": 8,
        "interpreter_frame.executable": 0,
        "interpreter_frame.instr_ptr": 56,
        "interpreter_frame.owner": 78 if tlbc else 70 + extra // 2,
        "interpreter_frame.tlbc_index": 72 if tlbc else 0,
        "code_object.size": 208 + shift + extra * (2 if tlbc else 1),
        "code_object.filename": 112 + shift,
        "code_object.name": 120 + shift,
        "code_object.qualname": 128 + shift,
        "code_object.linetable": 136 + shift,
        "code_object.firstlineno": 68 + shift,
        "code_object.co_code_adaptive": 200 + shift + extra * (2 if tlbc else 1),
        "code_object.co_tlbc": 224 if tlbc else 0,
        "pyobject.size": 16 + shift,
        "bytes_object.size": 40 + shift,
        "bytes_object.ob_size": 16 + shift,
        "bytes_object.ob_sval": 32 + shift,
        "unicode_object.size": 64 + shift,
        "unicode_object.state": 32 + shift,
        "unicode_object.length": 16 + shift,
        "unicode_object.asciiobject_size": 40 + shift,
        "unicode_object.compactunicodeobject_size": 56 + shift,
    }


def published(minor: int, changes: dict[str, int] | None = None, free_threaded: bool = False) -> bytes:
    """The bytes of a _Py_DebugOffsets with ``changes`` to what CPython would write."""
    members = example(minor, free_threaded) | (changes or {})
    names = PUBLISHED[3, minor].names
    values = (members.get(name, 8) for name in names)
    return struct.pack(f"<8s{2 + len(names)}Q", b"xdebugpy", 3 << 24 | minor << 16 | 0xF0, free_threaded, *values)


def sane(layout: CPythonLayout) -> bool:
    """Whether every value fits its field of struct cpython_layout and reads stay inside what is copied."""
    ends = [layout.frame_previous + 8, layout.frame_code + 8, layout.frame_instruction + 4]
    ends += [offset + 1 for offset in (layout.frame_owner, layout.frame_is_entry) if offset != OFFSET_NONE]
    ends += [layout.frame_tlbc_index + 4] if layout.frame_tlbc_index != OFFSET_NONE else []
    window = range(layout.code_identity, layout.code_identity + 96)
    named = (layout.code_first_line, layout.code_filename, layout.code_name)
    values = [getattr(layout, field.name) for field in fields(layout) if field.type == "int"]
    return (
        max(ends) <= layout.frame_size <= 128
        and layout.code_identity % 8 == 0
        and all(at in window for at in named)
        and layout.code_line_table + 8 in range(layout.code_identity, layout.code_identity + 97)
        and all(0 <= value <= 0xFFFF for value in values)
        and layout.bytes_value <= 0xFF
    )


def test_some_release_with_dwarf_is_installed() -> None:
    assert any(installed(*release) for release in LAYOUTS)


@pytest.mark.parametrize("release", LAYOUTS)
def test_row_is_what_dwarf_says(release: tuple[int, int]) -> None:
    elf = installed(*release)
    if elf is None:
        pytest.skip(f"CPython {release[0]}.{release[1]} is not installed under {PYENV}")
    assert row_script.layout_from_elf(elf) == LAYOUTS[release]


def test_printed_row_is_the_committed_one() -> None:
    text = (ROOT / "pyflame_ebpf" / "cpython" / "fixed_layouts.py").read_text()
    assert all("\n".join(row_script.row_lines(layout)) in text for layout in LAYOUTS.values())


@pytest.mark.parametrize("release", LAYOUTS)
def test_row_fits_what_is_copied(release: tuple[int, int]) -> None:
    assert sane(LAYOUTS[release])


def test_contract_takes_its_fields_from_the_layout_in_order() -> None:
    header = (ROOT / "bpf" / "sample.h").read_text()
    found = re.search(r"struct cpython_layout \{(.*?)\n\};", header, re.DOTALL)
    assert found
    derived = {"reserved", "frame_is_entry_mask", "frame_always_entry"}  # follow from the others: bpf_abi.pack_layout
    names = [name for name in re.findall(r"^    pf_u\d+ (\w+);", found[1], re.MULTILINE) if name not in derived]
    assert names == [field.name for field in fields(CPythonLayout) if field.name in names]


@pytest.fixture
def running_313() -> Iterator[int]:
    pythons = sorted(PYENV.glob("3.13.*/bin/python3.13"))
    if not pythons:
        pytest.skip(f"CPython 3.13 is not installed under {PYENV}")
    program = "print('ready', flush=True); input()"
    with subprocess.Popen([pythons[0], "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
        child.stdin.close()


@pytest.mark.root
def test_live_313_publishes_what_its_dwarf_says(running_313: int) -> None:
    layout = row_script.layout_from_process(running_313)
    elf = installed(3, 13)
    assert elf
    with elf.open("rb") as stream:
        structs = row_script.Structs(row_script.ELFFile(stream).get_dwarf_info())
        said = {
            "interp_next": structs.member("PyInterpreterState", "next").offset,
            "interp_threads_head": structs.member("PyInterpreterState", "threads.head").offset,
            "interp_gil": structs.member("PyInterpreterState", "ceval.gil").offset,
            "gil_last_holder": structs.member("_gil_runtime_state", "last_holder").offset,
            "gil_locked": structs.member("_gil_runtime_state", "locked").offset,
            "tstate_thread_id": structs.member("PyThreadState", "thread_id").offset,
            "tstate_frame": structs.member("PyThreadState", "current_frame").offset,
            "tstate_active": structs.member("PyThreadState", "state").offset,
            "frame_owner": structs.member("_PyInterpreterFrame", "owner").offset,
            "frame_instruction": structs.member("_PyInterpreterFrame", "instr_ptr").offset,
            "code_first_traceable": structs.member("PyCodeObject", "_co_firsttraceable").offset,
            "code_instructions": structs.member("PyCodeObject", "co_code_adaptive").offset,
            "str_kind_shift": structs.member("PyASCIIObject", "state.kind").bit,
            "str_compact_data": structs.size("PyCompactUnicodeObject"),
            "interpreters_head": structs.member("_PyRuntimeState", "interpreters.head").offset,
        }
    assert {name: getattr(layout, name) for name in said} == said
    assert sane(layout)


@pytest.mark.parametrize("minor", [13, 14, 15])
@pytest.mark.parametrize("free_threaded", [False, True])
def test_published_layout_fits_what_is_copied(minor: int, free_threaded: bool) -> None:
    layout = layout_from_debug_offsets(published(minor, free_threaded=free_threaded))
    assert sane(layout)
    assert (layout.version, layout.free_threaded) == (3 << 8 | minor, free_threaded)


def test_free_threaded_314_reads_its_own_bytecode_and_string_state() -> None:
    layout = layout_from_debug_offsets(published(14, free_threaded=True))
    assert (layout.frame_tlbc_index, layout.code_tlbc, layout.code_first_traceable) == (72, 224, 208)
    assert (layout.str_state, layout.str_kind_shift, layout.str_compact_shift, layout.str_ascii_shift) == (49, 0, 3, 4)
    assert (layout.gil_kind, layout.code_identity, layout.frame_size) == (GilKind.UNKNOWN, 64, 80)


def test_free_threaded_313_keeps_string_state_in_its_first_byte() -> None:
    layout = layout_from_debug_offsets(published(13, free_threaded=True))
    assert (layout.str_state, layout.str_kind_shift, layout.code_tlbc) == (48, 2, OFFSET_NONE)


@pytest.mark.parametrize(
    "changes",
    [
        {"thread_state.current_frame": 1 << 63},
        {"thread_state.current_frame": 300},
        {"thread_state.next": 4},
        {"thread_state.size": 40},
        {"interpreter_frame.size": 0},
        {"interpreter_frame.instr_ptr": 4096},
        {"interpreter_frame.size": 4096, "interpreter_frame.owner": 200},
        {"interpreter_state.size": 1 << 40},
        {"interpreter_state.gil_runtime_state": 1 << 20},
        {"code_object.linetable": 80},
        {"code_object.firstlineno": 200},
        {"unicode_object.asciiobject_size": 65000},
        {"bytes_object.size": 4096, "bytes_object.ob_sval": 256},
    ],
)
def test_member_out_of_place_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(DebugOffsetsError):
        layout_from_debug_offsets(published(13, changes))


OF_313 = CPythonLayout(
    version=0x030D,
    instruction_kind=InstructionKind.INSTR_PTR,
    gil_kind=GilKind.INTERPRETER,
    interp_next=7264,
    interp_threads_head=7344,
    interp_gil=16,
    gil_last_holder=8,
    gil_locked=16,
    tstate_prev=0,
    tstate_next=8,
    tstate_interp=16,
    tstate_thread_id=152,
    tstate_frame=72,
    tstate_active=40,
    tstate_active_mask=1,
    tstate_holds_gil=OFFSET_NONE,
    cframe_current_frame=OFFSET_NONE,
    frame_size=72,
    frame_previous=8,
    frame_code=0,
    frame_instruction=56,
    frame_owner=70,
    frame_owner_shim=3,
    frame_code_tag_mask=0,
    frame_is_entry=OFFSET_NONE,
    frame_tlbc_index=OFFSET_NONE,
    code_identity=48,
    code_first_line=68,
    code_filename=112,
    code_name=128,
    code_line_table=136,
    code_instructions=200,
    code_first_traceable=184,
    code_tlbc=OFFSET_NONE,
    str_length=16,
    str_state=32,
    str_kind_shift=2,
    str_compact_shift=5,
    str_ascii_shift=6,
    bytes_value=32,
    str_ascii_data=40,
    str_compact_data=56,
    bytes_size=16,
    line_table_format=LineTableFormat.LOCATIONS,
    interpreters_head=632,
    tstate_current=None,
    free_threaded=False,
)


def with_free_threads(layout: CPythonLayout) -> CPythonLayout:
    """The layout without the GIL, whose objects have 16 bytes more in front."""
    moved = (
        *("code_identity", "code_first_line", "code_filename", "code_name", "code_line_table", "code_instructions"),
        *("code_first_traceable", "str_length", "str_state", "bytes_value", "str_ascii_data", "str_compact_data"),
        "bytes_size",
    )
    places = {name: getattr(layout, name) + 16 for name in moved}
    return replace(layout, gil_kind=GilKind.UNKNOWN, free_threaded=True, **places)


def with_bytecode_copies(layout: CPythonLayout) -> CPythonLayout:
    """The layout of 3.14 and later without the GIL: threads run their own bytecode, a str has a state in bytes."""
    changed = with_free_threads(layout)
    return replace(
        changed,
        frame_owner=layout.frame_owner + 4,
        frame_tlbc_index=72,
        code_instructions=changed.code_instructions + 8,
        code_tlbc=224,
        str_state=changed.str_state + 1,
        str_kind_shift=0,
        str_compact_shift=3,
        str_ascii_shift=4,
    )


OF_314 = replace(
    OF_313,
    version=0x030E,
    gil_kind=GilKind.THREAD_FLAG,
    tstate_active=44,
    tstate_holds_gil=36,
    frame_size=80,
    frame_owner=74,
    frame_code_tag_mask=3,
    code_instructions=208,
    code_first_traceable=192,
    interpreters_head=808,
)
OF_315 = replace(OF_314, version=0x030F, tstate_active=48, tstate_holds_gil=44, interpreters_head=936)


@pytest.mark.parametrize(
    ("minor", "free_threaded", "layout"),
    [
        (13, False, OF_313),
        (13, True, with_free_threads(OF_313)),
        (14, False, OF_314),
        (14, True, with_bytecode_copies(OF_314)),
        (15, False, OF_315),
        (15, True, with_bytecode_copies(OF_315)),
    ],
)
def test_a_published_layout_is_understood_in_every_member(
    minor: int, free_threaded: bool, layout: CPythonLayout
) -> None:
    published_flag = {"thread_state.holds_gil": 44} if minor == 15 else {}
    assert layout_from_debug_offsets(published(minor, published_flag, free_threaded)) == layout


# The largest value of each member that is accepted in the example of 3.13; 8 or 4 bytes more, or 1, are refused.
LARGEST = {
    "interpreter_state.next": (65528, 8),
    "thread_state.prev": (296, 8),
    "thread_state.status": (300, 4),
    "interpreter_frame.owner": (79, 1),
    "code_object.firstlineno": (140, 4),
    "code_object.co_code_adaptive": (207, 1),
    "bytes_object.ob_sval": (39, 1),
    "unicode_object.length": (56, 8),
    "unicode_object.asciiobject_size": (48, 1),
}


@pytest.mark.parametrize(("name", "largest", "width"), [(name, *bound) for name, bound in LARGEST.items()])
def test_a_member_may_lie_at_the_end_of_its_struct_and_no_further(name: str, largest: int, width: int) -> None:
    layout_from_debug_offsets(published(13, {name: largest}))
    with pytest.raises(DebugOffsetsError, match=name.partition(".")[0]):
        layout_from_debug_offsets(published(13, {name: largest + width}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interpreter_state.next": OFFSET_NONE // 8 * 8 + 8}, "interpreter_state.next is at 65536 of"),
        ({"thread_state.next": 4}, "thread_state.next is at 4 of 304 bytes"),
        ({"code_object.firstlineno": 66}, "code_object.firstlineno is at 66 of"),
        ({"runtime_state.size": 0}, "runtime_state.size is 0"),
        ({"runtime_state.size": (1 << 24) + 1}, "runtime_state.size is 16777217"),
        ({"interpreter_frame.size": 4096, "interpreter_frame.owner": 128}, "interpreter_frame does not fit"),
        ({"interpreter_state.gil_runtime_state": 7768}, "gil_runtime_state_holder does not fit"),
        ({"interpreter_state.gil_runtime_state_locked": 7770}, "gil_runtime_state_locked does not fit"),
        ({"interpreter_state.gil_runtime_state_locked": 7752 + OFFSET_NONE - 3}, "gil_runtime_state_locked does not"),
        ({"thread_state.size": 160, "thread_state.thread_id": 0}, None),
        ({"code_object.size": 184}, "code_object.co_code_adaptive is at"),
        ({"code_object.linetable": 96}, "code_object does not fit"),
        ({"pyobject.size": 56}, "code_object does not fit"),
        ({"pyobject.size": 48}, None),
        ({"unicode_object.state": 64}, "unicode_object.state does not fit"),
        ({"unicode_object.asciiobject_size": 32}, "unicode_object.asciiobject_size does not fit"),
        ({"unicode_object.asciiobject_size": 33}, None),
        ({"unicode_object.asciiobject_size": 49}, "unicode_object.size does not fit"),
        ({"unicode_object.size": OFFSET_NONE}, "unicode_object.size does not fit"),
        ({"unicode_object.size": OFFSET_NONE - 1}, None),
        ({"bytes_object.size": 4096, "bytes_object.ob_sval": 255}, None),
        ({"bytes_object.size": 4096, "bytes_object.ob_sval": 256}, "bytes_object.ob_sval does not fit"),
        ({"gc.size": 0}, None),
    ],
)
def test_structures_that_contradict_each_other_are_refused(changes: dict[str, int], message: str | None) -> None:
    if message is None:
        layout_from_debug_offsets(published(13, changes))
        return
    with pytest.raises(DebugOffsetsError, match=message):
        layout_from_debug_offsets(published(13, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"interpreter_frame.tlbc_index": 74},
        {"interpreter_frame.tlbc_index": 88},
        {"code_object.co_tlbc": 228},
        {"code_object.co_tlbc": 240},
        {"thread_state.size": 48 - 8, "thread_state.thread_id": 0, "thread_state.current_frame": 0},
    ],
)
def test_members_of_free_threaded_builds_are_checked_as_well(changes: dict[str, int]) -> None:
    with pytest.raises(DebugOffsetsError):
        layout_from_debug_offsets(published(14, changes, free_threaded=True))


@pytest.mark.parametrize(("version", "free_threaded"), [(1 << 32 | 0x030D00F0, 0), (0x030D00F0, 2)])
def test_a_header_out_of_range_is_refused(version: int, free_threaded: int) -> None:
    data = bytearray(published(13))
    struct.pack_into("<QQ", data, 8, version, free_threaded)
    with pytest.raises(DebugOffsetsError, match="out of range"):
        layout_from_debug_offsets(bytes(data))


def test_as_many_bytes_as_the_release_publishes_are_enough() -> None:
    data = published(13)
    assert len(data) < DEBUG_OFFSETS_READ == len(published(15))
    assert layout_from_debug_offsets(data) == layout_from_debug_offsets(data.ljust(DEBUG_OFFSETS_READ, b"\xff"))


@pytest.mark.parametrize("length", [0, 8, 23, 24, 583])
def test_short_read_is_refused(length: int) -> None:
    with pytest.raises(DebugOffsetsError, match="could be read"):
        layout_from_debug_offsets(published(13)[:length])


def test_foreign_cookie_is_refused() -> None:
    with pytest.raises(DebugOffsetsError, match="cookie"):
        layout_from_debug_offsets(b"\0" * DEBUG_OFFSETS_READ)


@pytest.mark.parametrize("release", [(3, 12), (3, 16), (4, 0)])
def test_unknown_release_in_debug_offsets_is_named(release: tuple[int, ...]) -> None:
    data = bytearray(published(13))
    struct.pack_into("<Q", data, 8, release[0] << 24 | release[1] << 16)
    with pytest.raises(UnsupportedPythonError, match=rf"CPython {release[0]}\.{release[1]} is not supported"):
        layout_from_debug_offsets(bytes(data))


@settings(max_examples=500)
@given(
    minor=st.sampled_from([13, 14, 15]),
    free_threaded=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2**64 - 1) | st.integers(0, 300)), max_size=4),
)
def test_hostile_members_give_a_sane_layout_or_a_clear_error(
    minor: int, free_threaded: bool, changes: list[tuple[int, int]]
) -> None:
    names = PUBLISHED[3, minor].names
    data = published(minor, {names[index % len(names)]: value for index, value in changes}, free_threaded)
    try:
        layout = layout_from_debug_offsets(data)
    except PyflameError:
        return
    assert sane(layout)


@given(st.binary(max_size=DEBUG_OFFSETS_READ))
def test_garbage_behind_a_right_cookie_is_refused(garbage: bytes) -> None:
    with pytest.raises(PyflameError):
        layout_from_debug_offsets(b"xdebugpy" + garbage)
