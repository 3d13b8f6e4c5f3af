"""Alternates between Python and C as often as its first argument says, or as can be, and computes at the end.

The other arguments name the ways by which C code calls Python, taken in turn; without any all of them are.  Prints
which one it was each time, outermost first, and then "ready".  Runs in CPython 3.6.
"""
# ruff: noqa: UP031 - the oldest release that runs this has no better formatting that is as plain

import contextlib
import ctypes
import functools
import json
import sys
import threading

import callbacks

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
STACK = 512 << 20


def way_sorted(left):
    return sorted([left], key=step)


def way_map(left):
    return list(map(step, [left]))


def way_reduce(left):
    return functools.reduce(step, [left, None])


def way_ctypes(left):
    return CALLBACK(step)(left)


def way_call(left):
    return callbacks.call(functools.partial(step, left))


def way_call_alloca(left):
    return callbacks.call_alloca(functools.partial(step, left))


def way_call_aligned(left):
    return callbacks.call_aligned(functools.partial(step, left))


def way_call_qsort(left):
    return callbacks.call_qsort(functools.partial(step, left))


def generated(left):
    yield step(left)


def way_generator(left):
    return sum(generated(left))


class Ends(int):  # holds nothing that the collector looks at: of those objects CPython ends 50 at a time
    __slots__ = ()

    def __del__(self):
        step(+self)


def way_del(left):
    ends = [Ends(left)]
    ends.clear()
    return 0


class Described:
    def __init__(self, left):
        self.left = left

    @property
    def value(self):
        return step(self.left)


def way_property(left):
    return getattr(Described(left), "value")  # noqa: B009 - through C


class Finder:
    def find_spec(self, name, *_):
        if name.startswith("alternation_"):
            step(int(name.split("_")[1]))


def way_import(left):
    try:
        __import__("alternation_%d" % left)
    except ImportError:
        return 0


WAYS = (
    way_sorted,
    way_map,
    way_reduce,
    way_ctypes,
    way_call,
    way_call_alloca,
    way_call_aligned,
    way_call_qsort,
    way_generator,
    way_del,
    way_property,
    way_import,
)
WAYS = tuple(way for way in WAYS if way.__name__ in sys.argv[2:]) or WAYS


def step(left, _second=None):
    if left:
        WAYS[left % len(WAYS)](left - 1)
    else:
        LEAF[-1]()
    return 0


def reach():
    LEAF.append(spin)


def spin():
    sys.stdout.write(json.dumps(CHAIN) + "\nready\n")
    sys.stdout.flush()
    while True:
        compute()


LEAF = [reach]
CHAIN = []


def compute():
    for _ in range(20000):
        pass


def alternate(times):
    """As deep as the interpreter allows: some releases count the C functions that call Python, too."""
    while times:
        with contextlib.suppress(RecursionError):
            step(times)
        if LEAF[-1] is spin:
            break
        times -= 1 + times // 20
    CHAIN.extend(WAYS[left % len(WAYS)].__name__ for left in range(times, 0, -1))
    step(times)


sys.meta_path.insert(0, Finder())
sys.setrecursionlimit(100000)
threading.stack_size(STACK)
thread = threading.Thread(target=alternate, args=(int(sys.argv[1]),))
thread.start()
thread.join()
