"""Divides its CPU 75/25 between two functions and, after a line from stdin, 10/90.

Prints "ready"; after the line the time of day of the change; after a second line the CPU seconds of both functions in
both halves, [[foo, bar], [foo, bar]], by the thread's own CPU clock.
"""

# ruff: noqa: B905 - the oldest release that runs this has no other zip

import json
import random
import sys
import threading
import time
from typing import Callable

if hasattr(time, "thread_time"):
    clock = time.thread_time
else:

    def clock() -> float:
        return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)


TURNS = 100000
SHARES = [(0.75, 0.25), (0.10, 0.90)]
spent = [[0.0, 0.0], [0.0, 0.0]]
half = [0]


def foo(turns: int) -> object:
    total = 0
    for turn in range(turns):
        total ^= turn
    return total


def bar(turns: int) -> object:
    total = 0
    for turn in range(turns):
        total ^= turn
    return total


def measured(function: Callable[[int], object], turns: int, index: int) -> None:
    before = clock()
    function(turns)
    spent[index][function is bar] += clock() - before


def work() -> None:
    while True:
        index = half[0]
        turns = TURNS * random.uniform(0.2, 0.6)  # keeps no step with the sampling clock
        for function, share in zip((foo, bar), SHARES[index]):
            measured(function, int(turns * share), index)


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


threading.Thread(target=work, daemon=True).start()
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
half[0] = 1
say(time.time())
sys.stdin.readline()
say(spent)
