"""High rates over a busy host: sampling ends in time, the lowered rate is told, and the weights are right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyflame_ebpf.host.cpus import max_sample_rate, online_cpus
from pyflame_ebpf.profile.file import load_profile
from pyflame_ebpf.profile.model import Profile
from tests.command_line import BusyProcess, RunningRecording

pytestmark = pytest.mark.root

DURATION = 10.0

DIVERSE_STACKS = """
functions = []
for i in range(40):
    exec(f"def f{i}(k, n):\\n  if n: return functions[k % 40](k // 40, n - 1)\\n  return sum(range(40))")
    functions.append(globals()[f"f{i}"])
k = 0
while True:
    k += 1
    functions[k % 40](k * 7919, 6)
"""

GENERATED_CODE = """
n = 0
while True:
    n += 1
    exec(compile(f"def g{n}():\\n x = 0\\n for i in range(60): x += i\\ng{n}()", f"generated_{n}.py", "exec"))
"""

DEEP_STACKS = """
import sys, threading
sys.setrecursionlimit(20000)
threading.stack_size(512 << 20)
def down(n):
    if n: return down(n - 1)
    while True: sum(range(5000))
threading.Thread(target=down, args=(5000,)).start()
"""


@pytest.fixture
def busy_host() -> Iterator[list[BusyProcess]]:
    with ExitStack() as stack:
        programs = (DIVERSE_STACKS, GENERATED_CODE, DEEP_STACKS) * max(1, len(online_cpus()) // 2)
        yield [stack.enter_context(BusyProcess(program)) for program in programs]


@pytest.mark.parametrize("frequency", [20_000])
def test_a_recording_at_a_forced_rate_has_its_duration_and_the_right_weights(
    frequency: int, busy_host: list[BusyProcess], tmp_path: Path
) -> None:
    if frequency > max_sample_rate():
        pytest.skip(f"this kernel allows {max_sample_rate()} Hz")
    for each in busy_host:
        each.wait_until_used(0.2)
    output = tmp_path / "out"
    arguments = ("--all", "--force", "--frequency", str(frequency), "--duration", str(DURATION), "--output", output)
    with RunningRecording(*arguments) as recording:
        assert recording.end() == 0, recording.stderr
    with (output / "profile.json.gz").open("rb") as saved:
        profile = load_profile(saved)
    assert profile.recording.duration == DURATION
    assert_rate_was_lowered(profile, recording.stdout)
    assert profile.recording.scheduler_cpu is not None
    assert profile.unit.seconds(profile.total) == pytest.approx(profile.recording.scheduler_cpu, rel=0.05)


def assert_rate_was_lowered(profile: Profile, said: str) -> None:
    counters = profile.recording.counters
    assert counters["stacks_walked"] < counters["samples"]
    told = re.search(r"rate lowered to bound the cost: ([\d,]+) stacks\s+were walked", said)
    assert told
    assert int(told[1].replace(",", "")) == counters["stacks_walked"]
    share = counters["sampling_ns"] / 1e9 / profile.recording.duration / profile.recording.cpus
    assert share < 0.1
