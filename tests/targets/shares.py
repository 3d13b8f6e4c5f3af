"""Divides its CPU 75/25 between pairs of functions and measures the division itself, by each thread's CPU clock.

Prints one line that says what a profiler may see of it (see ``describe``), then "ready".  At each SIGUSR1 prints the
CPU seconds charged so far to each section, as a list in the order of that description.  Runs in CPython 3.6.
"""
# ruff: noqa: B905, PTH123 - 3.6 has no strict zip; open() is as plain as a Path

import dis
import json
import os
import random
import signal
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any, Callable, Dict, Generator, Iterator, List, Tuple

Section = Callable[[int], int]  # how many turns its busy loop makes

THREADS = 8
DEEP = 200
STEPS = 12000  # turns of the busy loop in the short half of a pair: about a millisecond

if hasattr(time, "thread_time"):
    clock = time.thread_time
else:

    def clock() -> float:
        return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)


def busy(turns: int) -> int:
    total = 0
    for turn in range(turns):
        total += turn & 7
        total ^= turn
    return total


def often_shared(turns: int) -> int:
    return busy(3 * turns)


def seldom_shared(turns: int) -> int:
    return busy(turns)


def make_closure(factor: int) -> Section:
    def inner(turns: int) -> int:
        total = factor
        for turn in range(factor * turns):
            total ^= turn & factor
        return total

    return inner


three_times, once = make_closure(3), make_closure(1)


def often_closure(turns: int) -> int:
    return three_times(turns)


def seldom_closure(turns: int) -> int:
    return once(turns)


class Often:
    def step(self, turns: int) -> int:
        total = 0
        for turn in range(3 * turns):
            total += self.weigh(turn) if not turn & 63 else 1
        return total

    def weigh(self, turn: int) -> int:
        return turn & 3


class Seldom:
    def step(self, turns: int) -> int:
        total = 0
        for turn in range(turns):
            total += self.weigh(turn) if not turn & 63 else 1
        return total

    def weigh(self, turn: int) -> int:
        return turn & 1


def often_generator() -> "Generator[Any, int, None]":
    turns = yield
    while True:
        turns = yield busy(3 * turns)


def seldom_generator() -> "Generator[Any, int, None]":
    turns = yield
    while True:
        turns = yield busy(turns)


# fmt: off
often_lambda = lambda turns: sum(turn & 5 for turn in range(3 * turns))  # noqa: E731
seldom_lambda = lambda turns: sum(turn & 7 for turn in range(turns))  # noqa: E731
# fmt: on


def often_deep(turns: int, depth: int = DEEP) -> int:
    return often_deep(turns, depth - 1) if depth > 1 else busy(3 * turns)


def seldom_deep(turns: int, depth: int = DEEP) -> int:
    return seldom_deep(turns, depth - 1) if depth > 1 else busy(turns)


FUNCTIONS: Tuple[Callable[..., Any], ...] = (often_shared, seldom_shared, often_closure, seldom_closure)
FUNCTIONS += (Often.step, Seldom.step, often_generator, seldom_generator)
FUNCTIONS += (often_lambda, seldom_lambda, often_deep, seldom_deep)
SPENT: List[List[float]] = []  # one list of CPU seconds by section for each thread: no thread writes another's


def sections() -> Tuple[Section, ...]:
    generators = often_generator(), seldom_generator()
    for generator in generators:
        next(generator)
    return (
        *(often_shared, seldom_shared, often_closure, seldom_closure),
        *(Often().step, Seldom().step),
        *(generator.send for generator in generators),
        *(often_lambda, seldom_lambda, often_deep, seldom_deep),
    )


def work(rounds: "int | None" = None) -> None:
    """Run all sections in changing order and length, so that they keep no step with the sampling clock."""
    spent = [0.0] * len(FUNCTIONS)
    SPENT.append(spent)
    steps = list(enumerate(sections()))
    while rounds is None or rounds > 0:
        random.shuffle(steps)
        turns = random.randrange(STEPS // 2, STEPS + STEPS // 2) if rounds is None else 70
        rounds = rounds and rounds - 1
        for section, step in steps:
            before = clock()
            step(turns)
            spent[section] += clock() - before


def report(*_: object) -> None:
    """Written at once: a signal may come while sys.stdout is being used, which must not be entered again."""
    os.write(1, ("%r\n" % [sum(spent) for spent in zip(*list(SPENT))]).encode())


def codes_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from codes_in(constant)


def key(code: CodeType) -> List[object]:
    return [getattr(code, "co_qualname", code.co_name), code.co_filename, code.co_firstlineno]


def lines_of(code: CodeType) -> List[int]:
    """The lines that a frame of this code can be at; that of "def" is where it is before its first instruction."""
    if hasattr(code, "co_lines"):
        lines = {line for _, _, line in code.co_lines() if line}
    else:
        lines = {line for _, line in dis.findlinestarts(code)}
    return sorted(lines | {code.co_firstlineno})


def module_code(path: str) -> CodeType:
    with open(path, encoding="utf-8") as source:
        return compile(source.read(), path, "exec", dont_inherit=True)


def observed_calls() -> List[object]:
    """Every (caller, its line, called) of a short run, as the interpreter itself reports them to a profile function."""
    calls = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_back is not None:
            caller = frame.f_back
            call = [key(caller.f_code), caller.f_lineno, key(frame.f_code)]
            calls[repr(call)] = call

    threading.setprofile(note)
    thread = threading.Thread(target=work, args=(2,))
    thread.start()
    thread.join()
    threading.setprofile(None)
    sys.setprofile(note)
    work(2)
    sys.setprofile(None)
    del SPENT[:]
    return list(calls.values())


def describe() -> Dict[str, object]:
    """What may be seen: each code object with its lines, who calls whom from which line, and which section is whose."""
    codes = [code for path in (__file__, threading.__file__, random.__file__) for code in codes_in(module_code(path))]
    return {
        "codes": [[*key(code), lines_of(code)] for code in codes],
        "calls": observed_calls(),
        "sections": [key(function.__code__) for function in FUNCTIONS],
        "deep": [key(often_deep.__code__), key(seldom_deep.__code__)],
        "depth": DEEP,
        "file": __file__,
    }


sys.setrecursionlimit(5000)
sys.stdout.write(json.dumps(describe()) + "\n")
sys.stdout.flush()
signal.signal(signal.SIGUSR1, report)
for number in range(THREADS):
    threading.Thread(target=work, daemon=True, name="worker-%d" % number).start()
sys.stdout.write("ready\n")
sys.stdout.flush()
work()
