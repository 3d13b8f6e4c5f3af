"""Records as the programs send them, of a made-up process, and what that process has in its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, FrameKind, Gil, NativeOutcome, Outcome, Process, Profile, Recording, Stack
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import CodeEvent, Count, RawFrame, StackEvent, native_frames
from pyflame_ebpf.stacks.code_table import ReadMemory
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.naming import FrameNames, NameAddress
from pyflame_ebpf.stacks.profile_naming import ExpectAddresses, ProfileNaming
from tests.profiles import framed_stacks

LAYOUT = LAYOUTS[3, 9]
IDENTITY = Identity(start=10**9, tgid=4242, exec_id=1)
OTHER = Identity(start=2 * 10**9, tgid=17, exec_id=0)
RECORDING = Recording(started=0.0, duration=2.0, frequency=99, cpus=4)
PYTHON = Process(4242, "app", interpreter="CPython 3.9.18")
NOT_PYTHON = Process(4242, "nginx")

CODE_ID, CODE_ADDRESS, STACK_ID = 0x1001, 0x7F0000001000, 77
NAME_ADDRESS, FILE_ADDRESS, TABLE_ADDRESS = 0x7F0000002000, 0x7F0000003000, 0x7F0000004000
LINES = bytes([0, 1, 4, 2])  # co_lnotab: the second line from byte 0, the fourth from byte 4
EVERYTHING = abi.CODE_NO_NAME | abi.CODE_NO_FILE | abi.CODE_NO_LINE_TABLE

LOOP, GREENLET, CARRIER = 0x100, 0x200, 0x300
NATIVE_NAMES = {LOOP: "_PyEval_EvalFrameDefault", GREENLET: "g_initialstub", CARRIER: "type_call"}
NO_CODE = 0x10000  # from here on nothing is mapped


# ---- the process's memory ----


def str_object(text: str, layout: CPythonLayout = LAYOUT) -> bytes:
    """A compact str object as the interpreter makes it (PEP 393)."""
    largest = max(map(ord, text), default=0)
    kind = 1 if largest < 0x100 else 2 if largest < 0x10000 else 4
    is_ascii = largest < 0x80
    header = bytearray(layout.str_ascii_data if is_ascii else layout.str_compact_data)
    header[layout.str_length : layout.str_length + 8] = len(text).to_bytes(8, "little")
    header[layout.str_state] = (
        kind << layout.str_kind_shift | 1 << layout.str_compact_shift | is_ascii << layout.str_ascii_shift
    )
    return bytes(header) + b"".join(ord(character).to_bytes(kind, "little") for character in text)


def bytes_object(contents: bytes) -> bytes:
    """A bytes object as the interpreter makes it."""
    header = bytearray(LAYOUT.bytes_value)
    header[LAYOUT.bytes_size : LAYOUT.bytes_size + 8] = len(contents).to_bytes(8, "little")
    return bytes(header) + contents


def code_object(first_line: int) -> bytes:
    """A code object that points at the name, the file and the line table."""
    memory = bytearray(b"\xff" * 256)
    for offset, value, size in (
        (LAYOUT.code_name, NAME_ADDRESS, 8),
        (LAYOUT.code_filename, FILE_ADDRESS, 8),
        (LAYOUT.code_line_table, TABLE_ADDRESS, 8),
        (LAYOUT.code_first_line, first_line, 4),
    ):
        memory[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(memory)


class FakeMemory:
    """Objects by address, padded as by what lies behind them; ``reads`` counts the calls."""

    def __init__(self, objects: Mapping[int, bytes] | None = None) -> None:
        self._objects = {address: contents + bytes(64) for address, contents in (objects or {}).items()}
        self.reads = 0

    def read(self, identity: Identity, address: int, size: int) -> bytes:
        """Read as ``ReadMemory`` does."""
        self.reads += 1
        assert identity == IDENTITY
        for start, contents in self._objects.items():
            if start <= address and address + size <= start + len(contents):
                return contents[address - start : address - start + size]
        return b""


WHOLE = {
    CODE_ADDRESS: code_object(10),
    NAME_ADDRESS: str_object("parse"),
    FILE_ADDRESS: str_object("app.py"),
    TABLE_ADDRESS: bytes_object(LINES),
}


# ---- records ----


def code_event(
    missing: int = 0, *, name: str = "parse", code_id: int = CODE_ID, identity: Identity = IDENTITY
) -> CodeEvent:
    """``def parse`` at app.py:10, of which parts may be missing."""
    return CodeEvent(
        identity=identity,
        layout=0,
        code_id=code_id,
        address=CODE_ADDRESS,
        name_address=NAME_ADDRESS,
        file_address=FILE_ADDRESS,
        line_table_address=TABLE_ADDRESS,
        first_line=10,
        missing=missing,
        name=b"" if missing & abi.CODE_NO_NAME else str_object(name),
        file=b"" if missing & abi.CODE_NO_FILE else str_object("app.py"),
        line_table=b"" if missing & abi.CODE_NO_LINE_TABLE else LINES,
    )


def python_frame(position: int = 0, code_id: int = CODE_ID) -> RawFrame:
    """A frame of ``parse`` at a position in bytes."""
    return CODE_ADDRESS, code_id, position, abi.FRAME_PYTHON


def entry_frame(position: int = 0) -> RawFrame:
    """The outermost frame of a call of the evaluation loop, as releases before 3.12 mark it."""
    return CODE_ADDRESS, CODE_ID, position, abi.FRAME_PYTHON | abi.FRAME_ENTRY


def boundary(place: int) -> RawFrame:
    """The frame that stands for a call of the evaluation loop, from 3.12 on, at its place on the C stack."""
    return place, 0, 0, abi.FRAME_BOUNDARY


def native_frame(address: int, end: int = 0) -> RawFrame:
    """A native frame, which ends there on the C stack."""
    return address, end, 0, abi.FRAME_NATIVE


def kernel_frame(address: int) -> RawFrame:
    """A frame of the kernel."""
    return address, 0, 0, abi.FRAME_KERNEL


def stack_event(
    *frames: RawFrame, stack_id: int = STACK_ID, unsent: bool = False, identity: Identity = IDENTITY
) -> StackEvent:
    """A stack, leaf first."""
    return StackEvent(identity, stack_id, unsent, b"".join(bytes(abi.StackFrame(*frame)) for frame in frames))


COUNT = Count(
    identity=IDENTITY,
    tid=4242,
    stack_id=STACK_ID,
    outcome=abi.OUTCOMES.index(Outcome.COMPLETE),
    gil=abi.GIL_STATES.index(Gil.HELD),
    kernel_mode=False,
    native=abi.NATIVE_OUTCOMES.index(NativeOutcome.NONE),
    samples=1,
)


def count(
    outcome: Outcome = Outcome.COMPLETE,
    samples: int = 1,
    *,
    stack_id: int = STACK_ID,
    tid: int = 4242,
    native: NativeOutcome = NativeOutcome.NONE,
) -> Count:
    """Samples of a stack that were counted together."""
    return replace(
        COUNT,
        outcome=abi.OUTCOMES.index(outcome),
        samples=samples,
        stack_id=stack_id,
        tid=tid,
        native=abi.NATIVE_OUTCOMES.index(native),
    )


PROCESSES = [Identity(10**9 + number, 1000 + number, number % 2) for number in range(7)]


def deep_stack(number: int, depth: int = 30, process: Identity | None = None) -> StackEvent:
    """A native stack whose leaf is its own, and whose callers are those of its process, one of ``PROCESSES``."""
    identity = process or PROCESSES[number % len(PROCESSES)]
    frames = [(0x5000 + number * 16, 0x7FFC000), *((identity.tgid << 20 | at, 0x7FFD000 + at) for at in range(depth))]
    return StackEvent(identity, 1 << 63 | number, number % 3 == 0, native_frames(frames))


def count_of(event: StackEvent, samples: int = 1) -> Count:
    """Samples of this stack."""
    return Count(event.identity, event.identity.tgid, event.stack_id, 0, 1, True, 2, samples)


# ---- names ----


def parse_at(line: int) -> Frame:
    """The named frame of ``parse`` at a line."""
    return Frame(FrameKind.PYTHON, "parse", "app.py", 10, line)


def native(name: str, *, plumbing: bool = False) -> Frame:
    """A named native frame."""
    return Frame(FrameKind.NATIVE, name, plumbing=plumbing)


def name_address(_identity: Identity, address: int) -> Frame | None:
    """Names a native address as ``NameAddress`` does."""
    if address >= NO_CODE:
        return None
    return native(NATIVE_NAMES.get(address, f"native_{address:x}"), plumbing=address in (LOOP, CARRIER))


def name_kernel_address(address: int) -> Frame:
    """Names a kernel address."""
    return Frame(FrameKind.KERNEL, f"kernel_{address:x}")


class Sampled:
    """One segment of samples, fed by hand, and their naming."""

    def __init__(
        self,
        read: ReadMemory | None = None,
        name: NameAddress = name_address,
        *,
        limit: int | None = None,
        expect: ExpectAddresses = lambda _identity, _addresses: None,
    ) -> None:
        self.collected = Collected(read or FakeMemory().read, limit)
        self.names = FrameNames(self.collected.codes, name, name_kernel_address)
        self.naming = ProfileNaming(self.collected, self.names, expect)
        self.segment = self.collected.kept.begin_segment(0.0)

    def add_parse(self, *, code_id: int = CODE_ID) -> None:
        """The code object ``parse`` came."""
        self.collected.add_code(code_event(code_id=code_id), LAYOUT)

    def add_stack(self, *frames: RawFrame, stack_id: int = STACK_ID, unsent: bool = False) -> None:
        """A stack came, leaf first."""
        self.collected.add_stack(stack_event(*frames, stack_id=stack_id, unsent=unsent), LAYOUT)

    def add_counts(self, second: int, *counts: Count) -> None:
        """Samples of a second were counted."""
        self.collected.add_counts(second, list(counts))

    def next_segment(self, begin: float) -> None:
        """Begin another segment."""
        self.segment.end = begin
        self.segment = self.collected.kept.begin_segment(begin)

    def profile(self, process: Process = PYTHON) -> Profile:
        """All that is kept."""
        return self.naming.profile(self.collected.kept.segments, RECORDING, {IDENTITY: process})

    def stack(
        self,
        outcome: Outcome = Outcome.COMPLETE,
        process: Process = PYTHON,
        native: NativeOutcome = NativeOutcome.NONE,
    ) -> Stack:
        """The frames of the only stack of the profile, after one sample of it."""
        self.add_counts(0, count(outcome, native=native))
        (stack,) = framed_stacks(self.profile(process))
        return stack


def shown(stack: Stack) -> list[str | int]:
    """Native names and Python lines of what is not plumbing, outermost first."""
    return [frame.line or frame.name for frame in stack if not frame.plumbing]
