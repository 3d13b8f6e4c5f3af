"""Counts as the programs leave them, without bcc: its tables are stand-ins that answer as a release of bcc does."""

from __future__ import annotations

import ctypes

import pytest

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.counts import COUNTS, SampleCounts, _take_all, read_counters
from pyflame_ebpf.sampling.maps import ByteTables
from pyflame_ebpf.sampling.settings import ProgramSettings
from tests.sampling.tables import Bcc018, Bcc026, Bcc029, FakeTables

IDENTITY = Identity(5, 6, 7)


@pytest.mark.parametrize("table_of", [Bcc018, Bcc026, Bcc029])
def test_counts_are_taken_as_numbers_whatever_the_release_of_bcc_gives(table_of: type[Bcc018]) -> None:
    table = table_of({b"one": ctypes.c_ulonglong(1), b"many": ctypes.c_ulonglong(1 << 40)})
    assert dict(_take_all(table)) == {b"one": 1, b"many": 1 << 40}
    assert table == {}


class CountingPrograms:
    """Programs that count: a tick reads the setting, and counts later, in the map that the setting named."""

    def __init__(self) -> None:
        self.settings = FakeTables()
        self.maps = {name: Bcc026() for name in COUNTS}
        self.told = ProgramSettings(ByteTables(self.settings), 99, share=0.05)
        self.counts = SampleCounts(self.maps, self.told)

    def setting(self) -> abi.Settings:
        return abi.Settings.from_buffer_copy(self.settings.entries(b"settings")[bytes(4)])

    def begin_tick(self) -> bytes:
        return COUNTS[self.setting().counts]

    def end_tick(self, name: bytes, stack_id: int = 1) -> None:
        key = bytes(abi.CountKey(abi.raw_identity(IDENTITY), stack_id, 8))
        self.maps[name].setdefault(key, ctypes.c_ulonglong()).value += 1

    def tick(self, stack_id: int = 1) -> None:
        self.end_tick(self.begin_tick(), stack_id)

    def taken(self) -> dict[int, int]:
        return {count.stack_id: count.samples for count in self.counts.take()}


@pytest.fixture
def programs() -> CountingPrograms:
    return CountingPrograms()


def test_programs_are_told_the_time_between_two_ticks(programs: CountingPrograms) -> None:
    assert (programs.setting().ticks, programs.setting().period) == (1, 10_101_010)


def test_programs_are_told_what_samples_of_a_cpu_may_take_in_a_second(programs: CountingPrograms) -> None:
    assert programs.setting().budget == 50_000_000
    assert (abi.BUDGET_WINDOW, programs.setting().deadline) == (1_000_000_000, 0)


def test_a_slower_clock_has_ticks_that_stand_for_several(programs: CountingPrograms) -> None:
    programs.told.tick_for(8)
    assert (programs.setting().ticks, programs.setting().period) == (8, 80_808_080)
    assert programs.told.period == 80_808_080


def test_settings_stay_when_others_change(programs: CountingPrograms) -> None:
    programs.told.end_at(1 << 50)
    programs.told.tick_for(2)
    programs.counts.flip()
    found = programs.setting()
    assert (found.counts, found.ticks, found.deadline, found.budget) == (1, 2, 1 << 50, 50_000_000)


def test_samples_before_a_flip_are_taken_and_those_after_it_are_not(programs: CountingPrograms) -> None:
    programs.tick(1)
    programs.tick(1)
    programs.tick(2)
    programs.counts.flip()
    programs.tick(3)
    assert programs.taken() == {1: 2, 2: 1}
    programs.counts.flip()
    assert programs.taken() == {3: 1}
    assert programs.taken() == {}


def test_a_sample_whose_tick_began_before_the_flip_counts_before_it(programs: CountingPrograms) -> None:
    late = programs.begin_tick()
    programs.counts.flip()
    programs.tick(2)
    programs.end_tick(late)
    assert programs.taken() == {1: 1}


def test_a_sample_that_came_after_its_map_was_taken_comes_with_the_next(programs: CountingPrograms) -> None:
    late = programs.begin_tick()
    programs.counts.flip()
    assert programs.taken() == {}
    programs.end_tick(late)
    programs.counts.flip()
    assert programs.taken() == {}
    programs.counts.flip()
    assert programs.taken() == {1: 1}


def test_no_sample_is_lost_however_ticks_and_flips_fall(programs: CountingPrograms) -> None:
    begun: list[bytes] = []
    taken = 0
    for step in range(1000):
        if step % 7:
            begun.append(programs.begin_tick())
        if step % 3 == 0 and begun:
            programs.end_tick(begun.pop(0), step)
        if step % 10 == 5:
            programs.counts.flip()
        if step % 10 == 8:
            taken += sum(programs.taken().values())
    for name in begun:
        programs.end_tick(name)
    for _ in COUNTS:
        programs.counts.flip()
        taken += sum(programs.taken().values())
    assert taken == 857  # as many as began


def test_counters_are_sums_over_cpus() -> None:
    class Counters(dict[int, list[ctypes.Array[ctypes.c_uint64]]]):
        Key = int

    block = ctypes.c_uint64 * len(abi.COUNTERS)
    blocks = [block(*range(len(abi.COUNTERS))), block(*[1 << 40] * len(abi.COUNTERS))]
    expected = {name: number + (1 << 40) for number, name in enumerate(abi.COUNTERS)}
    assert read_counters(Counters({0: blocks})) == expected
