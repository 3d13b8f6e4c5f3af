#!/usr/bin/env python3
"""Compare the order of Python and C functions in whole stacks with the order in which a program made the calls.

    sudo scripts/check_alternation.py                              3, 30 and 500 alternations, in every interpreter
    sudo scripts/check_alternation.py --each                       and by each way alone
    sudo scripts/check_alternation.py --interpreter 3.12 --times 30 --duration 4

tests/targets/alternation.py calls Python from C in twelve ways, one inside the other.  From the third second on, at
least nine samples in ten must have stacks that reach their roots, and every such stack must hold exactly the program's
Python functions, with the C function of each way between them if the interpreter's file names it.  Else status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from _recordings import Interpreter, TargetProcess, batches, chosen_interpreters, cpus, record_for, samples_of, targets

from pyflame_ebpf.profile.model import Frame, FrameKind, NativeOutcome, Outcome, Profile, Stack
from tests.extension.build import build_extension

WARM = 2  # seconds
LEAF = ("spin", "compute")

# By way: the functions between way_… and the next step; Python's, then C's, of which one must stand before them.
PYTHON = {
    "way_generator": ("generated",),
    "way_del": ("__del__",),
    "way_property": ("value",),
    "way_import": ("find_spec",),
}
NATIVE = {
    "way_sorted": ("list_sort_impl", "list_sort", "listsort"),
    "way_map": ("map_next",),
    "way_reduce": ("functools_reduce", "_functools_reduce", "_functools_reduce_impl"),
    "way_ctypes": ("closure_fcn", "_CallPythonObject"),
    "way_call": ("callbacks_call",),
    "way_call_alloca": ("callbacks_call_alloca",),
    "way_call_aligned": ("callbacks_call_aligned",),
    "way_call_qsort": ("compare_by_calling",),
    "way_generator": ("builtin_sum", "builtin_sum_impl"),
    "way_del": ("subtype_dealloc",),
    "way_property": ("property_descr_get",),
    "way_import": ("PyImport_ImportModuleLevelObject",),
}
# Limits of one way alone.  A stack holds 2,048 Python frames, and an import needs six.  It holds 8,704 native frames,
# and a ctypes callback in 3.6 needs some 20.  Most releases put off deallocations that nest deeper than 50
# (Py_TRASHCAN_BEGIN), so that the stack is not as deep as the program's calls.
DEEPEST = {"way_import": 150, "way_ctypes": 400, "way_del": 30}
TOGETHER = 3  # interpreters for each CPU; one for stacks of thousands of frames, since each frame is named
MANY = 100


def python_name(frame: Frame) -> str:
    """Return the last part of a qualified name."""
    return frame.name.rsplit(".", 1)[-1]


def expected(ways: Sequence[str]) -> list[str]:
    """Return the Python functions from the first step on, without importlib's, which differ by release."""
    names = []
    for way in ways:
        names += ["step", way, *PYTHON.get(way, ())]
    return [*names, "step", *LEAF]


def python_sequence(stack: Stack) -> list[str]:
    """Return a stack's Python functions from the first step on, in the form of ``expected``."""
    names = [
        python_name(frame)
        for frame in stack
        if frame.kind is FrameKind.PYTHON and not frame.file.startswith("<frozen") and "importlib" not in frame.file
    ]
    return names[names.index("step") :] if "step" in names else names


def native_sequence(stack: Stack, named: set[str]) -> list[str]:
    """Return the ways in a stack; a way whose C function is missing before the next step is followed by that."""
    found = []
    way, between = "", set[str]()
    for frame in stack:
        if frame.kind is FrameKind.NATIVE:
            between.add(frame.name.split(".")[0])
        elif python_name(frame).startswith("way_"):
            way, between = python_name(frame), set()
        elif way and python_name(frame) == "step":
            named_here = [name for name in NATIVE[way] if name in named]
            found.append(way if not named_here or between & set(named_here) else f"{way} without {named_here}")
            way = ""
    return found


@dataclass(slots=True)
class Verdict:
    """The result for one target."""

    name: str
    way: str
    times: int
    samples: int = 0
    complete: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    named: set[str] = field(default_factory=set)

    @property
    def passed(self) -> bool:
        """True if nine samples in ten are whole, and all whole stacks are right."""
        return self.complete > 0.9 * self.samples > 0 and not self.faults


def fault(stack: Stack, ways: Sequence[str], named: set[str]) -> str:
    """Describe a fault in a whole stack's order; "" for none."""
    sequence, wanted = python_sequence(stack), expected(ways)
    # The innermost may have returned: spin calls compute again and again.
    if sequence not in (wanted, wanted[:-1]):
        place = next((at for at, pair in enumerate(zip(sequence, wanted, strict=False)) if pair[0] != pair[1]), -1)
        return f"{len(sequence)} Python functions, {len(wanted)} wanted; at {place}: {sequence[place : place + 4]}"
    native = native_sequence(stack, named)
    if native != list(ways):
        return next((have for have, want in zip(native, ways, strict=False) if have != want), f"{len(native)} ways")
    plumbing = [frame.name for frame in stack if frame.kind is FrameKind.NATIVE and "EvalFrame" in frame.name]
    shown = [frame.name for frame in stack if not frame.plumbing and "EvalFrame" in frame.name]
    if shown or (plumbing and len(plumbing) < len(ways)):
        return f"{len(shown)} evaluation loops shown, {len(plumbing)} in all"
    return ""


def judge(name: str, profile: Profile, pid: int, ways: Sequence[str]) -> Verdict:
    """Judge every whole stack of one process."""
    verdict = Verdict(name, ways[0] if len(set(ways)) == 1 < len(ways) else "all in turn", len(ways))
    samples = samples_of(profile, pid)
    wanted = {name for names in NATIVE.values() for name in names}
    for key in samples:
        for frame in profile.frames_of(key.stack):
            if frame.kind is FrameKind.NATIVE:
                verdict.named.add(frame.name.split(".")[0])
    verdict.named &= wanted
    for key, count in samples.items():
        if key.second < WARM:
            continue
        verdict.samples += count
        if key.native is NativeOutcome.COMPLETE and key.outcome is Outcome.COMPLETE:
            verdict.complete += count
            if wrong := fault(profile.frames_of(key.stack), ways, verdict.named):
                verdict.faults[wrong] += count
        else:
            mark = next(
                (frame.name for frame in profile.frames_of(key.stack) if frame.kind is FrameKind.MARK), "no mark"
            )
            verdict.cut[f"Python {key.outcome.value}, native {key.native.value}, {mark}"] += count
    return verdict


def check(
    interpreters: Sequence[Interpreter], times: int, duration: float, frequency: int, way: str = ""
) -> list[Verdict]:
    """Record the interpreters at once, with so many alternations by one way or by all ways, and judge each."""
    chosen = (str(min(times, DEEPEST.get(way, times))), *([way] if way else []))
    with targets(interpreters, "alternation.py", *chosen) as running:
        ways = [said_ways(target) for target in running]
        pids = [target.pid for target in running]
        profile = record_for(duration, frequency, pids=pids, busy=pids)
        return [
            judge(target.interpreter.name, profile, target.pid, chain)
            for target, chain in zip(running, ways, strict=True)
        ]


def said_ways(target: TargetProcess) -> list[str]:
    """Return the ways of the program's calls, which it prints before it is ready."""
    ways: list[str] = json.loads(target.read_line())
    target.wait_until_ready()
    return ways


def main() -> int:
    """Check all interpreters and numbers of alternations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, action="append", default=[], help="alternations; default 3, 30 and 500")
    parser.add_argument("--duration", type=float, default=6, help="seconds of each recording")
    parser.add_argument("--frequency", type=int, default=99)
    parser.add_argument("--each", action="store_true", help="by each way alone, too")
    parser.add_argument("--way", action="append", default=[], help="by this way alone")
    parser.add_argument("--interpreter", action="append", default=[], help="part of a name; default all")
    options = parser.parse_args()
    build_extension()
    failed = 0
    print(f"{'interpreter':16}{'times':>6}{'samples':>9}{'whole':>7}{'wrong':>7}  C functions by name")
    ways = options.way or ["", *(NATIVE if options.each else ())]
    for times, way in product(options.times or (3, 30, 500), ways):
        for group in batches(chosen_interpreters(options.interpreter), cpus() * (1 if times > MANY else TOGETHER)):
            for verdict in check(group, times, options.duration, options.frequency, way):
                report(verdict, times)
                failed += not verdict.passed
    print(f"{failed} failed")
    return 1 if failed else 0


def report(verdict: Verdict, asked: int) -> None:
    """Print one line for a target, and its faults."""
    limit = "this way alone" if verdict.times == DEEPEST.get(verdict.way) else "the interpreter"
    limited = f"; not {asked}: more is beyond {limit}" if verdict.times < asked else ""
    print(
        f"{verdict.name:16}{verdict.times:>6}{verdict.samples:>9}{verdict.complete:>7}{sum(verdict.faults.values()):>7}"
        f"  {len(verdict.named):2} {verdict.way} {'ok' if verdict.passed else 'FAILED'}{limited}",
        flush=True,
    )
    for what, count in verdict.faults.most_common(3):
        print(f"    {count} times {what}")
    for what, count in verdict.cut.most_common(3):
        print(f"    {count} cut: {what}")


if __name__ == "__main__":
    sys.exit(main())
