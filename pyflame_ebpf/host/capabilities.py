"""Which capabilities this process has, and whether it is in the initial PID namespace."""

from __future__ import annotations

from pathlib import Path

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h

# include/uapi/linux/capability.h
_CAPABILITIES = {"CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39}
_IMPLIED_BY_SYS_ADMIN = ("CAP_PERFMON", "CAP_BPF")
_REQUIRED = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE")


def effective_capabilities(status: str | None = None) -> set[str]:
    """Which capabilities that matter here are in effect, from the text of /proc/self/status."""
    text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace") if status is None else status
    bits = next((int(line.split()[1], 16) for line in text.splitlines() if line.startswith("CapEff:")), 0)
    held = {name for name, bit in _CAPABILITIES.items() if bits >> bit & 1}
    return held.union(_IMPLIED_BY_SYS_ADMIN) if "CAP_SYS_ADMIN" in held else held


def missing_capabilities(status: str | None = None) -> list[str]:
    """The capabilities without which nothing can be recorded and that this process lacks."""
    held = effective_capabilities(status)
    return [name for name in _REQUIRED if name not in held]


def in_initial_pid_namespace() -> bool:
    """Whether PIDs here are those that the kernel gives to BPF programs."""
    return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
