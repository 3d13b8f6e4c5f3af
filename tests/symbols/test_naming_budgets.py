"""What finding names may take, by process."""

from __future__ import annotations

from pyflame_ebpf.symbols.naming_budgets import RENEWED_AFTER, NamingBudgets


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_process_has_its_own_budget_and_after_five_minutes_a_new_one() -> None:
    cpu, now = Clock(), Clock()
    budgets = NamingBudgets(cpu, now)
    with budgets.of(7).file():
        cpu.now += 9
    strained = []
    for pid in (7, 8, 0):
        with budgets.of(pid).file() as budget:
            strained.append(budget.strained)
    assert strained == [True, False, False]
    now.now += RENEWED_AFTER + 1
    with budgets.of(7).file() as budget:
        assert not budget.strained
