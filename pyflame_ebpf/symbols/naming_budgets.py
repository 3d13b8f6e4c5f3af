"""What finding names may take: a budget for the files of each process."""

from __future__ import annotations

import time

from pyflame_ebpf.elf.budget import (
    NAMING_BYTES,
    NAMING_ENDED_SECONDS,
    NAMING_PROCESS_SECONDS,
    NAMING_SECONDS,
    NAMING_STRAINED_SECONDS,
    Clock,
    SharedBudget,
)

RENEWED_AFTER = 300.0  # seconds: a live view names for days


class NamingBudgets:
    """The budgets by PID, 0 for all processes that have ended; all begin anew after five minutes."""

    def __init__(self, cpu: Clock = time.thread_time, now: Clock = time.monotonic) -> None:
        self._cpu = cpu
        self._now = now
        self._budgets: dict[int, SharedBudget] = {}
        self._renewed = now()

    def of(self, pid: int) -> SharedBudget:
        """The budget of a process."""
        if self._now() - self._renewed > RENEWED_AFTER:
            self._budgets.clear()
            self._renewed = self._now()
        if pid not in self._budgets:
            seconds = NAMING_PROCESS_SECONDS if pid else NAMING_ENDED_SECONDS
            self._budgets[pid] = SharedBudget(
                seconds, NAMING_SECONDS, NAMING_BYTES, strained_seconds=NAMING_STRAINED_SECONDS, clock=self._cpu
            )
        return self._budgets[pid]
