"""``doctor``: tell whether this host can be recorded, and how much of one process will be seen."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pyflame_ebpf import __version__
from pyflame_ebpf.commands.host_checks import check_namespaces, check_privileges, check_proc, lacking
from pyflame_ebpf.commands.targets import why_not_python
from pyflame_ebpf.cpython.file_facts import FileFactsCache
from pyflame_ebpf.cpython.interpreter import Interpreter, UnsupportedInterpreter, interpreter_of
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import proc
from pyflame_ebpf.host.confinement import has_system_call_filter
from pyflame_ebpf.host.cpus import max_sample_rate, online_cpus
from pyflame_ebpf.host.guarded_reads import ReadGivenUp, guarded
from pyflame_ebpf.host.mapped_files import open_code
from pyflame_ebpf.host.maps import mappings
from pyflame_ebpf.host.process_directory import ProcessDenied, ProcessGone
from pyflame_ebpf.profile.labels import visible
from pyflame_ebpf.recording import host_lock
from pyflame_ebpf.sampling.kernel_flags import kernel_flags
from pyflame_ebpf.sampling.programs import import_bcc
from pyflame_ebpf.sampling.sampler import Sampler, SamplerOptions
from pyflame_ebpf.symbols.file_functions import STRIPPED
from pyflame_ebpf.symbols.kallsyms import KernelSymbols
from pyflame_ebpf.symbols.known_files import PERF_MAP
from pyflame_ebpf.symbols.mapped_file import MappedFile, is_without_file
from pyflame_ebpf.symbols.native_symbols import ANONYMOUS, NativeSymbols
from pyflame_ebpf.symbols.perf_map import has_perf_map

_OLDEST_KERNEL = (5, 8)  # the BPF ring buffer
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_SYSCTL = Path("/proc/sys/kernel")
_SUBJECT_WIDTH = 14


class Status(str, Enum):
    """The verdict of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``exit_code`` is the one with which ``record`` would fail, 0 if it would not."""

    status: Status
    subject: str
    text: str
    hint: str = ""
    exit_code: int = 0


def _failed(subject: str, error: PyflameError) -> Finding:
    return Finding(Status.FAIL, subject, error.message, error.hint, error.exit_code)


def doctor(pid: int | None) -> int:
    """Print all findings.  Returns the first failure's exit code, 0 without one.  Raises ProcessGone, ProcessDenied."""
    with guarded():
        return _print_all(host_findings() if pid is None else process_findings(pid))


def _print_all(findings: Iterable[Finding]) -> int:
    failures = []
    for finding in findings:
        print(line_of(finding, colours=_coloured()), flush=True)  # noqa: T201
        if finding.exit_code:
            failures.append(finding.exit_code)
    return failures[0] if failures else 0


def _coloured() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


_COLOURS = {Status.OK: "32", Status.WARN: "33", Status.FAIL: "31", Status.UNKNOWN: "33"}


def line_of(finding: Finding, *, colours: bool = False) -> str:
    """Format a finding, with its hint on a second line."""
    status = f"{finding.status.value:4}"
    if colours:
        status = f"\x1b[{_COLOURS[finding.status]}m{status}\x1b[0m"
    line = f"{status}  {finding.subject:{_SUBJECT_WIDTH}}  {_visible_lines(finding.text)}"
    return f"{line}\n{'':{6 + _SUBJECT_WIDTH}}  {_visible_lines(finding.hint)}" if finding.hint else line


def _visible_lines(text: str) -> str:
    return f"\n{'':{8 + _SUBJECT_WIDTH}}".join(visible(line) for line in text.split("\n"))


# The host


def host_findings() -> Iterator[Finding]:
    """Yield all checks of the host, in the order in which a recording would fail."""
    yield Finding(Status.OK, "pyflame-ebpf", f"{__version__}, Python {platform.python_version()} ({sys.executable})")
    yield _kernel_version()
    mounted = _checked("/proc", check_proc, "mounted")
    yield mounted
    if mounted.status is not Status.OK:
        return
    yield _checked("namespaces", check_namespaces, "the host's own PID and user namespaces")
    privileges = _checked("privileges", check_privileges, "all capabilities needed")
    yield privileges
    if privileges.status is Status.OK and (lost := lacking()):
        yield Finding(Status.WARN, "capabilities", lost, "Give them too, or run as root: SECURITY.md has the table.")
    yield _confinement()
    btf = _checked("BTF", kernel_flags, "the kernel describes its structs")
    yield btf
    bcc = _bcc()
    yield bcc
    yield _sample_rate()
    yield _kernel_symbols()
    yield _lockdown()
    yield _other_profiler()
    may_load = all(finding.status is Status.OK for finding in (privileges, btf, bcc))
    yield _programs() if may_load else Finding(Status.UNKNOWN, "BPF programs", "not tried: see the failures above")
    yield _interpreters()


def _checked(subject: str, check: Callable[[], object], well: str) -> Finding:
    try:
        check()
    except PyflameError as error:
        return _failed(subject, error)
    return Finding(Status.OK, subject, well)


def _kernel_version() -> Finding:
    release = platform.release()
    text = f"Linux {release}, {platform.machine()}, {len(online_cpus())} CPUs online"
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers >= _OLDEST_KERNEL:
        return Finding(Status.OK, "kernel", text)
    # Not a failure by itself: distributions take newer features into kernels of old numbers.
    return Finding(Status.WARN, "kernel", text, "Linux 5.8 or later has what the BPF programs need.")


def _confinement() -> Finding:
    subject = "confinement"
    if has_system_call_filter():
        return Finding(Status.OK, subject, "C++ and Rust names are demangled under a filter of system calls")
    text = "C++ and Rust names are demangled without rights, but under no filter of system calls"
    return Finding(Status.WARN, subject, text, "Install libseccomp's Python binding: apt-get install python3-seccomp")


def _bcc() -> Finding:
    try:
        bcc = import_bcc()
    except PyflameError as error:
        return _failed("bcc", error)
    return Finding(Status.OK, "bcc", f"{getattr(bcc, '__version__', 'of unknown version')} ({bcc.__file__})")


def _sample_rate() -> Finding:
    percent = (_SYSCTL / "perf_cpu_time_max_percent").read_text(encoding="ascii").strip()
    text = f"up to {max_sample_rate()} Hz (kernel.perf_event_max_sample_rate; lowered above {percent} % of CPU)"
    return Finding(Status.OK, "frequency", text)


def _kernel_symbols() -> Finding:
    symbols = KernelSymbols()
    symbols.lookup(0)
    if not symbols.hidden:
        return Finding(Status.OK, "kallsyms", "kernel functions can be named")
    restriction = (_SYSCTL / "kptr_restrict").read_text(encoding="ascii").strip()
    hint = "sysctl kernel.kptr_restrict=1 shows them to root." if restriction == "2" else "Root sees them."
    text = f"addresses are hidden (kernel.kptr_restrict={restriction}): kernel frames will be numbers"
    return Finding(Status.WARN, "kallsyms", text, hint)


def _lockdown() -> Finding:
    try:
        text = _LOCKDOWN.read_text(encoding="ascii")
    except FileNotFoundError:
        return Finding(Status.OK, "lockdown", "this kernel has none, or securityfs is not mounted")
    except OSError as error:
        return Finding(Status.UNKNOWN, "lockdown", f"not checked: {error.strerror}")
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "confidentiality":
        hint = "Start the kernel with lockdown=integrity, or with Secure Boot's lockdown off."
        return Finding(Status.FAIL, "lockdown", "confidentiality: BPF may read no memory", hint, 6)
    return Finding(Status.OK, "lockdown", mode or "none")


def _other_profiler() -> Finding:
    subject = "other recording"
    try:
        with host_lock.only_one_profiler():
            return Finding(Status.OK, subject, "none")
    except PyflameError as error:
        return _failed(subject, error)
    except OSError as error:
        return Finding(Status.UNKNOWN, subject, f"not checked: {error.strerror}")


def _programs() -> Finding:
    """Compile and load the programs; they are not attached to the clock, so nothing is sampled."""
    subject = "BPF programs"
    try:
        with Sampler(SamplerOptions(99)) as loaded:
            return Finding(Status.OK, subject, f"{len(loaded.program_fds())} compiled and loaded")
    except PyflameError as error:
        return _failed(subject, error)


def _interpreters() -> Finding:
    cache = FileFactsCache()
    names: Counter[str] = Counter()
    denied = 0
    for pid in proc.pids():
        try:
            found = interpreter_of(pid, cache)
        except ProcessDenied:  # noqa: PERF203 - each process may end
            denied += 1
        except (PyflameError, OSError):
            continue
        else:
            if found is not None:
                names[found.name + (" (unsupported)" if isinstance(found, UnsupportedInterpreter) else "")] += 1
    text = ", ".join(f"{count} × {name}" for name, count in sorted(names.items())) or "none"  # noqa: RUF001
    status = Status.UNKNOWN if denied else Status.OK
    return Finding(status, "Python running", text + (f"; {denied} more may not be read" if denied else ""))


# One process


def process_findings(pid: int) -> Iterator[Finding]:
    """Yield the facts of a process, and how much of it will be seen.  Raises NoProc, ProcessGone, ProcessDenied."""
    check_proc()
    if not proc.is_alive(pid):
        raise ProcessGone(pid)
    yield Finding(Status.OK, "process", f"{pid} {proc.name(pid)}, user {proc.user_id(pid)}")
    try:
        yield Finding(Status.OK, "command", proc.command_line(pid) or "(none: a kernel thread)")
    except ReadGivenUp as error:
        yield Finding(Status.WARN, "command", str(error.strerror))
    numbers = proc.namespace_pids(pid)
    if len(numbers) > 1:
        yield Finding(Status.OK, "container", f"its PID is {numbers[-1]} in its own PID namespace; give {pid} here")
    yield from _interpreter_of_process(pid)
    try:
        yield from _native_names(pid)
    except ReadGivenUp as error:
        yield Finding(Status.WARN, "native names", str(error.strerror))
    for tid in proc.thread_ids(pid):
        yield Finding(Status.OK, "thread", f"{tid} {proc.thread_name(pid, tid)}")


def _native_names(pid: int) -> Iterator[Finding]:
    """Yield a line for each reason why native functions of the process will be shown as numbers."""
    symbols = NativeSymbols()
    lacking: dict[str, list[str]] = {}
    code = [mapping for mapping in mappings(pid) if mapping.executable and mapping.path != "[vsyscall]"]
    for mapping in code:
        reason = symbols.why_unnamed(MappedFile(pid, mapping, lambda mapping: open_code(pid, mapping)))
        if reason and is_without_file(mapping) and has_perf_map(pid):
            reason = ""
        if reason:
            lacking.setdefault(reason, []).append(mapping.path or ANONYMOUS)
    if not lacking:
        yield Finding(Status.OK, "native names", f"all of {len(code)} pieces of code have symbols")
    for reason, files in lacking.items():
        names = ", ".join(dict.fromkeys(file.rpartition("/")[2] for file in files))
        yield Finding(Status.WARN, "native names", f"{names}: {reason}", _names_hint(reason))


def _names_hint(reason: str) -> str:
    if reason == STRIPPED:
        return "Install its debug symbols: Debian's find-dbgsym-packages and Fedora's debuginfo-install know which."
    return (
        "node --perf-basic-prof, java with perf-map-agent and python -X perf write one." if PERF_MAP in reason else ""
    )


def _interpreter_of_process(pid: int) -> Iterator[Finding]:
    cache = FileFactsCache()
    reason = why_not_python(pid, cache)
    if reason:
        yield Finding(Status.WARN, "interpreter", reason)
        return
    found = interpreter_of(pid, cache)
    if not isinstance(found, Interpreter):  # it has exec'ed in between
        return
    how = "shared library" if found.shared else "statically linked"
    yield Finding(Status.OK, "interpreter", f"{found.name}, {how} ({found.file})")
    source = "its own debug offsets" if found.release >= (3, 13) else "the built-in row of its release"
    yield Finding(Status.OK, "layout", f"frames are read by {source}")
    yield Finding(Status.OK, "will be seen", "Python frames with lines, native and kernel frames of all its threads")
