"""The BPF side: compiles and loads the programs, attaches them to every CPU's clock, and hands out what they saw.

The only importer of bcc.  Decides nothing about processes: what is known of them is written here by its caller.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import importlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.host.btf import kernel_btf
from pyflame_ebpf.host.cpus import online_cpus, possible_cpus
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.abi import ExecutableEntry, ProcessEntry, Settings, UnwindPage, UnwindPageKey
from pyflame_ebpf.sampling.events import Count, Event, parse_record
from pyflame_ebpf.sampling.own_memory import give_back
from pyflame_ebpf.sampling.program_loading import captured_stderr, load_together, said
from pyflame_ebpf.unwind.row import FRAME_POINTER_BODY

RING_PAGES = 2048  # 8 MiB: some 3,000 code objects with their line tables, or 10,000 stacks, between two polls
COPY_PAGES = 1024  # 4 MiB: the memory of at least 32 stacks

# The compiler's own passes are left out, since bcc runs its own over the result, and so is what debuggers need: half of
# the time.
COMPILER_FLAGS = ("-Wno-unused-function", "-g0", "-Xclang", "-disable-llvm-passes")

KERNEL_OFFSETS = {
    "PF_TASK_GROUP_LEADER": ("task_struct", "group_leader"),
    "PF_TASK_START_BOOTTIME": ("task_struct", "start_boottime"),
    "PF_TASK_TGID": ("task_struct", "tgid"),
    "PF_TASK_SELF_EXEC_ID": ("task_struct", "self_exec_id"),
    "PF_TASK_MM": ("task_struct", "mm"),
    "PF_TASK_STACK": ("task_struct", "stack"),
    "PF_TASK_COMM": ("task_struct", "comm"),
    "PF_TASK_REAL_PARENT": ("task_struct", "real_parent"),
    "PF_TASK_SIGNAL": ("task_struct", "signal"),
    "PF_TASK_FSBASE": ("task_struct", "thread.fsbase"),
    "PF_TASK_SUM_EXEC_RUNTIME": ("task_struct", "se.sum_exec_runtime"),
    "PF_SIGNAL_LIVE": ("signal_struct", "live"),
    "PF_SIGNAL_SUM_SCHED_RUNTIME": ("signal_struct", "sum_sched_runtime"),
    "PF_MM_START_CODE": ("mm_struct", "start_code"),
    "PF_MM_EXE_FILE": ("mm_struct", "exe_file"),
    "PF_FILE_F_INODE": ("file", "f_inode"),
    "PF_INODE_I_INO": ("inode", "i_ino"),
    "PF_INODE_I_SIZE": ("inode", "i_size"),
    "PF_INODE_I_SB": ("inode", "i_sb"),
    "PF_SUPER_BLOCK_S_DEV": ("super_block", "s_dev"),
}

STAGES = (  # in the order of enum stage
    "stage_process",
    "stage_thread",
    "stage_search",
    "stage_walk",
    "stage_native",
    "stage_unwind",
    "stage_rare",
    "stage_finish",
    "stage_new_stack",
    "stage_codes",
    "stage_send",
    "stage_copy",
)
LONG_TO_VERIFY = ("stage_unwind", "stage_walk", "stage_new_stack")  # these have the loops; the longest first

PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK = 1, 0
PERF_SAMPLE_RAW = 1 << 10
PERF_ATTR_DISABLED, PERF_ATTR_FREQ = 1 << 0, 1 << 10
PERF_FLAG_FD_CLOEXEC = 1 << 3
PERF_EVENT_IOC_SET_BPF, PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_DISABLE = 0x40042408, 0x2400, 0x2401
SYS_PERF_EVENT_OPEN = 298  # x86-64


class BccMissing(PyflameError):
    """bcc cannot be imported, or what is imported is not bcc."""

    exit_code = 4


class LoadFailed(PyflameError):
    """The kernel or the compiler refused the BPF programs."""

    exit_code = 6


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """What is compiled into the programs; ``frequency`` in ticks per second and CPU."""

    frequency: int
    kernel: bool = True
    native: bool = True
    targets_only: bool = False
    follow_children: bool = False
    ring_pages: int = RING_PAGES

    def flags(self) -> list[str]:
        """The compiler's ``-D`` options."""
        flags = [f"-DPF_RING_PAGES={self.ring_pages}", f"-DPF_COPY_PAGES={COPY_PAGES}", f"-DPF_CPUS={possible_cpus()}"]
        if not self.kernel:
            flags.append("-DPF_NO_KERNEL")
        if not self.native:
            flags.append("-DPF_NO_NATIVE")
        if self.targets_only:
            flags.append("-DPF_FILTER")
        if self.follow_children:
            flags.append("-DPF_FOLLOW_CHILDREN")
        return flags


def bpf_directory() -> Path:
    """Where the C files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "bpf", package.parent / "bpf"):
        if (directory / "profiler.bpf.c").is_file():
            return directory
    raise LoadFailed("the BPF programs are missing from this installation", "Install pyflame-ebpf again.")


def import_bcc() -> Any:
    """The bcc module of the distribution; raises BccMissing for none, or for PyPI's package of the same name."""
    hint = "Install the distribution's package: apt-get install python3-bpfcc (PyPI's 'bcc' is something else)."
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "kernel")
    try:
        bcc = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise BccMissing(f"bcc, the BPF compiler's Python module, cannot be imported: {error}", hint) from error
    if not hasattr(bcc, "BPF"):
        raise BccMissing(f"the module 'bcc' found at {bcc.__file__} is not the BPF compiler", hint)
    return bcc


def kernel_offset_flags() -> list[str]:
    """``-D`` options for the places of kernel struct members, from the running kernel's BTF."""
    btf = kernel_btf()
    return [f"-D{name}={btf.member_offset(*member)}" for name, member in KERNEL_OFFSETS.items()]


class Sampler(contextlib.AbstractContextManager["Sampler"]):
    """The loaded programs.  Use as a context manager; leaving it detaches everything."""

    def __init__(self, options: SamplerOptions) -> None:
        self.options = options
        self._records: list[bytes] = []
        self._tables: dict[bytes, Any] = {}
        self._perf_events: dict[int, int] = {}
        self._layouts: dict[bytes, int] = {}
        self._counts_in_use = 0
        self._bpf = self._load()
        give_back()  # what compiling took
        for ring in (b"records", b"copies"):
            self._bpf[ring].open_ring_buffer(self._keep_record)
        self._write_settings()
        self._write_frame_pointer_rows()

    def __exit__(self, *_: object) -> None:
        """Detaches and unloads everything."""
        self.close()

    # ---- loading ----

    def _load(self) -> Any:
        bcc = import_bcc()
        flags = [f"-I{bpf_directory()}", *COMPILER_FLAGS, *self.options.flags(), *kernel_offset_flags()]
        with captured_stderr() as captured:
            try:
                bpf = bcc.BPF(src_file=str(bpf_directory() / "profiler.bpf.c").encode(), cflags=flags)
                self._load_programs(bcc, bpf)
            except Exception as error:  # bcc raises plain Exception for everything
                raise LoadFailed(
                    f"the BPF programs could not be loaded: {error}\n{said(captured)}".rstrip(),
                    "Run 'pyflame-ebpf doctor' to see what this host lacks; Linux 5.8 with BTF is the least.",
                ) from error
        return bpf

    def _load_programs(self, bcc: Any, bpf: Any) -> None:
        tracepoints = {"sched_process_exec": "on_exec", "sched_process_exit": "on_exit"}
        if self.options.follow_children:
            tracepoints["sched_process_fork"] = "on_fork"
        kinds = dict.fromkeys((*LONG_TO_VERIFY, *STAGES, "on_tick"), bcc.BPF.PERF_EVENT)
        kinds |= dict.fromkeys(tracepoints.values(), bcc.BPF.RAW_TRACEPOINT)
        programs = load_together(bpf, kinds)
        stages = bpf[b"stages"]
        for index, name in enumerate(STAGES):
            stages[ctypes.c_uint32(index)] = ctypes.c_int(programs[name].fd)
        self._tick = programs["on_tick"]
        for tracepoint, name in tracepoints.items():
            bpf.attach_raw_tracepoint(tp=tracepoint.encode(), fn_name=name.encode())

    def start(self) -> None:
        """Begins to sample every CPU that is online."""
        self.attach_new_cpus()

    def attach_new_cpus(self) -> None:
        """Begins to sample CPUs that have come online since."""
        online = set(online_cpus())
        for cpu in online - self._perf_events.keys():
            with contextlib.suppress(ProcessLookupError):  # went offline between the two looks
                self._perf_events[cpu] = self._open_perf_event(cpu)
        for cpu in self._perf_events.keys() - online:
            os.close(self._perf_events.pop(cpu))

    def _open_perf_event(self, cpu: int) -> int:
        size = 64  # PERF_ATTR_SIZE_VER0: all that is used here
        attributes = struct.pack(
            "<IIQQQQQ",
            PERF_TYPE_SOFTWARE,
            size,
            PERF_COUNT_SW_CPU_CLOCK,
            self.options.frequency,
            PERF_SAMPLE_RAW,
            0,
            PERF_ATTR_DISABLED | PERF_ATTR_FREQ,
        ).ljust(size, b"\0")
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(SYS_PERF_EVENT_OPEN, attributes, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
        if fd < 0:
            code = ctypes.get_errno()
            if code == errno.ENODEV:
                raise ProcessLookupError
            raise LoadFailed(
                f"the CPU clock of CPU {cpu} could not be sampled: {os.strerror(code)}",
                "Needs CAP_PERFMON or root; in a container, its seccomp profile must allow perf_event_open.",
            )
        fcntl.ioctl(fd, PERF_EVENT_IOC_SET_BPF, self._tick.fd)
        fcntl.ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)
        return int(fd)

    @property
    def cpus(self) -> int:
        """CPUs being sampled."""
        return len(self._perf_events)

    def stop(self) -> None:
        """Ends the sampling; what was counted can still be drained."""
        for event in self._perf_events.values():
            fcntl.ioctl(event, PERF_EVENT_IOC_DISABLE, 0)  # closing leaves it on where a forked copy has it open
        self._close_perf_events()

    def _close_perf_events(self) -> None:
        while self._perf_events:
            os.close(self._perf_events.popitem()[1])

    def let_go(self) -> None:
        """Keeps nothing attached but what others keep so; for a forked copy of this process, which reads maps only."""
        self._close_perf_events()
        for tracepoint in list(self._bpf.raw_tracepoint_fds):
            self._bpf.detach_raw_tracepoint(tracepoint)

    def close(self) -> None:
        """Detaches and unloads everything."""
        self.stop()
        self._bpf.cleanup()

    # ---- what user space tells the programs ----

    def _put(self, table: bytes, key: bytes, value: bytes) -> None:
        target = self._bytes_table(table, len(key), len(value))
        target[target.Key.from_buffer_copy(key)] = target.Leaf.from_buffer_copy(value)

    def _bytes_table(self, table: bytes, key_size: int, value_size: int) -> Any:
        """The map as one from bytes to bytes; bcc's own description of large values cannot be parsed."""
        if table not in self._tables:
            key = ctypes.c_uint32 if key_size == ctypes.sizeof(ctypes.c_uint32) else ctypes.c_uint8 * key_size
            value = ctypes.c_uint8 * value_size
            self._tables[table] = self._bpf.get_table(table, key, value)
        return self._tables[table]

    def _write_settings(self) -> None:
        settings = Settings(self._counts_in_use, 0, 1_000_000_000 // self.options.frequency)
        self._put(b"settings", bytes(4), bytes(settings))

    def _write_frame_pointer_rows(self) -> None:
        """How code without unwind data is walked: by one row, the first of page 0 of file 0."""
        unused = b"\xff" * abi.UNWIND_ROW_SIZE * (abi.UNWIND_CHUNK_ROWS - 1)
        self.set_unwind_chunk(abi.UNWIND_CHUNKS_IN_ALL, bytes(2) + FRAME_POINTER_BODY + unused)
        starts = (ctypes.c_uint16 * abi.UNWIND_CHUNKS)(0, *[0xFFFF] * (abi.UNWIND_CHUNKS - 1))
        self.set_unwind_page(UnwindPageKey(0, 0), UnwindPage(abi.UNWIND_CHUNKS_IN_ALL, first=starts))

    def add_target(self, tgid: int) -> None:
        """Samples this process too, where only targets are sampled."""
        self._put(b"targets", struct.pack("<I", tgid), struct.pack("<I", 1))

    def add_layout(self, layout: CPythonLayout) -> int:
        """The index by which entries name this layout; the same layout has one index."""
        packed = bytes(abi.pack_layout(layout))
        if packed not in self._layouts:
            index = len(self._layouts)
            if index >= abi.MAX_LAYOUTS:
                raise PyflameError("more kinds of interpreter than there is room for", "Restart the recording.")
            self._put(b"layouts", struct.pack("<I", index), packed)
            self._layouts[packed] = index
        return self._layouts[packed]

    def set_process(self, entry: ProcessEntry) -> None:
        """What is known of a process from now on."""
        self._put(b"processes", struct.pack("<I", entry.identity.tgid), bytes(entry))

    def add_executable(self, key: tuple[int, int, int], entry: ExecutableEntry) -> None:
        """How the programs find the interpreter in processes that run this file; forgotten when there is no room."""
        with contextlib.suppress(Exception):  # bcc raises plain Exception; without the entry user space identifies
            self._put(b"executables", struct.pack("<QII", *key), bytes(entry))

    def set_mappings(self, slot: int, mappings: bytes) -> None:
        """The executable memory of the process that has this slot, as a ``struct process_mappings``."""
        self._put(b"mappings", struct.pack("<I", slot), mappings)

    def set_unwind_chunk(self, index: int, rows: bytes) -> None:
        """A chunk of unwind rows."""
        self._put(b"unwind_chunks", struct.pack("<I", index), rows)

    def set_unwind_page(self, key: UnwindPageKey, page: UnwindPage) -> None:
        """Where the rows of a page are, whose chunks must have been set before."""
        self._put(b"unwind_pages", bytes(key), bytes(page))

    def drop_unwind_page(self, key: UnwindPageKey) -> None:
        """Forgets a page."""
        table = self._tables[b"unwind_pages"]
        with contextlib.suppress(KeyError):
            del table[table.Key.from_buffer_copy(bytes(key))]

    def forget(self, gone: Gone) -> None:
        """Let stacks, code objects and threads' names be sent again when they are sampled again."""
        self._delete(b"known_stacks", [struct.pack("<Q", stack_id) for stack_id in gone.stacks])
        self._delete(b"known_codes", [struct.pack("<Q", code_id) for code_id in gone.codes])
        self._delete(b"threads", [struct.pack("<II", identity.tgid, tid) for identity, tid in gone.threads])

    def _delete(self, name: bytes, keys: Iterable[bytes]) -> None:
        """Of a map with keys of eight bytes; values are not looked at."""
        table = self._bytes_table(name, 8, 4)
        for key in keys:
            with contextlib.suppress(KeyError):
                del table[table.Key.from_buffer_copy(key)]

    # ---- what the programs tell user space ----

    def _keep_record(self, _context: Any, data: Any, size: int) -> None:
        self._records.append(ctypes.string_at(data, size))

    def poll(self, timeout_ms: int) -> list[Event]:
        """Events since the last call, in the order of their records; waits so long for one that is urgent."""
        self._bpf.ring_buffer_poll(timeout_ms)
        self._bpf.ring_buffer_consume()
        records, self._records = self._records, []
        return [parse_record(record) for record in records]

    def drain_counts(self) -> list[Count]:
        """Takes the samples counted since the last call."""
        table = self._bpf[b"counts_1" if self._counts_in_use else b"counts_0"]
        self._counts_in_use ^= 1
        self._write_settings()
        return [_count(bytes(key), samples) for key, samples in _take_all(table)]

    def counters(self) -> dict[str, int]:
        """The programs' counters, summed over CPUs."""
        totals = dict.fromkeys(abi.COUNTERS, 0)
        table = self._bpf[b"counters"]
        for block in table[table.Key(0)]:
            for name, value in zip(abi.COUNTERS, block.value, strict=True):
                totals[name] += value
        return totals

    def program_fds(self) -> list[int]:
        """File descriptors of all loaded programs."""
        return [function.fd for function in self._bpf.funcs.values()]


def _take_all(table: Any) -> list[tuple[Any, int]]:
    """Every entry of a map that the programs no longer write, which is empty afterwards."""
    if hasattr(table, "items_lookup_and_delete_batch"):  # bcc 0.19; as numbers to 0.26, as c_ulonglong in 0.29
        return [(key, getattr(value, "value", value)) for key, value in table.items_lookup_and_delete_batch()]
    items = [(key, value.value) for key, value in table.items()]
    for key, _ in items:
        del table[key]
    return items


def _count(key: bytes, samples: int) -> Count:
    start, tgid, exec_id, stack_id, tid, outcome, gil, kernel_mode, native = struct.unpack("<QIIQIBBBB", key[:32])
    return Count(Identity(start, tgid, exec_id), tid, stack_id, outcome, gil, bool(kernel_mode), native, samples)
