"""Segments and their samples by second."""

from __future__ import annotations

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.stacks.segments import CountLog
from tests.stacks.records import PROCESSES, count_of, deep_stack


def test_samples_come_back_by_second_as_they_were_counted() -> None:
    log = CountLog(Numbering())
    counts = {second: [count_of(deep_stack(index), index + 1) for index in range(50)] for second in (0, 1, 5)}
    for second, counted in counts.items():
        log.add(second, counted)
    assert list(log) == [(second, each) for second, counted in counts.items() for each in counted]


def test_logs_may_share_the_numbers_of_processes() -> None:
    numbers: Numbering[Identity] = Numbering()
    logs = [CountLog(numbers), CountLog(numbers)]
    for log, index in zip(logs, (1, 0), strict=True):
        log.add(0, [count_of(deep_stack(index))])
    assert [count.identity for log in logs for _, count in log] == [PROCESSES[1], PROCESSES[0]]
    assert numbers.distinct == [PROCESSES[1], PROCESSES[0]]


def test_a_second_without_samples_takes_nothing() -> None:
    log = CountLog(Numbering())
    log.add(0, [])
    assert (log.size, list(log)) == (0, [])
