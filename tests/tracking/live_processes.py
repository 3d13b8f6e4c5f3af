"""Live processes, and what the BPF programs would say of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyflame_ebpf.host import proc
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.abi import PROCESS_ANNOUNCED
from pyflame_ebpf.sampling.events import ProcessEvent
from pyflame_ebpf.tracking.processes import file_key

WAIT = "print('ready', flush=True); input()"
TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # ns
NO_PID = 2**22 + 1  # above the kernel's limit of PIDs


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has said "ready"; ended when it is left."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def command(process: subprocess.Popen[bytes], expected: bytes) -> None:
    """Lets a process go on until it has said what is expected."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == expected


def identity_of(pid: int, exec_id: int = 1) -> Identity:
    """A live process's identity as the programs tell it."""
    return Identity(proc.process_stat(pid).start_ticks * TICK + TICK // 2, pid, exec_id)


def met(pid: int, **changes: Any) -> ProcessEvent:
    """What the programs say of a live process."""
    identity = changes.pop("identity", None) or identity_of(pid)
    event = ProcessEvent(
        identity=identity,
        parent=os.getpid(),
        executable=file_key(pid),
        start_code=0x400000,
        interpreters_head=0,
        tstate_current=0,
        state=PROCESS_ANNOUNCED,
        layout=0,
        name="comm",
        executed=False,
    )
    return replace(event, **changes)
