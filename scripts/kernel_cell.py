#!/usr/bin/env python3
"""One cell of the kernel matrix: load every BPF program on the running kernel, then record a busy Python program.

    sudo scripts/kernel_cell.py                               a minute in this interpreter
    sudo scripts/kernel_cell.py --duration 6 --warm-up 2      quickly
    sudo scripts/kernel_cell.py --load-only                   the programs only

Prints each program's verified instructions, and how many stacks were whole.  Status 1: the kernel refused a program.
Status 2: fewer than 99 % of the samples after the warm-up were whole, or none of them interrupted the kernel.
scripts/kernel_matrix.sh runs this in virtual machines.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from pyflame_ebpf.profile.model import NativeOutcome, Outcome, Profile  # noqa: E402
from pyflame_ebpf.recording.recorder import RecordOptions, record  # noqa: E402
from pyflame_ebpf.sampling.programs import (  # noqa: E402
    STAGES,
    TICK,
    SamplerOptions,
    compile_programs,
    import_bcc,
)

WORKLOAD = """
import json, re, zlib
zeros = open("/dev/zero", "rb", buffering=0)
data = {"list": list(range(200)), "text": "spam and eggs " * 20}
def of_key(item):
    return re.sub("a+", "b", item)
def python_only(n):
    return sum(i * i for i in range(n))
def turn():
    text = json.dumps(data)
    sorted(text.split(), key=of_key)
    zlib.crc32(zlib.compress(text.encode(), 9))
    zeros.read(1 << 23)
    return python_only(2000)
print("ready", flush=True)
while True:
    turn()
"""

SYS_BPF = 321  # x86-64
BPF_PROG_LOAD = 5
PERF_EVENT, RAW_TRACEPOINT = 7, 17  # enum bpf_prog_type
TRACEPOINTS = ("on_exec", "on_exit", "on_fork")
LOG_STEPS, LOG_STATISTICS = 1, 4  # log levels; statistics since Linux 5.2


class LoadAttributes(ctypes.Structure):
    """The first part of ``union bpf_attr`` for BPF_PROG_LOAD."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Load:
    """The result of loading one program; ``seconds`` is the CPU time of the system call."""

    name: str
    loaded: bool
    seconds: float
    log: str

    @property
    def instructions(self) -> str:
        """How many instructions the verifier went through; "?" if it did not say."""
        words = self.log.split()
        return words[words.index("processed") + 1] if "processed" in words else "?"


def load_program(bcc: Any, module: Any, name: str, log_level: int = LOG_STATISTICS) -> Load:
    """Load a compiled program, and unload it at once.  The result has the verifier's log."""
    start = bcc.libbcc.lib.bpf_function_start(module, name.encode())
    size = bcc.libbcc.lib.bpf_function_size(module, name.encode())
    log = ctypes.create_string_buffer(1 << 14 if log_level == LOG_STATISTICS else 1 << 26)
    attributes = LoadAttributes(
        RAW_TRACEPOINT if name in TRACEPOINTS else PERF_EVENT,
        size // 8,
        ctypes.cast(start, ctypes.c_void_p).value or 0,
        ctypes.cast(ctypes.c_char_p(b"GPL"), ctypes.c_void_p).value or 0,
        log_level,
        len(log),
        ctypes.addressof(log),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    before = time.thread_time()  # the verifier works in the caller's context, and others may run here
    fd = libc.syscall(SYS_BPF, BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))
    code, seconds = ctypes.get_errno(), time.thread_time() - before
    if fd >= 0:
        os.close(fd)
    said = log.value.decode("utf-8", "replace")
    return Load(name, fd >= 0, seconds, said if fd >= 0 else f"{os.strerror(code)}\n{said}")


def load_all(options: SamplerOptions) -> list[Load]:
    """Load every program that a recording with these options uses, one by one."""
    bcc = import_bcc()
    bpf = compile_programs(options)
    loads = []
    for name in (*STAGES, TICK, *options.tracepoints.values()):
        load = load_program(bcc, bpf.module, name)
        if not load.loaded:
            steps = load_program(bcc, bpf.module, name, LOG_STEPS).log
            steps_taken = [line for line in steps.splitlines() if not line.startswith("regs=")]
            load = Load(name, False, load.seconds, "\n".join(steps_taken[-40:]))
        loads.append(load)
    bpf.cleanup()
    return loads


def print_loads(loads: list[Load]) -> None:
    """Print a line for each program: verified instructions, and seconds to load."""
    print(f"{'program':<16} {'verified':>9} {'load s':>7}")
    for load in loads:
        print(f"{load.name:<16} {load.instructions:>9} {load.seconds:>7.3f}{'' if load.loaded else '  REFUSED'}")
    for load in loads:
        if not load.loaded:
            print(f"--- {load.name}\n{load.log}")


@dataclass(frozen=True, slots=True)
class Wholeness:
    """Samples of one process after the warm-up: all, those in the kernel, and those with whole stacks."""

    samples: int
    kernel: int
    python: int
    native: int
    reasons: Counter[str]


def wholeness(profile: Profile, pid: int, warm_up: int) -> Wholeness:
    """Count the process's samples from second ``warm_up`` on."""
    samples = kernel = python = native = 0
    reasons = Counter[str]()
    for key, count in profile.samples.items():
        if profile.processes[key.process].pid != pid or key.second < warm_up:
            continue
        samples += count
        kernel += count * key.kernel_mode
        python += count * (key.outcome is Outcome.COMPLETE)
        native += count * (key.native is NativeOutcome.COMPLETE)
        if key.outcome is not Outcome.COMPLETE or key.native is not NativeOutcome.COMPLETE:
            reasons[f"{key.outcome.value}, {key.native.value}"] += count
    return Wholeness(samples, kernel, python, native, reasons)


def record_busy(interpreter: str, duration: float, frequency: int, warm_up: int) -> tuple[Wholeness, Profile]:
    """Record the host while a program goes between Python, C and the kernel all the time."""
    command = [interpreter, "-c", WORKLOAD]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as target:
        try:
            assert target.stdout is not None
            target.stdout.readline()
            options = RecordOptions(frequency=frequency, duration=duration)
            profile = record(options, lambda: False, lambda _progress: None, lambda: None)
        finally:
            target.kill()
    return wholeness(profile, target.pid, warm_up), profile


def check_recording(interpreter: str, arguments: argparse.Namespace) -> bool:
    """Record, and print the figures.  Returns whether enough stacks were whole."""
    found, profile = record_busy(interpreter, arguments.duration, arguments.frequency, arguments.warm_up)
    counters = {name: value for name, value in profile.recording.counters.items() if value}
    print(
        f"{interpreter}: {found.samples} samples after {arguments.warm_up} s, {found.kernel} of them in the kernel,"
        f" {found.python} whole in Python, {found.native} whole in native code"
    )
    print(f"  not whole: {dict(found.reasons)}\n  counters: {counters}")
    return found.kernel > 0 and min(found.python, found.native) >= arguments.least * found.samples


def main() -> int:
    """Run the cell; the exit status is that of the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interpreters", nargs="*", default=[sys.executable])
    parser.add_argument("--duration", type=float, default=60, help="seconds of a recording")
    parser.add_argument("--warm-up", type=int, default=30, help="seconds of it that do not count")
    parser.add_argument("--frequency", type=int, default=49)
    parser.add_argument("--least", type=float, default=0.99, help="share of samples that must be whole")
    parser.add_argument("--load-only", action="store_true")
    arguments = parser.parse_args()
    print(f"kernel {platform.release()}", flush=True)
    loads = load_all(SamplerOptions(arguments.frequency))
    print_loads(loads)
    sys.stdout.flush()
    if not all(load.loaded for load in loads):
        return 1
    if arguments.load_only:
        return 0
    verdicts = [check_recording(here, arguments) for here in arguments.interpreters]
    return 0 if all(verdicts) else 2


if __name__ == "__main__":
    sys.exit(main())
