"""What the programs tell user space: the records of the ring buffers as values."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.abi import (
    FRAME_KIND,
    FRAME_NATIVE,
    FRAME_PYTHON,
    RECORD_CODE,
    RECORD_EXEC,
    RECORD_EXIT,
    RECORD_MISS,
    RECORD_PROCESS,
    RECORD_STACK,
    RECORD_STACK_COPY,
    RECORD_THREAD,
    CodeRecord,
    ExitRecord,
    MissRecord,
    ProcessRecord,
    StackCopyRecord,
    StackFrame,
    StackRecord,
    ThreadRecord,
    packing_of,
    read_identity,
)
from pyflame_ebpf.unwind.registers import Registers


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """A process was met for the first time, or (``executed``) has begun to run another program."""

    identity: Identity
    parent: int
    executable: tuple[int, int, int]  # inode, device, lower half of the size
    start_code: int  # 0: kernel thread
    interpreters_head: int
    tstate_current: int
    state: int
    layout: int
    name: str
    executed: bool


@dataclass(frozen=True, slots=True)
class ThreadEvent:
    """A thread was met for the first time."""

    identity: Identity
    tid: int
    name: str


@dataclass(frozen=True, slots=True)
class MissEvent:
    """The native walk met an address without a mapping (``file`` is 0), or a page of a file without rows."""

    identity: Identity
    file: int
    address: int  # in the process, or page number in the image


@dataclass(frozen=True, slots=True)
class ExitEvent:
    """A process has ended; ``cpu`` in ns of all of its threads."""

    identity: Identity
    cpu: int
    name: str


RawFrame = tuple[int, int, int, int]  # address, code id or CFA, position, kind: struct stack_frame


@dataclass(frozen=True, slots=True)
class StackEvent:
    """A stack was met for the first time; ``raw`` is its array of ``struct stack_frame``, leaf first.

    ``unsent``: some of its code objects may not have been sent.
    """

    identity: Identity
    stack_id: int
    unsent: bool
    raw: bytes

    def frames(self) -> list[RawFrame]:
        """The frames, leaf first."""
        return list(_FRAME.iter_unpack(self.raw))

    def codes(self) -> set[int]:
        """The ids of the code objects of its Python frames."""
        return {code for _, code, _, kind in _FRAME.iter_unpack(self.raw) if kind & FRAME_KIND == FRAME_PYTHON}

    def continued(self, native: bytes) -> StackEvent:
        """The stack with native frames that were found later, an array of ``struct stack_frame``.

        The first of them replaces the last frame if both have the same address, since that one had no end yet.
        """
        return replace(self, raw=self.raw[: -_FRAME.size] + native if self._ends_with(native) else self.raw + native)

    def _ends_with(self, native: bytes) -> bool:
        """Whether the last frame is the same as the first of these."""
        if not self.raw or not native:
            return False
        address, _, _, kind = _FRAME.unpack_from(self.raw, len(self.raw) - _FRAME.size)
        return (address, kind) == (_FRAME.unpack_from(native)[0], FRAME_NATIVE)


@dataclass(frozen=True, slots=True)
class CodeEvent:
    """A code object as the programs copied it; parts that they could not copy are empty, but have their addresses."""

    identity: Identity
    layout: int
    code_id: int
    address: int
    name_address: int
    file_address: int
    line_table_address: int
    first_line: int
    missing: int
    name: bytes
    file: bytes
    line_table: bytes


@dataclass(frozen=True, slots=True)
class StackCopyEvent:
    """Memory of a stack whose native walk stopped at ``registers`` for lack of a mapping or of rows.

    ``memory`` begins at address ``start``.  One stack may have several events, each beginning where the last ended.
    """

    identity: Identity
    stack_id: int
    registers: Registers
    start: int
    memory: bytes


@dataclass(frozen=True, slots=True)
class Count:
    """Samples that were counted together; ``outcome``, ``gil``, ``native`` are indices into abi's tuples."""

    identity: Identity
    tid: int
    stack_id: int
    outcome: int
    gil: int
    kernel_mode: bool
    native: int
    samples: int


Event = ProcessEvent | ThreadEvent | ExitEvent | StackEvent | CodeEvent | MissEvent | StackCopyEvent


# These two are read for every new stack.
_STACK = packing_of(StackRecord)
_FRAME = packing_of(StackFrame)


def native_frames(frames: Iterable[tuple[int, int]]) -> bytes:
    """Native frames, given as (address, end of the frame (CFA)), as an array of ``struct stack_frame``."""
    return b"".join([_FRAME.pack(address, end, 0, FRAME_NATIVE) for address, end in frames])


def _text(comm: bytes) -> str:
    return comm.decode("utf-8", "replace")


def _process(data: bytes) -> ProcessEvent:
    record = ProcessRecord.from_buffer_copy(data)
    file = record.executable
    return ProcessEvent(
        read_identity(record.identity),
        record.parent,
        (file.inode, file.device, file.size),
        record.start_code,
        record.interpreters_head,
        record.tstate_current,
        record.state,
        record.layout,
        _text(record.comm),
        record.type == RECORD_EXEC,
    )


def _thread(data: bytes) -> ThreadEvent:
    record = ThreadRecord.from_buffer_copy(data)
    return ThreadEvent(read_identity(record.identity), record.tid, _text(record.comm))


def _miss(data: bytes) -> MissEvent:
    record = MissRecord.from_buffer_copy(data)
    return MissEvent(read_identity(record.identity), record.file, record.address)


def _exit(data: bytes) -> ExitEvent:
    record = ExitRecord.from_buffer_copy(data)
    return ExitEvent(read_identity(record.identity), record.cpu, _text(record.comm))


def _stack(data: bytes) -> StackEvent:
    _, frames, start, tgid, exec_id, stack_id, unsent, _ = _STACK.unpack_from(data)
    raw = data[_STACK.size : _STACK.size + frames * _FRAME.size]
    if len(raw) != frames * _FRAME.size:
        raise ValueError("a stack record is cut short")
    return StackEvent(Identity(start, tgid, exec_id), stack_id, bool(unsent), raw)


def _code(data: bytes) -> CodeEvent:
    record = CodeRecord.from_buffer_copy(data)
    name_end = ctypes.sizeof(CodeRecord) + record.name_size
    file_end = name_end + record.file_size
    return CodeEvent(
        read_identity(record.identity),
        record.layout,
        record.code_id,
        record.address,
        record.name,
        record.file,
        record.line_table,
        record.first_line,
        record.missing,
        data[ctypes.sizeof(CodeRecord) : name_end],
        data[name_end:file_end],
        data[file_end : file_end + record.line_table_size],
    )


def _stack_copy(data: bytes) -> StackCopyEvent:
    record = StackCopyRecord.from_buffer_copy(data)
    return StackCopyEvent(
        read_identity(record.identity),
        record.stack_id,
        Registers(
            record.ip,
            record.sp,
            record.bp,
            tuple(record.interrupted),
            bool(record.exact),
            bool(record.callee_exact),
        ),
        record.start,
        data[ctypes.sizeof(StackCopyRecord) : ctypes.sizeof(StackCopyRecord) + record.size],
    )


_PARSERS: dict[int, Callable[[bytes], Event]] = {
    RECORD_PROCESS: _process,
    RECORD_EXEC: _process,
    RECORD_THREAD: _thread,
    RECORD_EXIT: _exit,
    RECORD_MISS: _miss,
    RECORD_STACK: _stack,
    RECORD_CODE: _code,
    RECORD_STACK_COPY: _stack_copy,
}


def parse_record(data: bytes) -> Event:
    """One ring-buffer record as an event.  Raises ValueError or KeyError on bytes that the programs never write."""
    try:
        return _PARSERS[int.from_bytes(data[:4], "little")](data)
    except struct.error as error:
        raise ValueError(str(error)) from error
