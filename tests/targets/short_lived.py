"""Ends after so many milliseconds of CPU time in all, its own start included.  Runs in CPython 3.6.

Prints its CPU seconds at its first line and at its end.
"""

import time

BEGAN = time.process_time()

import sys  # noqa: E402


def spin(turns: int) -> object:
    total = 0
    for turn in range(turns):
        total ^= turn
    return total


def run(until: float) -> None:
    while time.process_time() < until:
        spin(2000)


run(float(sys.argv[1]) / 1000)
sys.stdout.write("%.9f %.9f\n" % (BEGAN, time.process_time()))
