"""Memory of other processes."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from pyflame_ebpf.host import read_operations
from pyflame_ebpf.host.memory import read_memory

BUFFER = ctypes.create_string_buffer(b"interpreter")
ADDRESS = ctypes.addressof(BUFFER)


def test_memory_is_read_exactly_or_not_at_all() -> None:
    assert [read_memory(os.getpid(), ADDRESS, size) for size in (0, 1, 11)] == [b"", b"i", b"interpreter"]
    for address, size in ((0, 8), (8, 8), (8, 64 << 20), ((1 << 64) - 8, 8)):
        with pytest.raises(OSError, match="Bad address"):
            read_memory(os.getpid(), address, size)


@pytest.mark.parametrize(("address", "size"), [(-1, 8), (1 << 64, 8), (8, -1), (8, (64 << 20) + 1)])
def test_what_no_process_has_is_not_asked_for(address: int, size: int) -> None:
    with pytest.raises(OSError, match="cannot be asked for"):
        read_memory(os.getpid(), address, size)


@pytest.fixture(params=[errno.EPERM, errno.ENOSYS])
def forbidden(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A seccomp filter that refuses process_vm_readv."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(request.param)
        return -1

    monkeypatch.setattr(read_operations, "_process_vm_readv", refuse)


@pytest.mark.usefixtures("forbidden")
def test_where_the_call_is_forbidden_the_file_of_the_memory_is_read() -> None:
    assert read_memory(os.getpid(), ADDRESS, 11) == b"interpreter"
    for address in (8, (1 << 64) - 8):
        with pytest.raises(OSError):  # noqa: PT011 - which depends on the kernel
            read_memory(os.getpid(), address, 8)


@pytest.mark.usefixtures("forbidden")
def test_the_file_of_the_memory_is_closed() -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names wanted
    read_memory(os.getpid(), ADDRESS, 11)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - names wanted
