"""The sampler on the running kernel: real programs, a real clock."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pyflame_ebpf.host.cpus import max_sample_rate, online_cpus
from pyflame_ebpf.recording.host_lock import only_one_profiler
from pyflame_ebpf.sampling import abi, programs
from pyflame_ebpf.sampling.counts import COUNTS, SETTLING
from pyflame_ebpf.sampling.events import Count
from pyflame_ebpf.sampling.program_text import PARTS, LoadFailed, bpf_directory
from pyflame_ebpf.sampling.programs import Programs
from pyflame_ebpf.sampling.sampler import Sampler, SamplerOptions
from tests.command_line import BusyProcess, wait_for_other_recordings

pytestmark = pytest.mark.root

IN_KERNEL = "zeros = open('/dev/zero', 'rb', buffering=0)\nwhile True: zeros.read(1 << 20)"


@contextmanager
def sampler(options: SamplerOptions) -> Iterator[Sampler]:
    wait_for_other_recordings()
    with only_one_profiler(), Sampler(options) as loaded:
        yield loaded


def set_apart_and_taken(sampler: Sampler) -> list[Count]:
    sampler.flip_counts()
    sampler.poll(0)
    time.sleep(SETTLING)
    return sampler.take_counts()


def sampled_until(sampler: Sampler, enough: Callable[[list[Count]], bool]) -> list[Count]:
    """All samples from start to stop, by which time there were enough."""
    counts: list[Count] = []
    sampler.start()
    while not enough(counts):
        counts += set_apart_and_taken(sampler)
    sampler.stop()
    for _ in COUNTS:
        counts += set_apart_and_taken(sampler)
    return counts


@pytest.mark.parametrize("targets_only", [False, True])
def test_every_tick_is_a_sample_or_counted_as_what_it_is_however_often_counts_are_taken(targets_only: bool) -> None:
    frequency = min(max_sample_rate(), 5000)
    with ExitStack() as stack:
        busy = [stack.enter_context(BusyProcess()) for _ in online_cpus()]
        loaded = stack.enter_context(sampler(SamplerOptions(frequency, targets_only=targets_only)))
        loaded.maps.add_target(busy[0].pid)
        counts = sampled_until(loaded, lambda counts: sum(count.samples for count in counts) >= 5000)
        counters = loaded.counters()
    lost = counters["counts_full"] + counters["tail_calls_failed"]
    assert sum(count.samples for count in counts) == counters["samples"] - lost
    assert counters["ticks"] == counters["samples"] + counters["ticks_idle"] + counters["ticks_filtered"]
    assert bool(counters["ticks_filtered"]) == targets_only
    if targets_only:
        assert {count.identity.tgid for count in counts} == {busy[0].pid}


def test_a_tick_in_the_kernel_has_the_registers_of_user_space() -> None:
    with BusyProcess(IN_KERNEL) as busy, sampler(SamplerOptions(999)) as loaded:

        def in_kernel(counts: list[Count]) -> Counter[str]:
            outcomes = Counter[str]()
            for count in counts:
                if count.identity.tgid == busy.pid and count.kernel_mode:
                    outcomes[abi.NATIVE_OUTCOMES[count.native].name] += count.samples
            return outcomes

        counts = sampled_until(loaded, lambda counts: in_kernel(counts).total() >= 500)
    # The walk began, and lacked the mappings, which nobody has sent.
    assert set(in_kernel(counts)) == {"NO_MAPPING"}


@pytest.mark.parametrize("part", PARTS)
def test_the_compilers_message_names_the_file_and_line_of_a_broken_part(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / 'bpf "copy"'
    shutil.copytree(bpf_directory(), copy)
    lines = (copy / part).read_text().splitlines()
    (copy / part).write_text("\n".join([*lines, "int broken = no_such_name;", ""]))
    monkeypatch.setattr(programs, "bpf_directory", lambda: copy)
    with pytest.raises(LoadFailed) as refused:
        Programs(SamplerOptions(99))
    place = f"{copy}/{part}:{len(lines) + 1}:14"
    assert f"{place}: error: use of undeclared identifier 'no_such_name'" in str(refused.value)
