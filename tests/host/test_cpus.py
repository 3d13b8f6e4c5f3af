"""CPUs and their times."""

from __future__ import annotations

import os

import pytest

from pyflame_ebpf.host.cpus import (
    host_cpu_seconds,
    max_sample_rate,
    online_cpus,
    parse_cpu_list,
    parse_host_cpu_seconds,
    possible_cpus,
)


@pytest.mark.parametrize(("text", "cpus"), [("0-3,5\n", [0, 1, 2, 3, 5]), ("7\n", [7]), ("\n", [])])
def test_cpu_lists(text: str, cpus: list[int]) -> None:
    assert parse_cpu_list(text) == cpus


def test_this_machine_has_cpus() -> None:
    assert len(online_cpus()) == os.cpu_count()
    assert max(online_cpus()) < possible_cpus()
    assert max_sample_rate() > 0


def test_busy_time_of_the_host_is_without_idle_and_guest_time() -> None:
    """Guest time is in user and nice time already."""
    assert parse_host_cpu_seconds("cpu  100 20 30 999 5 1 2 7 50 10\ncpu0 1\n", 100) == 1.53


def test_busy_time_of_the_host_grows() -> None:
    before = host_cpu_seconds()
    end = os.times().user + 0.1
    while os.times().user < end:
        pass
    assert host_cpu_seconds() > before > 0
