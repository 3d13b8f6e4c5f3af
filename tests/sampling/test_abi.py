"""The contract between C and Python: what gcc makes of bpf/sample.h against its ctypes mirror."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.cpython import debug_offsets
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.layout import OFFSET_NONE, CPythonLayout, GilKind, InstructionKind
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Gil, NativeOutcome, Outcome
from pyflame_ebpf.sampling import abi, counts, events, kernel_flags, programs
from pyflame_ebpf.sampling.abi import raw_identity
from pyflame_ebpf.sampling.program_text import PARTS
from pyflame_ebpf.sampling.x86_64 import STACK_OFFSETS
from pyflame_ebpf.unwind import walk
from pyflame_ebpf.unwind.page_rows import PAGE_SHIFT, ROWS_MAX
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import ROW, CfaKind, RbpKind
from pyflame_ebpf.unwind.x86_64 import OtherRegister

BPF = Path(__file__).parent.parent.parent / "bpf"
HEADER = (BPF / "sample.h").read_text()

MIRRORED_STRUCTS = {
    "cpython_layout": abi.Layout,
    "process_identity": abi.ProcessIdentity,
    "stack_frame": abi.StackFrame,
    "process_entry": abi.ProcessEntry,
    "mapping": abi.Mapping,
    "unwind_page_key": abi.UnwindPageKey,
    "unwind_page": abi.UnwindPage,
    "file_key": abi.FileKey,
    "executable_entry": abi.ExecutableEntry,
    "count_key": abi.CountKey,
    "settings": abi.Settings,
    "process_record": abi.ProcessRecord,
    "thread_record": abi.ThreadRecord,
    "miss_record": abi.MissRecord,
    "exit_record": abi.ExitRecord,
    "stack_record": abi.StackRecord,
    "stack_copy_record": abi.StackCopyRecord,
    "code_record": abi.CodeRecord,
}
STRUCTS_OF_THE_PROGRAMS_ALONE = {"thread_key", "thread_entry"}
ARRAYS = {"unwind_row", "unwind_chunk", "process_mappings"}  # written as bytes


def numbered(prefix: str, names: Iterable[str], *, end: bool = False) -> dict[str, int]:
    """Enumerators PREFIX_NAME with values that rise from 0, and PREFIX_END behind them where there is one."""
    return {f"{prefix}{name.upper()}": index for index, name in enumerate([*names, *["end"] * end])}


def constants(prefix: str) -> dict[str, int]:
    """The mirror's numbers whose names begin so, under the names that the header gives them."""
    return {f"PF_{name}": value for name, value in vars(abi).items() if re.fullmatch(rf"{prefix}[A-Z_]+", name)}


MIRRORED_ENUMS = {
    "instruction_kind": {f"PF_INSTRUCTION_{kind.name}": kind.value for kind in InstructionKind},
    "gil_kind": {f"PF_GIL_KIND_{kind.name}": kind.value for kind in GilKind},
    "stage": numbered("PF_STAGE_", abi.STAGES, end=True),
    "outcome": numbered("PF_OUTCOME_", (outcome.name for outcome in abi.OUTCOMES), end=True),
    "gil_state": numbered("PF_GIL_STATE_", (state.name for state in abi.GIL_STATES)),
    "native_outcome": numbered("PF_NATIVE_", (outcome.name for outcome in abi.NATIVE_OUTCOMES)),
    "frame_kind": {
        "PF_FRAME_KERNEL": abi.FRAME_KERNEL,
        "PF_FRAME_NATIVE": abi.FRAME_NATIVE,
        "PF_FRAME_PYTHON": abi.FRAME_PYTHON,
        "PF_FRAME_BOUNDARY": abi.FRAME_BOUNDARY,
    },
    "cfa_kind": numbered("PF_CFA_", (kind.name for kind in CfaKind)),
    "other_register": numbered("PF_OTHER_", (register.name for register in OtherRegister), end=True),
    "rbp_kind": numbered("PF_RBP_", (rule.name for rule in RbpKind)),
    "process_state": constants("PROCESS_"),
    "record_type": constants("RECORD_"),
    "counter": numbered("PF_COUNTER_", abi.COUNTERS, end=True),
}
ENUMS_OF_THE_PROGRAMS_ALONE = {"thread_state"}

MIRRORED_CONSTANTS = {
    "PF_OFFSET_NONE": OFFSET_NONE,
    "PF_FRAME_READ_MAX": debug_offsets.FRAME_READ_MAX,
    "PF_CODE_IDENTITY_SIZE": debug_offsets.CODE_IDENTITY_SIZE,
    "PF_MAX_LAYOUTS": abi.MAX_LAYOUTS,
    "PF_COMM_SIZE": abi.COMM_SIZE,
    "PF_FRAME_ENTRY": abi.FRAME_ENTRY,
    "PF_MAX_NATIVE_FRAMES": walk.FRAMES_MAX,
    "PF_MAPPINGS": abi.MAPPINGS,
    "PF_MAPPED_PROCESSES": abi.MAPPED_PROCESSES,
    "PF_UNWIND_CHUNK_ROWS": abi.UNWIND_CHUNK_ROWS,
    "PF_UNWIND_CHUNKS": abi.UNWIND_CHUNKS,
    "PF_UNWIND_CHUNKS_IN_ALL": abi.UNWIND_CHUNKS_IN_ALL,
    "PF_UNWIND_PAGES": abi.UNWIND_PAGES,
    "PF_BUDGET_WINDOW": abi.BUDGET_WINDOW,
    "PF_START_RESOLUTION": abi.START_RESOLUTION,
    "PF_CODE_NO_NAME": abi.CODE_NO_NAME,
    "PF_CODE_NO_FILE": abi.CODE_NO_FILE,
    "PF_CODE_NO_LINE_TABLE": abi.CODE_NO_LINE_TABLE,
}
CONSTANTS_OF_THE_PROGRAMS_ALONE = {
    "PF_TICK_LONGEST",
    "PF_TICKS_TOGETHER",
    "PF_THREAD_STATE_READ",
    "PF_MAX_KERNEL_FRAMES",
    "PF_MAX_PYTHON_FRAMES",
    "PF_STACK_FRAMES",
    "PF_SAVED_WORDS",
    "PF_STACK_COPY_MAX",
    "PF_STR_MAX",
    "PF_LINE_TABLE_MAX",
}


# ---- the header's text ----


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def blocks(keyword: str, text: str = HEADER) -> dict[str, str]:
    """Name → what is between the braces, of every struct or enum that is defined."""
    pattern = re.compile(rf"^{keyword} (\w+) \{{(.*?)^\}};", re.DOTALL | re.MULTILINE)
    return dict(pattern.findall(without_comments(text)))


def members(body: str) -> list[str]:
    """The names that a struct declares, whatever their types."""
    declared = [declaration.strip() for declaration in body.split(";") if declaration.strip()]
    return [re.sub(r"\[.*", "", declaration).split()[-1] for declaration in declared]


def enumerators(body: str) -> list[str]:
    return [part.split("=")[0].strip() for part in body.split(",") if part.strip()]


STRUCTS = {name: members(body) for name, body in blocks("struct").items()}
ENUMS = {name: enumerators(body) for name, body in blocks("enum").items()}
CONSTANTS = re.findall(r"^#define (PF_\w+) +\S", without_comments(HEADER), re.MULTILINE)
SOURCES = "".join(without_comments(file.read_text()) for file in sorted([*BPF.glob("*.h"), *BPF.glob("*.c")]))
ALL_ENUMS = {name: enumerators(body) for name, body in blocks("enum", SOURCES).items()}


# ---- what the compiler says ----


@dataclass(frozen=True)
class Compiled:
    """Sizes, {struct: {member: (offset, size)}} and the values of enumerators and constants."""

    sizes: dict[str, int]
    members: dict[str, dict[str, tuple[int, int]]]
    values: dict[str, int]


def probe_source() -> str:
    """A C program that prints one line for each struct, member and value."""
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "sample.h"', "int main(void) {"]
    for struct, names in STRUCTS.items():
        lines.append(f'printf("struct {struct} %zu\\n", sizeof(struct {struct}));')
        lines += [
            f'printf("member {struct} {name} %zu %zu\\n", offsetof(struct {struct}, {name}),'
            f" sizeof(((struct {struct} *)0)->{name}));"
            for name in names
        ]
    values = [name for names in ENUMS.values() for name in names] + CONSTANTS
    lines += [f'printf("value {name} %lld\\n", (long long)({name}));' for name in values]
    return "\n".join([*lines, "return 0; }"])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    directory = tmp_path_factory.mktemp("abi")
    (directory / "probe.c").write_text(probe_source())
    compile_ = ["gcc", "-Wall", "-Wextra", "-Wpadded", "-Werror", f"-I{BPF}", "-o", f"{directory}/probe"]
    subprocess.run([*compile_, f"{directory}/probe.c"], check=True)
    output = subprocess.run([f"{directory}/probe"], check=True, capture_output=True, text=True).stdout
    result = Compiled({}, {name: {} for name in STRUCTS}, {})
    for kind, name, *rest in map(str.split, output.splitlines()):
        if kind == "struct":
            result.sizes[name] = int(rest[0])
        elif kind == "member":
            result.members[name][rest[0]] = (int(rest[1]), int(rest[2]))
        else:
            result.values[name] = int(rest[0])
    return result


def test_every_struct_is_mirrored_or_private_to_the_programs() -> None:
    assert set(STRUCTS) == set(MIRRORED_STRUCTS) | STRUCTS_OF_THE_PROGRAMS_ALONE | ARRAYS


def test_every_enum_is_mirrored_or_private_to_the_programs() -> None:
    assert set(ENUMS) == set(MIRRORED_ENUMS) | ENUMS_OF_THE_PROGRAMS_ALONE


def test_every_constant_is_mirrored_or_private_to_the_programs() -> None:
    assert set(CONSTANTS) == set(MIRRORED_CONSTANTS) | CONSTANTS_OF_THE_PROGRAMS_ALONE


@pytest.mark.parametrize("name", MIRRORED_STRUCTS)
def test_struct_has_the_same_members_in_the_same_places(compiled: Compiled, name: str) -> None:
    mirror = MIRRORED_STRUCTS[name]
    places = {field[0]: (getattr(mirror, field[0]).offset, getattr(mirror, field[0]).size) for field in mirror._fields_}
    assert list(compiled.members[name].items()) == list(places.items())
    assert compiled.sizes[name] == ctypes.sizeof(mirror)


def test_unwind_rows_are_written_as_they_are_read(compiled: Compiled) -> None:
    places = {"start": (0, 2), "kind": (2, 1), "rbp_offset": (3, 1), "cfa_offset": (4, 4)}
    assert (compiled.members["unwind_row"], compiled.sizes["unwind_row"]) == (places, ROW.size)
    assert (ROW.format, ROW.size) == ("<HBbi", abi.UNWIND_ROW_SIZE)
    assert compiled.sizes["unwind_chunk"] == abi.UNWIND_CHUNK_ROWS * ROW.size
    assert abi.UNWIND_CHUNKS * abi.UNWIND_CHUNK_ROWS == ROWS_MAX
    assert PAGE_SHIFT == 12  # as the programs shift and mask


def test_mappings_are_written_as_they_are_read(compiled: Compiled) -> None:
    assert compiled.sizes["process_mappings"] == abi.MAPPINGS * ctypes.sizeof(abi.Mapping)
    assert abi.MAPPINGS & abi.MAPPINGS - 1 == 0  # the search halves it


def test_stack_has_room_for_the_longest_of_every_kind(compiled: Compiled) -> None:
    kinds = ("PF_MAX_KERNEL_FRAMES", "PF_MAX_PYTHON_FRAMES", "PF_MAX_NATIVE_FRAMES")
    assert sum(compiled.values[kind] for kind in kinds) <= compiled.values["PF_STACK_FRAMES"]


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_has_no_implicit_padding(compiled: Compiled, name: str) -> None:
    assert sum(size for _, size in compiled.members[name].values()) == compiled.sizes[name]


@pytest.mark.parametrize("name", MIRRORED_ENUMS)
def test_enum_has_the_same_names_and_values(compiled: Compiled, name: str) -> None:
    assert {enumerator: compiled.values[enumerator] for enumerator in ENUMS[name]} == MIRRORED_ENUMS[name]


@pytest.mark.parametrize("name", MIRRORED_CONSTANTS)
def test_constant_has_the_same_value(compiled: Compiled, name: str) -> None:
    assert compiled.values[name] == MIRRORED_CONSTANTS[name]


def test_every_outcome_that_a_program_can_give_has_a_name() -> None:
    assert set(abi.OUTCOMES) | {Outcome.STACK_LOST} == set(Outcome)
    assert set(abi.GIL_STATES) == set(Gil)
    assert set(abi.NATIVE_OUTCOMES) == set(NativeOutcome)


# ---- what else the programs and user space must agree on ----


def test_programs_are_defined_by_the_names_by_which_they_are_loaded() -> None:
    defined = re.findall(r"^int (\w+)\(struct \w+ \*ctx\)", SOURCES, re.MULTILINE)
    options = programs.SamplerOptions(99, follow_children=True)
    assert sorted(defined) == sorted([programs.TICK, *programs.STAGES, *options.tracepoints.values()])


def test_programs_that_take_long_to_verify_are_among_the_stages() -> None:
    assert set(programs.LONG_TO_VERIFY) < set(programs.STAGES)


def test_the_text_of_the_programs_is_all_of_their_files() -> None:
    assert sorted(PARTS) == sorted(file.name for file in BPF.glob("*.c"))


def test_every_kernel_offset_that_the_programs_use_is_given_to_the_compiler() -> None:
    used = set(re.findall(r"\bPF_(?:TASK|SIGNAL|MM|FILE|INODE|SUPER_BLOCK)_\w+", SOURCES))
    given = {*kernel_flags.KERNEL_OFFSETS, *STACK_OFFSETS, kernel_flags.TASK_PT_REGS}
    assert used == given


@pytest.mark.parametrize("name", ALL_ENUMS)
def test_enumerators_share_a_prefix_that_no_other_enum_has(name: str) -> None:
    words = zip(*(enumerator.split("_") for enumerator in ALL_ENUMS[name]), strict=False)
    prefix = [first for first, *rest in words if set(rest) == {first}]
    assert len(prefix) >= 2
    users = {other for other, names in ALL_ENUMS.items() for used in names if used.split("_")[: len(prefix)] == prefix}
    assert users == {name}


def test_count_key_is_unpacked_as_it_is_laid_out() -> None:
    key = abi.CountKey(raw_identity(IDENTITY), 2**63 + 1, 77, 6, 2, 1, 3)
    assert counts._count(bytes(key), 9) == events.Count(IDENTITY, 77, 2**63 + 1, 6, 2, True, 3, 9)


def values(structure: ctypes.Structure) -> list[object]:
    """What ctypes reads of each member, of structures inside it and of arrays in their places."""
    found: list[object] = []
    for name in (field[0] for field in structure._fields_):
        value = getattr(structure, name)
        if isinstance(value, ctypes.Structure):
            found += values(value)
        elif isinstance(value, ctypes.Array):
            found += list(value)
        else:
            found.append(value)
    return found


@pytest.mark.parametrize("mirror", MIRRORED_STRUCTS.values(), ids=MIRRORED_STRUCTS)
@pytest.mark.parametrize("filling", [b"\x01", b"\x7f", b"\xff"])
def test_packing_of_a_struct_reads_what_ctypes_reads(mirror: type[ctypes.Structure], filling: bytes) -> None:
    size = ctypes.sizeof(mirror)
    data = bytes((filling[0] + 7 * index) & 0xFF or 1 for index in range(size))
    packing = abi.packing_of(mirror)
    assert packing.size == size
    assert list(packing.unpack(data)) == values(mirror.from_buffer_copy(data))


@pytest.mark.parametrize("release", LAYOUTS)
def test_layout_survives_packing(release: tuple[int, int]) -> None:
    layout = LAYOUTS[release]
    packed = abi.pack_layout(layout)
    changed = {"frame_owner", "frame_owner_shim"} if layout.frame_owner == OFFSET_NONE else set()
    names = [name for name in abi.LAYOUT_FIELDS if name not in changed]
    assert {name: getattr(packed, name) for name in names} == {name: getattr(layout, name) for name in names}


def test_no_byte_is_an_owner_that_a_release_without_owners_would_skip() -> None:
    packed = abi.pack_layout(LAYOUTS[3, 6])
    assert (packed.frame_owner, packed.frame_owner_shim) == (0, 256)


def test_layout_fields_are_those_of_the_data_class() -> None:
    assert set(abi.LAYOUT_FIELDS) <= {field.name for field in fields(CPythonLayout)}


# ---- records ----

IDENTITY = Identity(start=123_456_789_012, tgid=4242, exec_id=3)


@pytest.mark.parametrize(("kind", "executed"), [(abi.RECORD_PROCESS, False), (abi.RECORD_EXEC, True)])
def test_process_record_becomes_an_event(kind: int, executed: bool) -> None:
    record = abi.ProcessRecord(
        kind, 1, raw_identity(IDENTITY), abi.FileKey(7, 8, 9), 0x400000, 0x1000, 0x2000, abi.PROCESS_PYTHON, 5, b"name"
    )
    assert events.parse_record(bytes(record)) == events.ProcessEvent(
        IDENTITY, 1, (7, 8, 9), 0x400000, 0x1000, 0x2000, abi.PROCESS_PYTHON, 5, "name", executed
    )


def test_thread_record_becomes_an_event() -> None:
    record = abi.ThreadRecord(abi.RECORD_THREAD, 4243, raw_identity(IDENTITY), "größer".encode())
    assert events.parse_record(bytes(record)) == events.ThreadEvent(IDENTITY, 4243, "größer")


def test_name_that_fills_all_of_its_bytes_is_whole() -> None:
    record = abi.ThreadRecord(abi.RECORD_THREAD, 1, raw_identity(IDENTITY), b"sixteen-bytes-xy")
    assert events.parse_record(bytes(record)) == events.ThreadEvent(IDENTITY, 1, "sixteen-bytes-xy")


def test_miss_record_becomes_an_event() -> None:
    record = abi.MissRecord(abi.RECORD_MISS, 5, raw_identity(IDENTITY), 2**47 - 1)
    assert events.parse_record(bytes(record)) == events.MissEvent(IDENTITY, 5, 2**47 - 1)


def test_stack_copy_becomes_an_event_with_registers_and_memory() -> None:
    record = abi.StackCopyRecord(abi.RECORD_STACK_COPY, 3, raw_identity(IDENTITY), 9, 2**47 - 8, 1, 2, 3)
    record.interrupted[14], record.exact, record.callee_exact = 4, 1, 0
    registers = Registers(1, 2, 3, (*[0] * 14, 4), exact=True, callee_exact=False)
    event = events.StackCopyEvent(IDENTITY, 9, registers, 2**47 - 8, b"abc")
    assert events.parse_record(bytes(record) + b"abc" + b"filling") == event


def test_exit_record_becomes_an_event() -> None:
    record = abi.ExitRecord(abi.RECORD_EXIT, 0, raw_identity(IDENTITY), 2**40, b"sh\xff")
    assert events.parse_record(bytes(record)) == events.ExitEvent(IDENTITY, 2**40, "sh\ufffd")


def test_stack_record_becomes_an_event_with_its_frames() -> None:
    frames = ((1 << 63, 0, 0, 0), (0x7F0000000000, 2**64 - 1, -2, 2), (5, 6, 2**31 - 1, 0x102), (7, 8, 0, 1))
    record = abi.StackRecord(abi.RECORD_STACK, len(frames), raw_identity(IDENTITY), 99, 1)
    raw = b"".join(bytes(abi.StackFrame(*frame)) for frame in frames)
    event = events.parse_record(bytes(record) + raw)
    assert event == events.StackEvent(IDENTITY, 99, True, raw)
    assert event.frames() == list(frames)


def test_code_record_becomes_an_event_with_its_parts() -> None:
    record = abi.CodeRecord(
        abi.RECORD_CODE, 2, raw_identity(IDENTITY), 11, 12, 13, 14, 15, 16, abi.CODE_NO_FILE, 4, 0, 5, 0
    )
    assert events.parse_record(bytes(record) + b"nametable") == events.CodeEvent(
        IDENTITY, 2, 11, 12, 13, 14, 15, 16, abi.CODE_NO_FILE, b"name", b"", b"table"
    )


def records_of_any_type(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes that begin with a type, most often one that exists."""
    return st.builds(lambda kind, rest: kind.to_bytes(4, "little") + rest, st.integers(0, 8), content)


@given(st.binary(max_size=400) | records_of_any_type(st.binary(max_size=400)))
def test_garbage_is_refused_with_value_error_or_key_error(data: bytes) -> None:
    try:
        event = events.parse_record(data)
    except (ValueError, KeyError):
        return
    assert isinstance(event, events.Event)


@given(st.integers(1, 2**32 - 1))
def test_stack_that_claims_more_frames_than_it_has_is_refused(frames: int) -> None:
    record = bytes(abi.StackRecord(abi.RECORD_STACK, frames, raw_identity(IDENTITY), 1))
    with pytest.raises(ValueError, match="cut short"):
        events.parse_record(record)
