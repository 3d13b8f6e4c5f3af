"""Checks of the host and of this process's rights, before a recording starts."""

from __future__ import annotations

import resource
import shlex
import sys
from pathlib import Path

from pyflame_ebpf.commands.terminal import warn
from pyflame_ebpf.errors import PyflameError, UsageError
from pyflame_ebpf.host.capabilities import (
    in_initial_pid_namespace,
    kept_while_sampling,
    missing_capabilities,
    useful_capabilities_missing,
)
from pyflame_ebpf.host.confinement import keep_only
from pyflame_ebpf.host.cpus import max_sample_rate, online_cpus
from pyflame_ebpf.host.open_files import FILES_MAX, OTHER_FILES, PROCESSES_MAX, allow_open_files

OPEN_FILES_MIN = 96  # beside one clock a CPU: programs and maps (some 60), and the files of a few processes
OPEN_FILES_WANTED = FILES_MAX + PROCESSES_MAX + OTHER_FILES
ADDRESS_SPACE_MIN = 1 << 30  # bytes; the compiler and four loaders take 0.3 GB of it and as much for their heaps
UNFORCED = 1000  # Hz; a sample takes 10 to 20 µs, so that this is some 2 % of each busy CPU
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO, include/linux/proc_ns.h


class NotPrivileged(PyflameError):
    """The capabilities to sample the host are missing."""

    exit_code = 3


class FrequencyTooHigh(PyflameError):
    """The frequency is above the kernel's limit."""

    exit_code = 7


class InContainer(PyflameError):
    """PIDs or capabilities of this process are those of a container."""

    exit_code = 9


class NoProc(PyflameError):
    """Processes cannot be seen."""

    exit_code = 21


class LimitTooSmall(PyflameError):
    """A resource limit of this process leaves no room for a recording."""

    exit_code = 22


def check_proc() -> None:
    """Raises NoProc unless /proc is mounted."""
    if not Path("/proc/self/stat").exists():
        raise NoProc("/proc is not mounted: no process can be seen", "Mount it: mount -t proc proc /proc")


def check_limits() -> None:
    """Raises LimitTooSmall with the limit and the way to raise it."""
    allow_open_files()
    needed = OPEN_FILES_MIN + len(online_cpus())
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < needed:
        raise LimitTooSmall(
            f"only {files} files may be open (ulimit -n); recording needs {needed}",
            f"Raise the limit: ulimit -n {OPEN_FILES_WANTED}",
        )
    memory, _ = resource.getrlimit(resource.RLIMIT_AS)
    if memory != resource.RLIM_INFINITY and memory < ADDRESS_SPACE_MIN:
        raise LimitTooSmall(
            f"only {memory >> 20} MB of address space allowed (ulimit -v); recording needs {ADDRESS_SPACE_MIN >> 20}",
            "Take the limit away: ulimit -v unlimited",
        )


def check_privileges() -> None:
    """Raises NotPrivileged with the missing capabilities."""
    missing = missing_capabilities()
    if missing:
        command = shlex.join(["sudo", "pyflame-ebpf", *sys.argv[1:]])
        raise NotPrivileged(f"recording needs root: {', '.join(missing)} missing", f"Run: {command}")


def lacking() -> str:
    """What a recording loses for want of capabilities that it does not require, "" for nothing."""
    return "; ".join(f"without {each.name} {each.without}" for each in useful_capabilities_missing())


def say_what_is_lacking() -> None:
    """Warn of what a recording by this process loses for want of capabilities."""
    if lost := lacking():
        warn(lost)


def give_up_rights_of_set_up() -> None:
    """Keep only the capabilities that reading targets and writing outputs need; no program executed later gains any.

    CAP_PERFMON and CAP_BPF stay: CPUs may come online, and older kernels ask for CAP_BPF when a map is read.
    """
    keep_only(kept_while_sampling())


def _user_namespace() -> int:
    try:
        return Path("/proc/self/ns/user").stat().st_ino
    except FileNotFoundError:  # a kernel without CONFIG_USER_NS
        return _INITIAL_USER_NAMESPACE


def check_namespaces() -> None:
    """Raises InContainer unless this process is in the host's own PID and user namespaces."""
    where = None
    if not in_initial_pid_namespace():
        where = "PID namespace"
    elif _user_namespace() != _INITIAL_USER_NAMESPACE:
        where = "user namespace"
    if where:
        raise InContainer(
            f"pyflame-ebpf runs in a container: in a {where} of its own",
            "Run it on the host, from where it sees the processes of all containers too.",
        )


def check_force(frequency: int, force: bool) -> None:
    """Raises UsageError for a frequency (Hz) that costs much, unless it is forced."""
    if frequency > UNFORCED and not force:
        raise UsageError(
            f"{frequency} Hz is over {UNFORCED:,} Hz, which takes --force: sampling slows down what runs",
            "99 Hz for a minute show what uses one per cent of a CPU. With --force, the rate is lowered where sampling "
            "takes more than 5 % of a CPU.",
        )


def check_frequency(frequency: int) -> None:
    """Raises FrequencyTooHigh for a frequency (Hz) above the kernel's limit."""
    limit = max_sample_rate()
    if frequency > limit:
        raise FrequencyTooHigh(
            f"{frequency} Hz is over this kernel's limit of {limit} Hz",
            f"Take --frequency {min(limit, 99)}, or raise it: sysctl kernel.perf_event_max_sample_rate={frequency}",
        )


def check_host(frequency: int) -> None:
    """Make all of these checks.  Raises NoProc, InContainer, NotPrivileged, LimitTooSmall, FrequencyTooHigh."""
    check_proc()
    check_namespaces()
    check_privileges()
    check_limits()
    check_frequency(frequency)
