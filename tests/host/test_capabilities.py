"""Capabilities of this process."""

from __future__ import annotations

import pytest

from pyflame_ebpf.host.capabilities import effective_capabilities, in_initial_pid_namespace, missing_capabilities

PTRACE, ADMIN, SYSLOG, PERFMON, BPF = (1 << bit for bit in (19, 21, 34, 38, 39))  # include/uapi/linux/capability.h


def status(bits: int, name: bytes = b"python3") -> bytes:
    return b"Name:\t%s\nCapPrm:\t000001ffffffffff\nCapEff:\t%016x\nCapBnd:\t000001ffffffffff\n" % (name, bits)


@pytest.mark.parametrize(
    ("bits", "missing"),
    [
        (0, ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]),
        (PTRACE | PERFMON | BPF, []),
        (PTRACE | PERFMON | SYSLOG, ["CAP_BPF"]),
        (PTRACE | BPF, ["CAP_PERFMON"]),
        (PERFMON | BPF, ["CAP_SYS_PTRACE"]),
        (ADMIN, ["CAP_SYS_PTRACE"]),
        (ADMIN | PTRACE, []),
    ],
)
def test_sys_admin_stands_for_the_capabilities_split_from_it(bits: int, missing: list[str]) -> None:
    assert missing_capabilities(status(bits)) == missing


def test_a_name_that_looks_like_a_line_gives_no_capability() -> None:
    assert effective_capabilities(status(0, b"\x0cCapEff:\t000001ffffffffff\x0c")) == set()
    assert effective_capabilities(b"Name:\tx\n") == set()


def test_syslog_is_told_though_it_is_not_required() -> None:
    assert effective_capabilities(status(SYSLOG)) == {"CAP_SYSLOG"}


@pytest.mark.root
def test_root_lacks_nothing() -> None:
    assert missing_capabilities() == []
    assert in_initial_pid_namespace()
