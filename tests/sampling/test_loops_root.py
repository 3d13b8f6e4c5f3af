"""Loops of the compiled programs as Linux 5.10 wants them, checked without that kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from pyflame_ebpf.recording.host_lock import only_one_profiler
from pyflame_ebpf.sampling.abi import STAGES
from pyflame_ebpf.sampling.programs import Programs, SamplerOptions
from tests.command_line import wait_for_other_recordings

pytestmark = pytest.mark.root

# linux/bpf.h: instruction classes, and the operations of jumps
CLASS, JUMP, JUMP_32 = 0x07, 0x05, 0x06
OPERATION, ALWAYS, CALL, EXIT = 0xF0, 0x00, 0x80, 0x90
INSTRUCTION = struct.Struct("<BBhi")  # operation, registers, offset, number


def successors(code: int, at: int, offset: int) -> list[tuple[int, bool]]:
    """Where control may go from an instruction, in the kernel's order, and whether a loop may close that way."""
    if code & CLASS not in (JUMP, JUMP_32) or code & OPERATION == CALL:
        return [(at + 1, False)]
    if code & OPERATION == EXIT:
        return []
    if code & OPERATION == ALWAYS and code & CLASS == JUMP:
        return [(at + 1 + offset, True)]
    return [(at + 1, True), (at + 1 + offset, True)]


def refused_edges(program: bytes) -> list[tuple[int, int]]:
    """The edges that the depth-first search of check_cfg (kernel/bpf/verifier.c of 5.10) reports as back-edges."""
    following = [
        successors(code, at, offset) for at, (code, _, offset, _) in enumerate(INSTRUCTION.iter_unpack(program))
    ]
    on_path, done = {0}, set[int]()
    path: list[tuple[int, Iterator[tuple[int, bool]]]] = [(0, iter(following[0]))]
    refused = []
    while path:
        at, left = path[-1]
        step = next(left, None)
        if step is None:
            path.pop()
            on_path.discard(at)
            done.add(at)
        elif step[0] in on_path:
            refused += [] if step[1] else [(at, step[0])]
        elif step[0] not in done:
            on_path.add(step[0])
            path.append((step[0], iter(following[step[0]])))
    return refused


def test_a_loop_that_runs_on_into_its_beginning_is_told() -> None:
    to_branch, to_plain = INSTRUCTION.pack(JUMP, 0, -2, 0), INSTRUCTION.pack(JUMP, 0, -3, 0)
    plain = INSTRUCTION.pack(0xB7, 0, 0, 0)  # r0 = 0
    branch = INSTRUCTION.pack(0x15, 0, 1, 0)  # if r0 == 0 goto +1
    leave = INSTRUCTION.pack(JUMP | EXIT, 0, 0, 0)
    assert refused_edges(plain + branch + to_branch + leave) == []
    # The loop is entered in its middle, by a jump over its first instruction.
    assert refused_edges(INSTRUCTION.pack(JUMP, 0, 1, 0) + plain + branch + to_plain + leave) == [(1, 2)]


def test_no_program_has_a_loop_that_runs_on_into_its_beginning() -> None:
    wait_for_other_recordings()
    with only_one_profiler():
        programs = Programs(SamplerOptions(frequency=99))
        try:
            refused = {
                name: refused_edges(programs.bpf.dump_func(name.encode()))
                for name in (*(f"stage_{stage}" for stage in STAGES), "on_tick", "on_exec", "on_exit")
            }
        finally:
            programs.unload()
    assert {name: edges for name, edges in refused.items() if edges} == {}
