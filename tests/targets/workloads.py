"""Burns CPU in the way that its first argument names; prints "ready" once it does.  Runs in CPython 3.6.

At SIGUSR1, "deep" prints the rounds done so far and the monotonic time.
"""

import hashlib
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import zlib
from typing import Callable, List

CHUNK = 1 << 20


def ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def spin(turns: int = 20000) -> int:
    total = 0
    for turn in range(turns):
        total ^= turn
    return total


def busy() -> None:
    ready()
    while True:
        spin()


def bursty() -> None:
    """Some tens of milliseconds of CPU, some of sleep, never the same."""
    ready()
    while True:
        end = time.perf_counter() + random.uniform(0.005, 0.06)
        while time.perf_counter() < end:
            spin(2000)
        time.sleep(random.uniform(0.002, 0.02))


def system_calls() -> None:
    ready()
    source, sink = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
    while True:
        copy_zeros(source, sink)


def copy_zeros(source: int, sink: int) -> None:
    for _ in range(200):
        os.write(sink, os.read(source, 16384))
        os.getppid()


def threads(number: str = "4") -> None:
    for index in range(int(number)):
        start_thread("spinner-%d" % index, spin_for_ever)
    ready()
    spin_for_ever()


def spin_for_ever() -> None:
    while True:
        spin()


def start_thread(name: str, function: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, name=name, daemon=True).start()


def gil_free(number: str = "3") -> None:
    """Threads that compute in C with the GIL released."""
    data = os.urandom(CHUNK)
    for index in range(int(number)):
        start_thread("digest-%d" % index, digest_for_ever, data)
    ready()
    compress_for_ever(data)


def digest_for_ever(data: bytes) -> None:
    while True:
        hashlib.sha256(data).digest()


def compress_for_ever(data: bytes) -> None:
    while True:
        zlib.compress(data, 6)


def named_threads() -> None:
    """Threads whose kernel names are set, as releases before 3.14 do not by themselves."""
    for name in ("reader", "writer"):
        start_thread(name, spin_as, name)
    ready()
    time.sleep(3600)


def spin_as(name: str) -> None:
    with open("/proc/self/task/%d/comm" % thread_id(), "w") as comm:  # noqa: PTH123
        comm.write(name)
    spin_for_ever()


def thread_id() -> int:
    return int(os.readlink("/proc/thread-self").rsplit("/", 1)[1])  # noqa: PTH115 - get_native_id is of 3.8


def forked() -> None:
    """Two children of multiprocessing's, started without exec."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=child_work, daemon=True) for _ in range(2)]
    for child in children:
        child.start()
    sys.stdout.write("%s\n" % " ".join(str(child.pid) for child in children))
    ready()
    time.sleep(3600)


def child_work() -> None:
    while True:
        spin()


def execs() -> None:
    """Computes in Python; at SIGUSR1 becomes another program in the same process."""
    signal.signal(signal.SIGUSR1, lambda *_: os.execvp("sh", ["sh", "-c", "while :; do :; done"]))
    ready()
    while True:
        before_exec()


def before_exec() -> None:
    spin()


def deep(depth: str = "20") -> None:
    """Computes at the end of a recursion, and says at SIGUSR1 how often it has been there."""
    done = [0]
    signal.signal(signal.SIGUSR1, lambda *_: print_progress(done))
    ready()
    sys.setrecursionlimit(5000)
    descend(int(depth) - 3, done)  # <module>, deep and spin are the other three


def print_progress(done: List[int]) -> None:
    """Written at once: a signal may come while sys.stdout is being used, which must not be entered again."""
    os.write(1, b"%d %.9f\n" % (done[0], time.monotonic()))


def descend(left: int, done: List[int]) -> None:
    if left > 1:
        descend(left - 1, done)
        return
    while True:
        spin(1000)
        done[0] += 1


def subinterpreter() -> None:
    """Computes in a second interpreter of the same thread; 3.8 and later."""
    module = __import__("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    source = "def inside():\n    total = 0\n    while True:\n        total ^= 1\ninside()\n"
    ready()
    module.run_string(module.create(), source)


WORKLOADS = (busy, bursty, system_calls, threads, gil_free, named_threads, forked, execs, deep, subinterpreter)
{function.__name__: function for function in WORKLOADS}[sys.argv[1]](*sys.argv[2:])
