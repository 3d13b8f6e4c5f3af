"""What scripts/fuzz.py tries on the readers of the kernel's texts and records, and on what is made of stacks."""

from __future__ import annotations

import contextlib
import ctypes
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import _checkout  # noqa: F401 - finds the package
from _fuzz_target import Target

from pyflame_ebpf.host.btf import Btf, NoBtf
from pyflame_ebpf.host.maps import parse_maps
from pyflame_ebpf.host.proc import status_field
from pyflame_ebpf.host.process_stat import parse_stat
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import CodeEvent, StackEvent, parse_record
from pyflame_ebpf.stacks.weave import weave
from pyflame_ebpf.symbols.kallsyms import KernelSymbols
from pyflame_ebpf.unwind.architecture import OTHER_REGISTERS
from pyflame_ebpf.unwind.registers import Registers
from pyflame_ebpf.unwind.row import ROW, CfaKind, RbpKind, unpack_rows
from pyflame_ebpf.unwind.walk import FRAMES_MAX, StackMemory, walk

STAT = b"7 (%s) S 1 7 7 0 -1 4194304 1 0 0 0 2 3 0 0 20 0 5 0 4242 1 1\n"
STATUS = (
    b"Name:\t%s\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t1000\t1001\t1002\t1003\nGid:\t1\t2\t3\t4\nNSpid:\t7\t1\n"
)
MAPPED = b"7f0000000000-7f0000001000 r-xp 00000000 08:01 1234"
PATH_COLUMN = 73


def _require(promise: bool, what: str) -> None:
    if not promise:
        raise AssertionError(what)


def read_stat(data: bytes) -> None:
    """A process's name may hold anything, and may not change the other fields of /proc/PID/stat."""
    found = parse_stat(STAT % data)
    _require((found.parent, found.threads, found.start_ticks, found.state) == (1, 5, 4242, "S"), "fields of stat")


def read_status(data: bytes) -> None:
    """A process's name may hold anything, and may not change the other fields of /proc/PID/status."""
    text = STATUS % data.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")  # as the kernel escapes it
    _require(status_field(text, b"Uid") == [b"1000", b"1001", b"1002", b"1003"], "user ids of status")
    _require(status_field(text, b"NSpid") == [b"7", b"1"], "PIDs of status")


def read_maps(data: bytes) -> None:
    """A path may hold anything, and may not make another mapping; whole texts may hold anything."""
    parse_maps(data)
    path = data.replace(b"\n", b"\\012").replace(b"\0", b"")
    line = MAPPED.ljust(PATH_COLUMN) + path + b"\n"
    found = parse_maps(line * 2)
    _require(
        [(each.start, each.inode, each.executable) for each in found] == [(0x7F0000000000, 1234, True)] * 2, "maps"
    )


def read_kallsyms(data: bytes) -> None:
    """Look up addresses of a text of /proc/kallsyms, into which modules write their names."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        symbols = KernelSymbols(Path(file.name))
        for address in (0, 0xFFFFFFFF81000010, (1 << 64) - 1):
            symbols.lookup(address)


def read_btf(data: bytes) -> None:
    """Search BTF for members; it is refused with NoBtf or answers."""
    with contextlib.suppress(NoBtf):
        types = Btf(data)
        types.has_name("task_struct")
        for path in ("pid", "mm.start_code"):
            with contextlib.suppress(NoBtf):
                types.member_offset("task_struct", path)


def read_record(data: bytes) -> None:
    """Parse a record of the ring buffers."""
    try:
        event = parse_record(data)
    except (ValueError, KeyError):
        return
    if isinstance(event, StackEvent):
        event.frames()
        event.codes()
    if isinstance(event, CodeEvent):
        _require(len(event.name) + len(event.file) + len(event.line_table) <= len(data), "parts of a code record")


def weave_stack(data: bytes) -> None:
    """Weave Python frames and native frames, half of the data each; every frame stays, once."""
    size = ctypes.sizeof(abi.StackFrame)
    raw = [struct.unpack_from("<QQiI", data.ljust(at + size, b"\0"), at) for at in range(0, len(data) - 1, size)]
    kinds = abi.FRAME_PYTHON, abi.FRAME_BOUNDARY, abi.FRAME_PYTHON | abi.FRAME_ENTRY
    python = [(a, b, c, kinds[kind % 3]) for a, b, c, kind in raw[: len(raw) // 2]]
    native = [(a, b, c, abi.FRAME_NATIVE) for a, b, c, _ in raw[len(raw) // 2 :]]
    for complete in (False, True):
        woven = weave(python, native, lambda at: at & 1 == 1, lambda at: at & 3 == 2, complete=complete)
        shown = [frame for frame, _ in woven]
        _require(len(shown) <= len(raw), "frames of a woven stack")
        _require([frame for frame in shown if frame[3] == abi.FRAME_NATIVE] == native, "native frames of a woven stack")


def walk_stack(data: bytes) -> None:
    """Walk made-up memory by made-up rows; the walk ends within its limit."""
    head, rows, memory = data[:32], data[32:64], data[64:]
    ip, sp, bp, flags = struct.unpack("<QQQQ", head.ljust(32, b"\0"))
    start = sp & ~0xFFF
    known = unpack_rows(_with_known_kinds(rows))
    registers = Registers(ip, sp, bp, (sp, bp, ip, *range(OTHER_REGISTERS - 3)), exact=bool(flags & 1))
    frames, _ = walk(
        registers, StackMemory(start, memory), lambda address: known[address % len(known)] if known else None
    )
    _require(len(frames) <= FRAMES_MAX, "frames of a walk")


def _with_known_kinds(rows: bytes) -> bytes:
    """Rows with kinds that there are, since rows are made by the profiler itself."""
    found = bytearray(rows[: len(rows) // ROW.size * ROW.size])
    for at in range(2, len(found), ROW.size):
        found[at] = (found[at] & 15) % len(CfaKind) | (found[at] >> 4) % len(RbpKind) << 4
    return bytes(found)


def record_seeds(_: Path) -> Iterator[bytes]:
    """Yield an empty record of each kind, and stacks with frames."""
    for kind in range(12):
        yield struct.pack("<I", kind) + bytes(300)
    head = bytearray(ctypes.sizeof(abi.StackRecord))
    head[:8] = struct.pack("<II", abi.RECORD_STACK, 3)
    yield bytes(head) + bytes(3 * ctypes.sizeof(abi.StackFrame))


def name_seeds(_: Path) -> Iterator[bytes]:
    """Yield names that try to be fields."""
    yield b"web"
    yield b"x) S 0 (y"
    yield b"\x0cUid:\t0\t0\t0\t0"
    yield b"\x1cNSpid: x\x85\xe2\x80\xa8a\nUid:\t0"


def maps_seeds(_: Path) -> Iterator[bytes]:
    """Yield the maps of this process, and paths that try to be lines."""
    yield Path("/proc/self/maps").read_bytes()[:4000]
    yield b"/tmp/a b (deleted)"
    yield b"/tmp/x\n" + MAPPED + b" /bin/y"


def kallsyms_seeds(_: Path) -> Iterator[bytes]:
    """Yield symbols as the kernel lists them, and hidden ones."""
    yield b"ffffffff81000000 T _text\nffffffff81000010 t start\t[vmlinux]\nffffffffc0000000 t f\t[mod]\n"
    yield b"0000000000000000 T _text\n" * 3


def btf_seeds(_: Path) -> Iterator[bytes]:
    """Yield BTF of two structs, one within the other."""
    strings = b"\0task_struct\0pid\0mm\0mm_struct\0start_code\0int\0"

    def name(text: bytes) -> int:
        return strings.index(b"\0" + text + b"\0") + 1

    types = struct.pack("<IIII", name(b"int"), 1 << 24, 4, 32)
    types += struct.pack("<III", name(b"mm_struct"), 4 << 24 | 1, 8) + struct.pack("<III", name(b"start_code"), 1, 0)
    types += struct.pack("<III", name(b"task_struct"), 4 << 24 | 2, 16)
    types += struct.pack("<IIIIII", name(b"pid"), 1, 0, name(b"mm"), 2, 64)
    yield struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def stack_seeds(_: Path) -> Iterator[bytes]:
    """Yield frames: addresses, ends, positions and kinds."""
    python = b"".join(struct.pack("<QQiI", 0x7F00 + 64 * at, at, 2, at % 4) for at in range(6))
    native = b"".join(struct.pack("<QQiI", 0x400001 + at, 0x7F00 + 64 * at, 0, 0) for at in range(6))
    yield python + native
    yield bytes(24 * 4)


PROCESS_TARGETS = {
    "stat": Target(read_stat, name_seeds, ("host.process_stat",)),
    "status": Target(read_status, name_seeds, ("host.proc",)),
    "maps": Target(read_maps, maps_seeds, ("host.maps",)),
    "kallsyms": Target(read_kallsyms, kallsyms_seeds, ("symbols.kallsyms",)),
    "btf": Target(read_btf, btf_seeds, ("host.btf",)),
    "records": Target(read_record, record_seeds, ("sampling.events",)),
    "weave": Target(weave_stack, stack_seeds, ("stacks.weave",)),
    "walk": Target(walk_stack, stack_seeds, ("unwind.walk", "unwind.row")),
}
