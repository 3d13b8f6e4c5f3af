"""A server under constant load: so many calls a second, each of ``foo`` and then ``bar`` with so many turns of a loop.

    server.py FOO-TURNS BAR-TURNS CALLS-PER-SECOND

Prints "ready" once it is warm.  At each SIGUSR1 prints its calls and its CPU seconds so far.  Runs in CPython 3.6.
"""

import os
import random
import signal
import sys
import time
from typing import List

BATCH = 10  # calls


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


def handle(foo_turns: int, bar_turns: int) -> None:
    foo(foo_turns)
    bar(bar_turns)


def serve(foo_turns: int, bar_turns: int, rate: int) -> None:
    """A batch of calls in each slot of time, anywhere in its first half: at equal distances they could keep step.

    Batches, since what a process costs that wakes up, with cold caches, is not what is optimised.
    """
    start = time.monotonic()
    while True:
        wait = start + (len(answered) + random.random() * BATCH / 2) / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        for _ in range(BATCH):
            handle(foo_turns, bar_turns)
            answered.append(None)


def report(*_: object) -> None:
    """Written at once: a signal may come while sys.stdout is being used, which must not be entered again."""
    os.write(1, b"[%d, %r]\n" % (len(answered), time.process_time()))


answered: List[None] = []
handle(1000, 1000)
signal.signal(signal.SIGUSR1, report)
sys.stdout.write("ready\n")
sys.stdout.flush()
serve(*map(int, sys.argv[1:]))
