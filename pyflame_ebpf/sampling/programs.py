"""The BPF programs: compiled, loaded and attached to tracepoints.  The only importer of bcc."""

from __future__ import annotations

import ctypes
import importlib
import os
from dataclasses import KW_ONLY, dataclass
from typing import Any

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.cpus import possible_cpus
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.kernel_flags import kernel_flags
from pyflame_ebpf.sampling.own_memory import give_back
from pyflame_ebpf.sampling.program_loading import captured_stderr, load_together, said
from pyflame_ebpf.sampling.program_text import LoadFailed, bpf_directory, program_text

RING_PAGES = 2048  # 8 MiB: some 3,000 code objects with their line tables, or 10,000 stacks, between two polls
COPY_PAGES = 1024  # 4 MiB: the memory of at least 32 stacks

# The compiler's own passes are left out, since bcc runs its own over the result, and so is debugging information: half
# of the time.
COMPILER_FLAGS = ("-Wno-unused-function", "-g0", "-Xclang", "-disable-llvm-passes")

TICK = "on_tick"
STAGES = tuple(f"stage_{stage}" for stage in abi.STAGES)
TRACEPOINTS = {"sched_process_exec": "on_exec", "sched_process_exit": "on_exit"}
FORK_TRACEPOINT = {"sched_process_fork": "on_fork"}
LONG_TO_VERIFY = ("stage_unwind", "stage_walk", "stage_new_stack")  # these have the loops; the longest first


class BccMissing(PyflameError):
    """bcc cannot be imported, or what is imported is not bcc."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """How the programs sample; ``frequency`` in ticks per second and CPU.

    ``share`` is the part of each CPU that samples may take before fewer stacks are walked, None for any part.
    """

    frequency: int
    _: KW_ONLY
    kernel: bool = True
    native: bool = True
    targets_only: bool = False
    follow_children: bool = False
    ring_pages: int = RING_PAGES
    share: float | None = None

    @property
    def tracepoints(self) -> dict[str, str]:
        """{tracepoint: program that it runs}."""
        return TRACEPOINTS | FORK_TRACEPOINT if self.follow_children else TRACEPOINTS

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


def import_bcc() -> Any:
    """The bcc module of the distribution.

    Raises BccMissing if there is none, or PyPI's package of the same name in its place.
    """
    hint = "Install the distribution's package: apt-get install python3-bpfcc (PyPI's 'bcc' is something else)."
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "kernel")
    try:
        bcc = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise BccMissing(f"bcc, the BPF compiler's Python module, cannot be imported: {error}", hint) from error
    if not hasattr(bcc, "BPF"):
        raise BccMissing(f"the module 'bcc' found at {bcc.__file__} is not the BPF compiler", hint)
    return bcc


def compile_programs(options: SamplerOptions, text: bytes | None = None) -> Any:
    """The compiled programs as a ``bcc.BPF``, none of them loaded; ``text`` in place of the installed one.

    Raises BccMissing or NoBtf; and Exception, as bcc does, if the compiler refuses the text.
    """
    directory = bpf_directory()
    flags = [f"-I{directory}", *COMPILER_FLAGS, *options.flags(), *kernel_flags()]
    return import_bcc().BPF(text=text or program_text(directory), cflags=flags)


class Programs:
    """The loaded programs, attached to their tracepoints until ``unload``; a clock must be made to run the first.

    Raises BccMissing, NoBtf, or LoadFailed if the compiler or the kernel refuses them.
    """

    def __init__(self, options: SamplerOptions) -> None:
        with captured_stderr() as captured:
            try:
                self.bpf = compile_programs(options)
                self.tick = self._load(options)
            except PyflameError:
                raise
            except Exception as error:  # bcc raises plain Exception for everything
                raise LoadFailed(
                    f"the BPF programs could not be loaded: {error}\n{said(captured)}".rstrip(),
                    "Run 'pyflame-ebpf doctor' to see what this host lacks; Linux 5.8 with BTF is the least.",
                ) from error
        give_back()  # what compiling took

    def _load(self, options: SamplerOptions) -> int:
        """Load and attach all programs; the file descriptor of the one that a tick runs."""
        kinds = dict.fromkeys((*LONG_TO_VERIFY, *STAGES, TICK), self.bpf.PERF_EVENT)
        kinds |= dict.fromkeys(options.tracepoints.values(), self.bpf.RAW_TRACEPOINT)
        loaded = load_together(self.bpf, kinds)
        stages = self.bpf[b"stages"]
        for index, name in enumerate(STAGES):
            stages[ctypes.c_uint32(index)] = ctypes.c_int(loaded[name].fd)
        for tracepoint, name in options.tracepoints.items():
            self.bpf.attach_raw_tracepoint(tp=tracepoint.encode(), fn_name=name.encode())
        return int(loaded[TICK].fd)

    def fds(self) -> list[int]:
        """File descriptors of all programs."""
        return [function.fd for function in self.bpf.funcs.values()]

    def detach(self) -> None:
        """Close the tracepoints; they stay attached for a process that this one was forked from."""
        for tracepoint in list(self.bpf.raw_tracepoint_fds):
            self.bpf.detach_raw_tracepoint(tracepoint)

    def unload(self) -> None:
        """Detach and unload everything."""
        self.bpf.cleanup()
