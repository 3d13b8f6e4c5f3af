"""Computes in ``morning`` until a line comes on standard input, then in ``evening``, and so on by turns.

Prints "ready" first.  Runs in CPython 3.6.
"""

import select
import sys


def morning() -> None:
    spin(30000)


def evening() -> None:
    spin(30000)


def spin(turns: int) -> None:
    total = 0
    for turn in range(turns):
        total ^= turn


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    now, then = morning, evening
    while True:
        now()
        if select.select([sys.stdin], [], [], 0)[0]:
            sys.stdin.readline()
            now, then = then, now


main()
