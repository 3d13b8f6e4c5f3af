"""Capabilities of this process."""

from __future__ import annotations

import pytest

from pyflame_ebpf.host.capabilities import (
    CAPABILITIES,
    effective_capabilities,
    in_initial_pid_namespace,
    kept_while_sampling,
    missing_capabilities,
    useful_capabilities_missing,
)

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


def test_capabilities_that_only_root_or_older_kernels_use_are_not_missed() -> None:
    required = PTRACE | PERFMON | BPF
    assert [each.name for each in useful_capabilities_missing(status(required))] == [
        "CAP_DAC_READ_SEARCH",
        "CAP_CHECKPOINT_RESTORE",
        "CAP_SYSLOG",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SYS_NICE",
    ]
    assert [each.name for each in useful_capabilities_missing(status(required | SYSLOG))][2] == "CAP_SETUID"


def test_sampling_keeps_what_reads_targets_and_gives_up_what_raises_limits() -> None:
    given_up = {each.name for each in CAPABILITIES if not kept_while_sampling(40) >> each.bit & 1}
    assert given_up == {"CAP_SYS_NICE", "CAP_SYS_RESOURCE"}
    assert not kept_while_sampling(40) & ADMIN
    assert kept_while_sampling(39) == kept_while_sampling(40) | ADMIN  # a kernel without CAP_CHECKPOINT_RESTORE


@pytest.mark.root
def test_root_lacks_nothing() -> None:
    assert missing_capabilities() == []
    assert in_initial_pid_namespace()
