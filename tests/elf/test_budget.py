"""How much time and memory one purpose may take of a file, and all files of a process together."""

from __future__ import annotations

import pytest

from pyflame_ebpf.elf.bad_elf import BadElf, OverBudget, ProcessOverBudget
from pyflame_ebpf.elf.budget import Budget, SharedBudget


class Clock:
    """Seconds that pass when they are told to."""

    now = 5.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_ends_when_its_seconds_are_spent() -> None:
    clock = Clock()
    budget = Budget(0.5, 100, clock)
    clock.now += 0.5
    budget.check("symbols")
    clock.now += 0.01
    with pytest.raises(OverBudget, match=r"^its symbols takes more than 0\.5 s of CPU time: over its budget$"):
        budget.check("symbols")
    assert budget.spent == pytest.approx(0.51)


def test_a_budget_allows_so_many_bytes_at_once() -> None:
    budget = Budget(1.0, 2 << 20)
    budget.check_size(2 << 20, "table")
    with pytest.raises(OverBudget, match=r"^its table takes more than 2 MB: over its budget$"):
        budget.check_size((2 << 20) + 1, "table")


def test_a_process_s_files_share_their_seconds_and_each_begun_one_has_its_whole_budget() -> None:
    clock = Clock()
    shared = SharedBudget(1.0, 0.3, clock=clock)
    given = []
    for _ in range(4):
        with shared.file() as budget:
            given.append(budget.seconds)
            clock.now += 0.2
    assert given == [0.3] * 4
    with pytest.raises(ProcessOverBudget, match="more than 1 s of CPU time"), shared.file():
        pass


def test_what_a_file_took_counts_also_where_it_ended_in_an_error() -> None:
    clock = Clock()
    shared = SharedBudget(1.0, 0.6, clock=clock)

    def read_damaged() -> None:
        with shared.file():
            clock.now += 0.5
            raise BadElf("it is damaged")

    with pytest.raises(BadElf, match="it is damaged"):
        read_damaged()
    with pytest.raises(ProcessOverBudget), shared.file():
        pass


def test_a_strained_budget_is_small_and_says_so() -> None:
    clock = Clock()
    shared = SharedBudget(1.0, 1.0, strained_seconds=0.05, clock=clock)
    with shared.file() as first:
        clock.now += 0.1
    with shared.file() as second:
        pass
    assert (first.strained, first.seconds) == (False, 1.0)
    assert (second.strained, second.seconds) == (True, 0.05)
