"""The settings that the programs read at every tick."""

from __future__ import annotations

from pyflame_ebpf.profile.model import NANOSECONDS
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.maps import ByteTables


class ProgramSettings:
    """What user space changes while the programs run; every change is written at once.

    ``frequency`` is in ticks per second and CPU.  ``share`` is the part of each CPU that samples may take, None for any
    part: on a CPU where they take more, the programs walk fewer stacks, and count each for several ticks.
    """

    def __init__(self, tables: ByteTables, frequency: int, share: float | None = None) -> None:
        self._tables = tables
        self._frequency = frequency
        self._values = abi.Settings(
            ticks=1, period=NANOSECONDS // frequency, budget=int((share or 0.0) * abi.BUDGET_WINDOW)
        )
        self._write()

    def _write(self) -> None:
        self._tables.put(b"settings", bytes(4), bytes(self._values))

    @property
    def period(self) -> int:
        """Nanoseconds between two ticks of the clock."""
        return int(self._values.period)

    @property
    def counts(self) -> int:
        """The index of the map in which the programs count."""
        return int(self._values.counts)

    def flip_counts(self) -> None:
        """Let the programs count in the other map from now on."""
        self._values.counts ^= 1
        self._write()

    def end_at(self, deadline: int) -> None:
        """Let the programs sample nothing from this moment on, in nanoseconds of the monotonic clock."""
        self._values.deadline = deadline
        self._write()

    def tick_for(self, ticks: int) -> None:
        """Let each tick of the clock stand for so many ticks of the frequency.  To be called while it is stopped."""
        self._values.ticks = ticks
        self._values.period = NANOSECONDS * ticks // self._frequency
        self._write()
