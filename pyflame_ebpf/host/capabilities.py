"""Which capabilities a recording uses, which of them this process has, and whether PIDs here are the host's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyflame_ebpf.host.proc import status_field

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """A capability that a recording uses; ``bit`` is its number in include/uapi/linux/capability.h.

    Nothing is recorded without one that is ``required``.  ``without`` says what fails, ``kept`` whether the recording
    still uses it once sampling has begun.  Of one that is not ``missed`` the lack is not told: it is used for another
    user by root alone, or by older kernels.
    """

    name: str
    bit: int
    without: str
    required: bool = False
    kept: bool = True
    missed: bool = True


# What each row says is tried by scripts/check_capabilities.py.
CAPABILITIES = (
    Capability(name="CAP_BPF", bit=39, required=True, without="BPF programs and maps cannot be made"),
    Capability(name="CAP_PERFMON", bit=38, required=True, without="no CPU can be sampled"),
    Capability(
        name="CAP_SYS_PTRACE",
        bit=19,
        required=True,
        without="memory and mappings of other users' processes cannot be read",
    ),
    Capability(
        name="CAP_DAC_READ_SEARCH",
        bit=2,
        without="files that other users keep to themselves, or deleted since they were mapped, give no names",
    ),
    Capability(
        name="CAP_CHECKPOINT_RESTORE",
        bit=40,
        without="files that were deleted or replaced since they were mapped give no names",
    ),
    Capability(name="CAP_SYSLOG", bit=34, without="kernel functions are shown as numbers"),
    Capability(name="CAP_SETUID", bit=7, without="--source takes no lines of other users' programs along"),
    Capability(name="CAP_SETGID", bit=6, without="--source takes no lines of other users' programs along"),
    Capability(
        name="CAP_SYS_NICE", bit=23, kept=False, without="on a busy host short-lived processes are met too late"
    ),
    Capability(
        name="CAP_SYS_RESOURCE",
        bit=24,
        kept=False,
        missed=False,
        without="before Linux 5.11 the maps must fit into the limit of locked memory",
    ),
    Capability(name="CAP_CHOWN", bit=0, missed=False, without="outputs do not belong to the user who ran sudo"),
    Capability(name="CAP_DAC_OVERRIDE", bit=1, missed=False, without="outputs go to no directory of another user"),
    Capability(name="CAP_KILL", bit=5, missed=False, without="signals do not reach the started program"),
)
_SYS_ADMIN = 21
_IMPLIED_BY_SYS_ADMIN = ("CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", "CAP_SYSLOG")


def effective_capabilities(status: bytes | None = None) -> set[str]:
    """The capabilities in effect among those that a recording uses, from the text of /proc/self/status."""
    words = status_field(Path("/proc/self/status").read_bytes() if status is None else status, b"CapEff")
    bits = int(words[0], 16) if words else 0
    held = {each.name for each in CAPABILITIES if bits >> each.bit & 1}
    return held.union(_IMPLIED_BY_SYS_ADMIN) if bits >> _SYS_ADMIN & 1 else held


def missing_capabilities(status: bytes | None = None) -> list[str]:
    """The capabilities that recording needs and this process lacks."""
    held = effective_capabilities(status)
    return [each.name for each in CAPABILITIES if each.required and each.name not in held]


def useful_capabilities_missing(status: bytes | None = None) -> list[Capability]:
    """The capabilities without which this process records, but less than it could."""
    held = effective_capabilities(status)
    return [each for each in CAPABILITIES if not each.required and each.missed and each.name not in held]


def kept_while_sampling(last_known: int | None = None) -> int:
    """A bit for each capability that a recording still uses once sampling has begun.

    ``last_known`` is the highest number that the kernel knows, by default this kernel's.  Before Linux 5.9 there is no
    CAP_CHECKPOINT_RESTORE, and CAP_SYS_ADMIN stands for it.
    """
    if last_known is None:
        last_known = int(_LAST_CAPABILITY.read_bytes())
    bits = [each.bit for each in CAPABILITIES if each.kept]
    if last_known < max(bits):
        bits.append(_SYS_ADMIN)
    return sum(1 << bit for bit in bits)


def in_initial_pid_namespace() -> bool:
    """Whether PIDs here are the ones that the kernel gives to BPF programs."""
    return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
