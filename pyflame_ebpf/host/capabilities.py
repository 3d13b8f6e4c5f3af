"""Which capabilities this process has, and whether it is in the initial PID namespace."""

from __future__ import annotations

from pathlib import Path

from pyflame_ebpf.host.proc import status_field

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h

# include/uapi/linux/capability.h
_CAPABILITIES = {"CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39}
_IMPLIED_BY_SYS_ADMIN = ("CAP_PERFMON", "CAP_BPF")
_REQUIRED = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE")


def effective_capabilities(status: bytes | None = None) -> set[str]:
    """The capabilities in effect among those that matter here, from the text of /proc/self/status."""
    words = status_field(Path("/proc/self/status").read_bytes() if status is None else status, b"CapEff")
    bits = int(words[0], 16) if words else 0
    held = {name for name, bit in _CAPABILITIES.items() if bits >> bit & 1}
    return held.union(_IMPLIED_BY_SYS_ADMIN) if "CAP_SYS_ADMIN" in held else held


def missing_capabilities(status: bytes | None = None) -> list[str]:
    """The capabilities that recording needs and this process lacks."""
    held = effective_capabilities(status)
    return [name for name in _REQUIRED if name not in held]


def in_initial_pid_namespace() -> bool:
    """Whether PIDs here are the ones that the kernel gives to BPF programs."""
    return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
