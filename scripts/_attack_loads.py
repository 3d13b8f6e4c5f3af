"""Loads that a recorder must survive: each for a minute, with what the kernel charged beside what was sampled."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _attack_runs import LATE, MEMORY, Ended, Seen, attacker, record

FULL, SHORT = 60.0, 5.0  # seconds of recording
SETTLING = 3.0  # seconds for a load to get going
APART = 0.01  # of the CPU time that the kernel charged

HEAD = r"""
import ctypes, os, subprocess, sys, threading, time
place = sys.argv[1]
def work(seconds):
    end = time.time() + seconds
    while time.time() < end: sum(range(300))
def started(): print("ready", flush=True)
"""
PROCESSES = r"""
for _ in range(1000):
    if not os.fork():
        while True: work(.001); time.sleep(1)
started()
time.sleep(600)
"""
THREADS = r"""
def turns():
    while True: sum(range(2000)); time.sleep(1)
threading.stack_size(1 << 16)
for _ in range(10):
    if not os.fork():
        for _ in range(1000): threading.Thread(target=turns, daemon=True).start()
        time.sleep(600)
started()
time.sleep(600)
"""
STACKS = r"""
made = []
for i in range(60):
    exec(f"def f{i}(k, n):\n  if n == 0: return sum(range(40))\n  return made[k % 60](k // 60, n - 1)")
    made.append(globals()[f"f{i}"])
started()
k = 0
while True: k += 1; made[k % 60](k * 7919, 8)
"""
SPAWNS = r"""
started()
begun, n = time.time(), 0
while True:
    n += 1
    pid = os.fork()
    if not pid:
        if n % 2: os.execv("/bin/true", ["true"])
        sum(range(20000))
        os._exit(0)
    os.waitpid(pid, 0)
    if (early := begun + n / 300 - time.time()) > 0: time.sleep(early)
"""
CODES = r"""
started()
begun, n = time.time(), 0
while True:
    for _ in range(50):
        n += 1
        exec(compile(f"def f{n}():\n  for i in range(60): pass\nf{n}()", f"generated{n}.py", "exec"))
    if (early := begun + n / 5000 - time.time()) > 0: time.sleep(early)
"""
DEPTH = r"""
sys.setrecursionlimit(20000)
threading.stack_size(512 << 20)
def outermost(): down(5000)
def down(left):
    if left: return down(left - 1)
    innermost()
def innermost():
    while True: sum(range(5000))
threading.Thread(target=outermost).start()
started()
"""
LIBRARIES = r"""
libm = "/usr/lib/x86_64-linux-gnu/libm.so.6"
import shutil
found = []
for i in range(300):
    path = shutil.copy(libm, f"{place}/{i}.so")
    function = ctypes.CDLL(path).cbrt
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
    found.append(function)
started()
while True:
    for function in found: function(3.0)
"""
BINARY = r"""
names = [f"fun_{i}_{'n' * 200}" for i in range(60000)]
with open(f"{place}/big.c", "w") as file:
    for i, name in enumerate(names): file.write(f"int {name}(int a) {{ return a * {i} + {i % 7}; }}\n")
    file.write("char pad[150 << 20] = {1};\n")
    file.write("int main() { volatile int s = 0; for (int i = 0;; i++) s += %s(i); }\n" % names[777])
subprocess.run(["gcc", "-O0", "-o", f"{place}/big", f"{place}/big.c"], check=True)
started()
subprocess.run([f"{place}/big"])
"""


@dataclass(frozen=True, slots=True)
class Load:
    """A program that loads the host, and what the recorder is told beside the duration."""

    program: str
    arguments: tuple[str, ...] = ("--all",)


LOADS = {
    "1000-processes": Load(PROCESSES),
    "10000-threads": Load(THREADS),
    "300-spawns-a-second": Load(SPAWNS),
    "200000-stacks": Load(STACKS, ("--all", "--frequency", "999")),
    "5000-code-objects-a-second": Load(CODES),
    "5000-frames": Load(DEPTH),
    "300-libraries": Load(LIBRARIES),
    "200-mb-binary": Load(BINARY),
    "20000-hz": Load(SPAWNS, ("--all", "--frequency", "20000", "--force")),
}


def load(name: str) -> Callable[[Path, bool], Seen]:
    """Return the case of a load."""

    def run(place: Path, quick: bool) -> Seen:
        if LOADS[name].program == BINARY and shutil.which("gcc") is None:
            return Seen(False, "gcc is not installed")
        place.chmod(0o777)
        with attacker(HEAD + LOADS[name].program, str(place)):
            time.sleep(SETTLING)
            ended = record(LOADS[name].arguments, place, seconds=SHORT if quick else FULL)
        return _judged(ended)

    return run


def _judged(ended: Ended) -> Seen:
    """Compare what was sampled with what the kernel charged, where that was noted."""
    if ended.profile is None:
        return Seen(False, ended.text())
    recording = ended.profile.recording
    sampled = ended.profile.total / recording.frequency
    charged = recording.scheduler_cpu
    apart = abs(sampled / charged - 1) if charged else 0.0
    lost = recording.lost
    text = (
        f"{ended.text()}; sampled {sampled:.1f} s of {charged or 0:.1f} s ({apart:.1%} apart), {lost} lost, "
        f"own CPU {ended.cpu / recording.duration:.1%} of one CPU"
    )
    in_bounds = ended.late <= LATE and ended.memory <= MEMORY
    return Seen(ended.well() and in_bounds and (apart <= APART or lost > 0), text)
