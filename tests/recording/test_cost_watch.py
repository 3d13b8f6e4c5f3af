"""When a recording is slowed down because of what it costs."""

from __future__ import annotations

import pytest

from pyflame_ebpf.recording.cost_watch import (
    LEAST_FREQUENCY,
    MEMORY,
    SHARE,
    WINDOW,
    Costs,
    CostWatch,
    resident_memory,
)

CPUS = 4
SMALL = 100 << 20  # bytes


def counters(samples: int, walked: int) -> dict[str, int]:
    return {"samples": samples, "stacks_walked": walked}


def ticks_by_second(watch: CostWatch, *, share: float = 0.0, seconds: int = 12, memory: int = SMALL) -> list[int]:
    """What the watch says each second of a recorder that takes this share of the host's CPU."""
    found = []
    for second in range(1, seconds + 1):
        costs = Costs(elapsed=float(second), cpu=share * CPUS * second, memory=memory)
        watch.look(costs, counters(second, second))
        found.append(watch.ticks)
    return found


def test_a_recorder_that_costs_little_is_not_slowed() -> None:
    assert ticks_by_second(CostWatch(999, CPUS), share=0.9 * SHARE) == [1] * 12


def test_a_recorder_that_costs_too_much_in_two_windows_is_slowed_by_half_each_time() -> None:
    assert ticks_by_second(CostWatch(999, CPUS), share=1.1 * SHARE) == [1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32]


def test_a_start_that_costs_much_alone_does_not_slow_it() -> None:
    watch = CostWatch(999, CPUS)
    start = Costs(elapsed=WINDOW, cpu=3 * SHARE * CPUS * WINDOW, memory=SMALL)
    assert not watch.look(start, counters(1, 1))
    for second in range(3, 20):
        assert not watch.look(Costs(elapsed=second, cpu=start.cpu, memory=SMALL), counters(1, 1))


def test_a_recorder_that_costs_very_much_is_slowed_at_once() -> None:
    assert ticks_by_second(CostWatch(999, CPUS), share=5 * SHARE, seconds=2) == [1, 8]


def test_ticks_that_the_programs_pass_over_anyway_do_not_count_as_a_saving() -> None:
    watch = CostWatch(20_000, CPUS)
    for second in range(1, 5):
        costs = Costs(elapsed=second, cpu=1.9 * SHARE * CPUS * second, memory=SMALL)
        watch.look(costs, counters(3000 * second, 1000 * second))
    assert watch.ticks == 8  # a stack for 3 ticks, and half as many


def test_it_is_slowed_each_time_that_its_memory_grows_by_an_eighth() -> None:
    watch = CostWatch(999, CPUS)
    assert ticks_by_second(watch, memory=MEMORY, seconds=3) == [1, 1, 1]
    assert ticks_by_second(watch, memory=MEMORY + 4096, seconds=3) == [2, 2, 2]
    assert ticks_by_second(watch, memory=MEMORY * 9 // 8 + 8192, seconds=3) == [4, 4, 4]
    assert watch.lowered == {"lowered_for_samples": 0, "lowered_for_cpu": 0, "lowered_for_memory": 2}


@pytest.mark.parametrize(("frequency", "least"), [(99, 24.75), (20_000, 39.0625 / 2), (19, 19)])
def test_a_clock_is_not_slowed_below_what_is_of_use(frequency: int, least: float) -> None:
    watch = CostWatch(frequency, CPUS)
    ticks_by_second(watch, share=1.0, seconds=60)
    assert frequency / watch.ticks == pytest.approx(least, rel=1.01)
    assert frequency / watch.ticks >= min(frequency, LEAST_FREQUENCY)


def test_the_clock_follows_programs_that_pass_most_ticks_over() -> None:
    watch = CostWatch(20_000, CPUS)
    costs = Costs(elapsed=1.0, cpu=0.0, memory=SMALL)
    assert not watch.look(costs, counters(1000, 1000))
    assert not watch.look(costs, counters(2000, 1300))
    assert watch.look(costs, counters(12_000, 1400))  # a stack for 100 ticks
    assert watch.ticks == 32
    assert not watch.look(costs, counters(13_000, 1410))
    assert watch.lowered["lowered_for_samples"] == 5


def test_programs_that_sample_nothing_have_passed_nothing_over() -> None:
    watch = CostWatch(20_000, CPUS)
    assert not watch.look(Costs(elapsed=1.0, cpu=0.0, memory=SMALL), counters(0, 0))


def test_this_process_has_memory() -> None:
    assert 1 << 20 < resident_memory() < 1 << 36
