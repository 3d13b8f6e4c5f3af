"""Alternates, every few microseconds, between two chains of calls that have no function in common.

Prints the two chains as lists of names, outermost first, then "ready".  The chain a1 … a12 is of plain calls; in
b1 … b12 every other call is made by C code, so that frames of several evaluation loops alternate.  Runs in CPython 3.6.
"""

import json
import sys
from typing import Any, Callable, Dict

LENGTH = 12
SOURCE = """
def a%(number)d(turns):
    return a%(next)d(turns) + 1


def b%(number)d(turns):
    return sorted((turns,), key=b%(next)d)[0] if %(number)d %% 2 else b%(next)d(turns)


"""
LEAVES = """
def a%(number)d(turns):
    total = 0
    for turn in range(turns):
        total += turn
    return total


def b%(number)d(turns):
    total = 0
    for turn in range(turns):
        total ^= turn
    return total
"""


def chains() -> "tuple[Callable[[int], int], Callable[[int], int]]":
    source = "".join(SOURCE % {"number": number, "next": number + 1} for number in range(1, LENGTH))
    functions: Dict[str, Any] = {}
    exec(compile(source + LEAVES % {"number": LENGTH}, "chains", "exec"), functions)
    return functions["a1"], functions["b1"]


def alternate() -> None:
    first, second = chains()
    turns = 1
    while True:
        turns = turns % 40 + 1  # so that every place in a chain is met, not just its leaf
        first(turns)
        second(turns)


sys.stdout.write(json.dumps([["%s%d" % (chain, number) for number in range(1, LENGTH + 1)] for chain in "ab"]) + "\n")
sys.stdout.write("ready\n")
sys.stdout.flush()
alternate()
