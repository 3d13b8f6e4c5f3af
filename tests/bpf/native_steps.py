"""The native steps of the BPF programs, compiled by gcc, over pages of memory that a test makes up."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from pyflame_ebpf.profile.model import NativeOutcome
from pyflame_ebpf.sampling.abi import NATIVE_OUTCOMES
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import FRAME_POINTER_BODY, ROW, UnwindRow
from pyflame_ebpf.unwind.walk import NativeFrame, RowAt, StackMemory, WalkStopped
from pyflame_ebpf.unwind.x86_64 import OtherRegister

PAGE = 4096
STEP_CALLER = 0  # PF_STEP_CALLER
U64 = ctypes.c_uint64


class NativeFrameOfHarness(ctypes.Structure):
    """``struct native_frame`` of harness.c."""

    _fields_ = (
        *((name, U64) for name in ("ip", "sp", "bp", "exact", "callee_exact")),
        ("interrupted", U64 * len(OtherRegister)),
        ("file", U64),
        ("row", ctypes.c_char * ROW.size),
        ("outcome", U64),
        ("end", U64),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to: the caller's registers, or why there are none; ``end`` of the frame, 0: unknown."""

    caller: Registers | None
    outcome: NativeOutcome | None
    end: int


class PagedMemory(StackMemory):
    """Pages from ``start`` on, of which some are absent."""

    __slots__ = ("parts", "present")
    parts: list[StackMemory]
    present: bytes

    def __init__(self, start: int, data: bytes, present: Sequence[bool]) -> None:
        super().__init__(start, data)
        object.__setattr__(self, "present", bytes(present))
        object.__setattr__(self, "parts", self._present_parts())

    def _present_parts(self) -> list[StackMemory]:
        """Memory without gaps, each part as long as it can be."""
        parts: list[StackMemory] = []
        for index, is_present in enumerate(self.present):
            page = self.data[index * PAGE : (index + 1) * PAGE]
            if is_present and index and self.present[index - 1]:
                parts[-1] = StackMemory(parts[-1].start, parts[-1].data + page)
            elif is_present:
                parts.append(StackMemory(self.start + index * PAGE, page))
        return parts

    def word(self, address: int) -> int:
        """As a copy of the stack gives it that holds the pages around the address."""
        address %= 1 << 64
        for part in self.parts:
            if part.start <= address <= part.start + len(part.data) - 8:
                return part.word(address)
        return StackMemory(self.start, b"").word(address)


def row_body(row: UnwindRow | None) -> bytes:
    """The row as the programs have it; code without unwind data has the one for frame pointers."""
    if row is None:
        return bytes(2) + FRAME_POINTER_BODY
    return ROW.pack(row.start, row.cfa | row.rbp << 4, row.rbp_offset, row.cfa_offset)


class NativeSteps:
    """Steps of ``bpf/native_stack.h`` over one memory."""

    def __init__(self, harness: ctypes.CDLL, memory: PagedMemory) -> None:
        self._harness = harness
        self._memory = memory  # which the harness reads
        harness.harness_use_pages(memory.data, U64(memory.start), U64(len(memory.data)), memory.present)

    def step(self, at: Registers, row: UnwindRow | None) -> Step:
        """From a frame to its caller."""
        frame = NativeFrameOfHarness(at.ip, at.sp, at.bp, at.exact, at.callee_exact)
        frame.interrupted = (U64 * len(OtherRegister))(*at.interrupted)
        frame.file = int(row is not None)
        ctypes.memmove(ctypes.addressof(frame) + NativeFrameOfHarness.row.offset, row_body(row), ROW.size)
        if self._harness.harness_native_step(ctypes.byref(frame)) != STEP_CALLER:
            return Step(None, NATIVE_OUTCOMES[frame.outcome], frame.end)
        exact, callee_exact = bool(frame.exact), bool(frame.callee_exact)
        caller = Registers(frame.ip, frame.sp, frame.bp, tuple(frame.interrupted), exact, callee_exact)
        return Step(caller, None, frame.end)

    def walk(self, at: Registers, row_at: RowAt, frames_max: int) -> tuple[list[NativeFrame], NativeOutcome]:
        """The frames that the programs would send, and how their walk would end; at most so many."""
        frames: list[NativeFrame] = []
        while len(frames) < frames_max:
            address = at.ip - 1 + at.exact
            try:
                row = row_at(address)
            except WalkStopped as stopped:
                return [*frames, (address, 0)], stopped.outcome
            step = self.step(at, row)
            frames.append((address, step.end))
            if step.caller is None:
                assert step.outcome
                return frames, step.outcome
            at = step.caller
        return frames, NativeOutcome.TOO_DEEP
