"""The CPU clock: one perf event on each CPU that is online, whose ticks run the first program."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from pyflame_ebpf.host.cpus import online_cpus
from pyflame_ebpf.sampling.program_text import LoadFailed
from pyflame_ebpf.sampling.x86_64 import SYS_PERF_EVENT_OPEN

# include/uapi/linux/perf_event.h
_PERF_TYPE_SOFTWARE, _PERF_COUNT_SW_CPU_CLOCK = 1, 0
_PERF_SAMPLE_RAW = 1 << 10
_PERF_ATTR_DISABLED = 1 << 0
_PERF_ATTR_SIZE = 64  # PERF_ATTR_SIZE_VER0: all that is used here
_PERF_FLAG_FD_CLOEXEC = 1 << 3
_PERF_EVENT_IOC_SET_BPF, _PERF_EVENT_IOC_ENABLE, _PERF_EVENT_IOC_DISABLE = 0x40042408, 0x2400, 0x2401
_PERF_EVENT_IOC_PERIOD = 0x40082404


class CpuClock:
    """Ticks every ``period`` nanoseconds on every CPU, each of which runs the program with this file descriptor."""

    def __init__(self, period: int, program: int) -> None:
        self._period = period
        self._program = program
        self._events: dict[int, int] = {}  # CPU → file descriptor

    def follow_cpus(self) -> None:
        """Let CPUs tick that have come online, and close the events of those that went offline.

        Raises LoadFailed if the kernel does not allow it.
        """
        online = set(online_cpus())
        for cpu in online - self._events.keys():
            with contextlib.suppress(ProcessLookupError):  # went offline between the two looks
                self._events[cpu] = self._open(cpu)
        for cpu in self._events.keys() - online:
            os.close(self._events.pop(cpu))

    def _open(self, cpu: int) -> int:
        attributes = struct.pack(
            "<IIQQQQQ",
            _PERF_TYPE_SOFTWARE,
            _PERF_ATTR_SIZE,
            _PERF_COUNT_SW_CPU_CLOCK,
            self._period,
            _PERF_SAMPLE_RAW,
            0,
            _PERF_ATTR_DISABLED,
        ).ljust(_PERF_ATTR_SIZE, b"\0")
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(SYS_PERF_EVENT_OPEN, attributes, -1, cpu, -1, _PERF_FLAG_FD_CLOEXEC)
        if fd < 0:
            code = ctypes.get_errno()
            if code == errno.ENODEV:
                raise ProcessLookupError
            raise LoadFailed(
                f"the CPU clock of CPU {cpu} could not be sampled: {os.strerror(code)}",
                "Needs CAP_PERFMON or root; in a container, its seccomp profile must allow perf_event_open.",
            )
        fcntl.ioctl(fd, _PERF_EVENT_IOC_SET_BPF, self._program)
        fcntl.ioctl(fd, _PERF_EVENT_IOC_ENABLE, 0)
        return int(fd)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """No ticks meanwhile, some microseconds for each CPU."""
        for event in self._events.values():
            fcntl.ioctl(event, _PERF_EVENT_IOC_DISABLE, 0)
        yield
        for event in self._events.values():
            fcntl.ioctl(event, _PERF_EVENT_IOC_ENABLE, 0)

    def set_period(self, period: int) -> None:
        """Tick every so many nanoseconds from now on."""
        self._period = period
        for event in self._events.values():
            fcntl.ioctl(event, _PERF_EVENT_IOC_PERIOD, struct.pack("<Q", period))

    def stop(self) -> None:
        """End all ticks, also where a forked copy of this process holds the events open."""
        for event in self._events.values():
            fcntl.ioctl(event, _PERF_EVENT_IOC_DISABLE, 0)
        self.let_go()

    def let_go(self) -> None:
        """Close the events; they tick on for a process that this one was forked from."""
        while self._events:
            os.close(self._events.popitem()[1])
