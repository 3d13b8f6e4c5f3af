"""The sampler on the running kernel: real programs, a real clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pyflame_ebpf.host.cpus import max_sample_rate, online_cpus
from pyflame_ebpf.host.proc import cpu_seconds, process_stat
from pyflame_ebpf.recording.host_lock import only_one_profiler
from pyflame_ebpf.sampling import abi, programs
from pyflame_ebpf.sampling import sampler as sampler_module
from pyflame_ebpf.sampling.counts import COUNTS, SETTLING
from pyflame_ebpf.sampling.events import Count, ProcessEvent
from pyflame_ebpf.sampling.program_text import PARTS, LoadFailed, bpf_directory, program_text
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
        loaded.maps.add_target(busy[0].pid, process_stat(busy[0].pid).start_ticks)
        counts = sampled_until(loaded, lambda counts: sum(count.samples for count in counts) >= 5000)
        counters = loaded.counters()
    lost = counters["counts_full"] + counters["tail_calls_failed"]
    assert sum(count.samples for count in counts) == counters["samples"] - lost
    assert counters["ticks"] == counters["samples"] + counters["ticks_idle"] + counters["ticks_filtered"]
    assert bool(counters["ticks_filtered"]) == targets_only
    if targets_only:
        assert {count.identity.tgid for count in counts} == {busy[0].pid}


# ---- which processes are sampled ----

PARENT = """
import os, sys, time
def fork(body):
    pid = os.fork()
    if not pid:
        body()
        os._exit(0)
    return pid
for _ in range(300):
    os.waitpid(fork(lambda: None), 0)
def compute():
    while True: pass
children = [fork(compute) for _ in range(2)]
print(*children, flush=True)
compute()
"""


def test_children_that_ended_leave_their_places_to_those_that_live() -> None:
    options = SamplerOptions(499, targets_only=True, follow_children=True)
    with sampler(options) as loaded, held_program() as parent:
        loaded.maps.add_target(parent.pid, process_stat(parent.pid).start_ticks)
        children = started_by(parent)
        counts = sampled_until(loaded, lambda counts: sampled(counts) >= {*children, parent.pid})
        targets = {key.value for key in loaded._bpf[b"targets"]}
        assert targets == {*children, parent.pid}
        assert loaded.counters()["targets_full"] == 0
        for child in children:
            os.kill(child, signal.SIGKILL)
    assert sampled(counts) == {*children, parent.pid}


def test_children_that_there_is_no_room_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    text = program_text(bpf_directory()).replace(b"u64, targets, 16384)", b"u64, targets, 2)")
    monkeypatch.setattr(programs, "program_text", lambda _directory: text)
    options = SamplerOptions(499, targets_only=True, follow_children=True)
    with sampler(options) as loaded, held_program() as parent:
        loaded.maps.add_target(parent.pid, process_stat(parent.pid).start_ticks)
        children = started_by(parent)
        counters = loaded.counters()
        for child in children:
            os.kill(child, signal.SIGKILL)
    assert counters["targets_full"] == 1  # of 302: the others ended before the next began


@pytest.mark.parametrize("earlier", [1, -1, 100_000])
def test_a_process_that_got_the_number_of_a_target_is_not_sampled(earlier: int) -> None:
    """The map has a process that started at another time, as a former owner of the number did."""
    with ExitStack() as stack:
        busy = [stack.enter_context(BusyProcess()) for _ in range(2)]
        loaded = stack.enter_context(sampler(SamplerOptions(499, targets_only=True)))
        starts = [process_stat(each.pid).start_ticks for each in busy]
        loaded.maps.add_target(busy[0].pid, starts[0] - earlier)
        loaded.maps.add_target(busy[1].pid, starts[1])
        loaded.start()
        busy[0].wait_until_used()
        busy[1].wait_until_used()
        loaded.stop()
        counts = set_apart_and_taken(loaded)
    assert sampled(counts) == {busy[1].pid}


def sampled(counts: list[Count]) -> set[int]:
    return {count.identity.tgid for count in counts}


@contextmanager
def held_program() -> Iterator[subprocess.Popen[str]]:
    """A program that waits for a line before it begins with PARENT."""
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", f"input()\n{PARENT}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        yield program
        program.kill()


def started_by(parent: subprocess.Popen[str]) -> list[int]:
    """The children of a held program that compute, once it goes on and those that only ended have done so."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write("\n")
    parent.stdin.flush()
    return [int(pid) for pid in parent.stdout.readline().split()]


# ---- what sampling may cost ----


def test_nothing_is_sampled_after_the_deadline_even_if_user_space_does_nothing() -> None:
    with BusyProcess() as busy, sampler(SamplerOptions(499)) as loaded:
        loaded.start(0.5)
        over = time.monotonic() + 0.5
        while time.monotonic() < over:
            busy.wait_until_used(0.05)
        at_deadline = loaded.counters()
        busy.wait_until_used(0.3)
        assert loaded.counters() == at_deadline
    # A host that is busy gives some CPUs their clock late.
    assert 0 < at_deadline["samples"] <= at_deadline["ticks"] <= 1.1 * 0.5 * 499 * len(online_cpus())


def test_stacks_are_walked_less_often_where_samples_take_more_than_their_share() -> None:
    """Each stack that is walked counts for the ticks passed over, and nothing is lost."""
    frequency = min(max_sample_rate(), 5000)
    with BusyProcess() as busy, sampler(SamplerOptions(frequency, share=0.005)) as loaded:
        before = cpu_seconds(busy.pid)
        loaded.start()
        busy.wait_until_used(3.0)
        used = cpu_seconds(busy.pid) - before
        loaded.stop()
        counts = set_apart_and_taken(loaded)
        counters = loaded.counters()
    lost = counters["counts_full"] + counters["tail_calls_failed"]
    assert sum(count.samples for count in counts) == counters["samples"] - lost
    assert counters["stacks_walked"] < 0.8 * counters["samples"]
    assert counters["ticks"] - counters["samples"] - counters["ticks_idle"] in range(1 << 16)  # those to come
    own = sum(count.samples for count in counts if count.identity.tgid == busy.pid)
    assert own / frequency == pytest.approx(used, rel=0.1)


def test_ticks_of_a_slower_clock_count_for_those_left_out() -> None:
    frequency = min(max_sample_rate(), 2000)
    with BusyProcess() as busy, sampler(SamplerOptions(frequency)) as loaded:
        before = cpu_seconds(busy.pid)
        loaded.start()
        for ticks in (2, 8):
            busy.wait_until_used(1.0)
            loaded.tick_for(ticks)
        busy.wait_until_used(1.0)
        used = cpu_seconds(busy.pid) - before
        loaded.stop()
        counts = set_apart_and_taken(loaded)
        counters = loaded.counters()
    own = sum(count.samples for count in counts if count.identity.tgid == busy.pid)
    assert own / frequency == pytest.approx(used, rel=0.05)
    assert counters["ticks"] == counters["samples"] + counters["ticks_idle"]
    assert counters["stacks_walked"] < 0.8 * counters["samples"]


def test_a_poll_reads_so_many_records_and_the_others_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "RECORDS", 3)
    with ExitStack() as stack:
        busy = [stack.enter_context(BusyProcess()) for _ in range(3)]
        loaded = stack.enter_context(sampler(SamplerOptions(499)))
        loaded.start()
        for each in busy:
            each.wait_until_used(0.1)
        loaded.stop()
        polled = list(iter(lambda: loaded.poll(0), []))
    met = {event.identity.tgid for events in polled for event in events if isinstance(event, ProcessEvent)}
    assert max(map(len, polled)) == 3
    assert met >= {each.pid for each in busy}


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
