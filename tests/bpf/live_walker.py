"""The walker headers, compiled by gcc, as Python functions."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pyflame_ebpf.cpython.interpreter import Interpreter
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.cpython.recipe import Recipe
from pyflame_ebpf.host import memory
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, Gil, NativeOutcome, Outcome, Process, Profile, Recording
from pyflame_ebpf.sampling import abi, events
from pyflame_ebpf.sampling.abi import raw_identity
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.naming import FrameNames
from pyflame_ebpf.stacks.profile_naming import ProfileNaming
from pyflame_ebpf.tracking.recipes import executable_entry
from tests.profiles import framed_stacks

HERE = Path(__file__).parent
BPF = HERE.parent.parent / "bpf"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")  # "unroll" is clang's
# The sources cast bytes to what they hold, as the kernel's own do, whose compiler is told the same.
GCC = ("gcc", "-O2", "-g", "-std=gnu11", *WARNINGS, "-fno-strict-aliasing", f"-I{BPF}")


def limit(name: str) -> int:
    """A number that the programs alone know."""
    found = re.search(rf"^#define {name} +(\d+)", (BPF / "sample.h").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


STACK_FRAMES = limit("PF_STACK_FRAMES")
MAX_FRAMES = limit("PF_MAX_PYTHON_FRAMES")
SEARCH_DONE = 0  # PF_SEARCH_DONE
NO_NATIVE = abi.NATIVE_OUTCOMES.index(NativeOutcome.NONE)
U64 = ctypes.c_uint64


class Search(ctypes.Structure):
    """``struct cpython_search``."""

    _fields_ = (
        ("interpreter", U64),
        ("thread_state", U64),
        ("found", U64),
        ("matches", ctypes.c_uint32),
        ("found_active", ctypes.c_uint32),
    )


class Walk(ctypes.Structure):
    """``struct cpython_walk``."""

    _fields_ = tuple(
        (name, U64) for name in ("frame", "process", "hash", "depth", "end", "outcome", "first", "first_hash")
    )


def compile_harness(directory: Path) -> ctypes.CDLL:
    """The harness as a library in ``directory``."""
    library = directory / "harness.so"
    subprocess.run([*GCC, "-fPIC", "-shared", "-o", library, HERE / "harness.c"], check=True)
    harness = ctypes.CDLL(str(library))
    harness.harness_copy_code.restype = U64
    return harness


def compile_fuzzer(directory: Path) -> Path:
    """A program that walks made-up memory, with every sanitizer but the one for alignment, which BPF does not need."""
    program = directory / "fuzz"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=all"]
    subprocess.run([*GCC, *sanitize, "-o", program, HERE / "fuzz.c"], check=True)
    return program


@dataclass(frozen=True)
class WalkedStack:
    """What one walk gave: ``frames`` leaf first, boundaries among them, as the walker has them."""

    outcome: Outcome
    stack_id: int
    frames: tuple[abi.StackFrame, ...]

    @property
    def python(self) -> tuple[abi.StackFrame, ...]:
        """The frames without the boundaries."""
        return tuple(frame for frame in self.frames if frame.kind & abi.FRAME_KIND == abi.FRAME_PYTHON)


def walk_with(function: Callable[..., int], layout: abi.Layout, *start: U64) -> WalkedStack:
    """What one of the harness's walks gives; it must not be cut short by the limit of tail calls."""
    walk, frames = Walk(), (abi.StackFrame * STACK_FRAMES)()
    result = function(ctypes.byref(layout), *start, ctypes.byref(walk), frames)
    assert result == 0  # 1: not done in one sample; -1: no such thread state
    return WalkedStack(abi.OUTCOMES[walk.outcome], walk.hash, tuple(frames[: walk.depth]))


class LiveWalker:
    """Walks the threads of one process as the BPF programs would; ``identity`` is made up."""

    def __init__(self, harness: ctypes.CDLL, pid: int, interpreter: Interpreter) -> None:
        self._library = harness
        self._layout = abi.pack_layout(interpreter.layout)
        self._payload = (ctypes.c_char * harness.harness_code_payload())()
        self.pid = pid
        self.interpreter = interpreter
        self.identity = Identity(1, pid, 1)

    @property
    def _harness(self) -> ctypes.CDLL:
        """The library, which from here on reads this process."""
        self._library.harness_use_process(self.pid)
        return self._library

    @property
    def layout(self) -> CPythonLayout:
        """Where this interpreter keeps things."""
        return self.interpreter.layout

    def find_thread(self, thread_pointer: int) -> Search:
        """The thread's newest thread state, by the interpreters' lists."""
        search = Search()
        head = U64(self.interpreter.interpreters_head)
        result = self._harness.harness_find_thread(
            ctypes.byref(self._layout), head, U64(thread_pointer), ctypes.byref(search)
        )
        assert result == SEARCH_DONE
        return search

    def is_known(self, thread_state: int, thread_pointer: int) -> bool:
        """Whether a thread state that was found before may be used without a search."""
        return bool(self._harness.harness_is_known(ctypes.byref(self._layout), U64(thread_state), U64(thread_pointer)))

    def gil(self, thread_pointer: int) -> Gil:
        """Whether the thread holds the GIL."""
        thread_state = self.find_thread(thread_pointer).found
        state = self._harness.harness_gil_state(
            ctypes.byref(self._layout), U64(thread_state), U64(thread_pointer), U64(self.interpreter.tstate_current)
        )
        return abi.GIL_STATES[state]

    def walk(self, thread_pointer: int) -> WalkedStack:
        """The Python stack of a thread."""
        thread_state = self.find_thread(thread_pointer).found
        start = (U64(thread_state), U64(thread_pointer), U64(self.pid))
        return walk_with(self._harness.harness_walk, self._layout, *start)

    def walk_from(self, frame: int) -> WalkedStack:
        """The stack from a frame on, wherever that leads."""
        return walk_with(self._harness.harness_walk_from, self._layout, U64(frame), U64(self.pid))

    def identify(self, recipe: Recipe, start_code: int) -> tuple[int, int] | None:
        """(interpreters_head, tstate_current) as the programs find them by themselves; None when they do not."""
        entry = abi.ProcessEntry()
        recipe_entry = executable_entry(recipe, 7)
        if self._harness.harness_identify(ctypes.byref(recipe_entry), U64(start_code), ctypes.byref(entry)):
            return None
        assert (entry.state, entry.layout) == (abi.PROCESS_PYTHON, 7)
        return entry.interpreters_head, entry.tstate_current

    def code_record(self, frame: abi.StackFrame) -> bytes:
        """What the programs would put on the ring buffer for a frame's code object."""
        record = abi.CodeRecord(abi.RECORD_CODE, 0, raw_identity(self.identity), frame.code_id)
        size = self._harness.harness_copy_code(
            ctypes.byref(self._layout), U64(frame.address), ctypes.byref(record), self._payload
        )
        return bytes(record) + bytes(self._payload.raw[:size])

    def stack_record(self, stack: WalkedStack) -> bytes:
        """What the programs would put on the ring buffer for a stack."""
        record = abi.StackRecord(abi.RECORD_STACK, len(stack.frames), raw_identity(self.identity), stack.stack_id)
        return bytes(record) + b"".join(bytes(frame) for frame in stack.frames)

    def profile(self, stack: WalkedStack) -> Profile:
        """The stack named, by way of its records."""
        collected = Collected(self._read)
        for frame in {frame.code_id: frame for frame in stack.python}.values():
            code = events.parse_record(self.code_record(frame))
            assert isinstance(code, events.CodeEvent)
            collected.add_code(code, self.layout)
        event = events.parse_record(self.stack_record(stack))
        assert isinstance(event, events.StackEvent)
        collected.add_stack(event, self.layout)
        outcome = abi.OUTCOMES.index(stack.outcome)
        segment = collected.kept.begin_segment(0.0)
        collected.add_counts(0, [Count(self.identity, self.pid, stack.stack_id, outcome, 0, False, NO_NATIVE, 1)])
        process = Process(self.pid, "target", interpreter=self.interpreter.name)
        naming = ProfileNaming(collected, FrameNames(collected.codes, _no_native_frame, _no_kernel_frame))
        return naming.profile([segment], Recording(0.0, 1.0, 99, 1), {self.identity: process})

    def named(self, stack: WalkedStack) -> list[list[object]]:
        """The stack as [name, file, first line, executing line], outermost first."""
        (frames,) = framed_stacks(self.profile(stack))
        return [[frame.name, frame.file, frame.first_line, frame.line] for frame in frames]

    def _read(self, identity: Identity, address: int, size: int) -> bytes:
        assert identity == self.identity
        return memory.read_memory(self.pid, address, size)


def _no_native_frame(identity: Identity, address: int) -> None:
    raise AssertionError(f"{address:#x} is a native frame")


def _no_kernel_frame(address: int) -> Frame:
    raise AssertionError(f"{address:#x} is a kernel frame")


class MadeUpMemory:
    """Memory that a test writes itself, for a layout; everything else in it is 0."""

    SIZE = 1 << 20

    def __init__(self, harness: ctypes.CDLL, layout: CPythonLayout) -> None:
        self._harness = harness
        self._packed = abi.pack_layout(layout)
        self._bytes = (ctypes.c_char * self.SIZE)()
        self._end = self.SIZE // 2  # thread states lie in the upper half
        self.layout = layout
        self.thread_states: dict[int, int] = {}
        self.newest_thread_states: dict[int, int] = {}
        harness.harness_use_bytes(self._bytes, U64(self.SIZE), 0)

    def put(self, address: int, value: int) -> None:
        """An 8-byte word."""
        struct.pack_into("<Q", self._bytes, address, value)

    def put_frame(self, address: int, code: int, back: int = 0) -> None:
        """A frame of a code object, called by another."""
        self.put(address + self.layout.frame_code, code)
        self.put(address + self.layout.frame_previous, back)

    def put_interpreter(self, address: int, following: int, thread_ids: Iterable[int]) -> None:
        """An interpreter state and its thread states, in the order of its list."""
        self.put(address + self.layout.interp_next, following)
        link = address + self.layout.interp_threads_head
        for thread_id in thread_ids:
            state, self._end = self._end, self._end + 256
            self.put(link, state)
            self.put(state + self.layout.tstate_thread_id, thread_id)
            self.thread_states[thread_id] = state
            self.newest_thread_states.setdefault(thread_id, state)
            link = state + self.layout.tstate_next

    def find_thread(self, interpreters_head: int, thread_pointer: int) -> Search:
        """The thread's newest thread state."""
        search = Search()
        result = self._harness.harness_find_thread(
            ctypes.byref(self._packed), U64(interpreters_head), U64(thread_pointer), ctypes.byref(search)
        )
        assert result == SEARCH_DONE
        return search

    def walk(self, frame: int) -> WalkedStack:
        """The stack from a frame on."""
        return walk_with(self._harness.harness_walk_from, self._packed, U64(frame), U64(1))
