"""Alternates between Python and C as often as its first argument says, or as can be, and computes at the end.

The other arguments name the ways by which C code calls Python, taken in turn; without any all of them are.  Prints
which one it was each time, outermost first, and then "ready".  Runs in CPython 3.6.
"""

import contextlib
import ctypes
import functools
import json
import sys
import threading
from typing import Any, Callable, Iterator, List, Tuple

import callbacks

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
STACK = 512 << 20


def way_sorted(left: int) -> List[int]:
    return sorted([left], key=step)


def way_map(left: int) -> List[int]:
    return list(map(step, [left]))


def way_reduce(left: int) -> object:
    return functools.reduce(step, [left, 0])


def way_ctypes(left: int) -> object:
    return CALLBACK(step)(left)


def way_call(left: int) -> object:
    return callbacks.call(functools.partial(step, left))


def way_call_alloca(left: int) -> object:
    return callbacks.call_alloca(functools.partial(step, left))


def way_call_aligned(left: int) -> object:
    return callbacks.call_aligned(functools.partial(step, left))


def way_call_qsort(left: int) -> object:
    return callbacks.call_qsort(functools.partial(step, left))


def generated(left: int) -> Iterator[int]:
    yield step(left)


def way_generator(left: int) -> int:
    return sum(generated(left))


class Ends(int):  # holds nothing that the collector looks at: of those objects CPython ends 50 at a time
    __slots__ = ()

    def __del__(self) -> None:
        step(+self)


def way_del(left: int) -> int:
    ends = [Ends(left)]
    ends.clear()
    return 0


class Described:
    def __init__(self, left: int) -> None:
        self.left = left

    @property
    def value(self) -> object:
        return step(self.left)


def way_property(left: int) -> object:
    return getattr(Described(left), "value")  # noqa: B009 - through C


class Finder:
    def find_spec(self, name: str, *_: object) -> None:
        if name.startswith("alternation_"):
            step(int(name.split("_")[1]))


def way_import(left: int) -> Any:
    try:
        __import__("alternation_%d" % left)
    except ImportError:
        return 0


WAYS: Tuple[Callable[[int], object], ...] = (
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


def step(left: int, _second: object = None) -> int:
    if left:
        WAYS[left % len(WAYS)](left - 1)
    else:
        LEAF[-1]()
    return 0


def reach() -> None:
    LEAF.append(spin)


def spin() -> None:
    sys.stdout.write(json.dumps(CHAIN) + "\nready\n")
    sys.stdout.flush()
    while True:
        compute()


LEAF = [reach]
CHAIN: List[str] = []


def compute() -> None:
    for _ in range(20000):
        pass


def alternate(times: int) -> None:
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
