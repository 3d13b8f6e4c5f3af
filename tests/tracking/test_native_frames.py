"""Native frames of this process and of children, named by what each had mapped."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.plumbing import is_plumbing
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.host.maps import Mapping, mappings
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, FrameKind
from pyflame_ebpf.sampling.events import ExitEvent
from pyflame_ebpf.symbols.native_symbols import JIT
from pyflame_ebpf.tracking.native_frames import NativeFrames
from pyflame_ebpf.tracking.tracked_processes import ProcessTable
from tests.tracking.live_processes import met
from tests.tracking.written_maps import WrittenMaps


@pytest.fixture
def table() -> Iterator[ProcessTable]:
    with contextlib.closing(ProcessTable(WrittenMaps())) as table:
        yield table


@pytest.fixture(params=[False, True])
def native(table: ProcessTable, request: pytest.FixtureRequest) -> Iterator[NativeFrames]:
    with contextlib.closing(NativeFrames(table, live=request.param)) as native:
        yield native


def address_of(function: str) -> int:
    return ctypes.cast(getattr(ctypes.CDLL(None), function), ctypes.c_void_p).value or 0


def mapping_at(address: int) -> Mapping:
    return next(each for each in mappings(os.getpid()) if each.start <= address < each.end)


def test_a_function_is_named_with_its_file_and_nothing_where_no_code_was(
    table: ProcessTable, native: NativeFrames
) -> None:
    identity = met(os.getpid()).identity
    address = address_of("getenv") + 1
    assert native.name(identity, address) is None
    table.process_met(met(os.getpid()))
    assert native.name(identity, 0x1000) is None
    native.expect(identity, [address, 0x1000])
    frame = native.name(identity, address)
    assert frame is not None
    assert (frame.kind, frame.file, frame.plumbing) == (FrameKind.NATIVE, mapping_at(address).path, False)
    assert "getenv" in frame.name
    assert frame.file in native.build_ids


def test_names_outlive_the_process(table: ProcessTable, native: NativeFrames) -> None:
    event = met(os.getpid())
    table.process_met(event)
    address = address_of("getenv") + 1
    table.process_ended(ExitEvent(event.identity, 1, "x"))
    frame = native.name(event.identity, address)
    assert frame is not None
    assert "getenv" in frame.name


def test_plumbing_is_the_interpreters_own(table: ProcessTable, native: NativeFrames) -> None:
    assert is_plumbing("PyObject_Call")
    event = met(os.getpid())
    table.process_met(event)
    address = address_of("PyObject_Call")
    frame = native.name(event.identity, address)
    assert frame == Frame(FrameKind.NATIVE, "PyObject_Call", table.interpreter_file(event.identity), plumbing=True)
    assert Path(sys.executable).resolve() == Path(frame.file).resolve() or "libpython" in frame.file


# ---- code of no file ----


@pytest.fixture
def compiled() -> Iterator[int]:
    """The address of code that a compiler made in this process, and whose perf map says so."""
    path = Path(f"/tmp/perf-{os.getpid()}.map")  # as the interface has it
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        start = ctypes.addressof(ctypes.c_char.from_buffer(code))
        path.write_text(f"{start:x} 40 first\n")
        try:
            yield start
        finally:
            path.unlink()


def jit(identity: Identity, native: NativeFrames, address: int) -> str:
    frame = native.name(identity, address)
    assert frame is not None
    return frame.name if frame.file == JIT else ""


def test_code_of_no_file_is_named_by_the_perf_map_that_was_there_when_it_was_met(
    table: ProcessTable, native: NativeFrames, compiled: int
) -> None:
    event = met(os.getpid())
    table.process_met(event)
    native.watch(event.identity)
    table.process_ended(ExitEvent(event.identity, 1, "x"))
    assert jit(event.identity, native, compiled + 8) == "first"
    assert jit(event.identity, native, compiled + 0x40) == ""


def test_a_perf_map_that_comes_later_is_found_when_names_are_asked_for_while_the_process_runs(
    table: ProcessTable, native: NativeFrames, compiled: int
) -> None:
    event = met(os.getpid())
    table.process_met(event)
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    text = path.read_text()
    path.unlink()
    native.watch(event.identity)
    assert jit(event.identity, native, compiled) == ""
    path.write_text(text)
    assert jit(event.identity, native, compiled) == ""  # asked for already
    native.look_again()
    assert jit(event.identity, native, compiled) == "first"
    path.write_text(text.replace("first", "second"))
    assert jit(event.identity, native, compiled) == "first"
    native.begin_anew()
    assert jit(event.identity, native, compiled) == "second"


def test_what_is_forgotten_has_no_perf_map(table: ProcessTable, native: NativeFrames, compiled: int) -> None:
    event = met(os.getpid())
    table.process_met(event)
    native.watch(event.identity)
    table.process_ended(ExitEvent(event.identity, 1, "x"))
    native.forget(Gone(processes={event.identity}))
    assert jit(event.identity, native, compiled) == ""
