"""One stack out of two: Python frames take the place of the evaluation-loop calls that ran them.

Pure.  A stack is a list of frames leaf first, as the walker sends them.  A run is the Python frames of one call of the
evaluation loop.  From 3.12 on the frame that ends a run lies in the C frame of its call, so its address tells where the
run belongs.  In earlier releases runs and calls are matched in order, from the root.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import RawFrame

Is = Callable[[int], bool]  # of a native address: whether the function there is one of a kind
LEAF_FRAME_MAX = 1 << 16  # bytes: the leaf's frame is taken to be as long, since its stack pointer is not sent


@dataclass(slots=True)
class Run:
    """Python frames, leaf first, of one call of the evaluation loop.

    ``place`` is the address on the C stack of the frame that stands for the call, 0 if it is not known.
    """

    frames: list[RawFrame] = field(default_factory=list)
    place: int = 0


def runs(python: Iterable[RawFrame]) -> list[Run]:
    """The runs of a Python stack, innermost first.

    A boundary without frames before it belongs to a call that has no frame yet, or to the thread itself (from 3.15 on).
    """
    found: list[Run] = []
    run = Run()
    for frame in python:
        kind = frame[3]
        is_boundary = kind & abi.FRAME_KIND == abi.FRAME_BOUNDARY
        if not is_boundary:
            run.frames.append(frame)
        elif run.frames:
            run.place = frame[0]
        if run.frames and (is_boundary or kind & abi.FRAME_ENTRY):
            found.append(run)
            run = Run()
    if run.frames:
        found.append(run)
    return found


def weave(
    python: Sequence[RawFrame], native: Sequence[RawFrame], is_loop: Is, is_first: Is, *, complete: bool
) -> list[tuple[RawFrame, bool]]:
    """Returns (frame, replaced) pairs, leaf first.  ``replaced``: a call whose Python frames come just before it.

    ``is_loop`` tells addresses of the evaluation loop, ``is_first`` addresses of functions that begin a stack of their
    own (a greenlet's).  ``complete``: both walks reached their roots.
    """
    stack = runs(python)
    owners = _owners_by_place(stack, native, complete) or _owners_in_order(stack, native, is_loop, is_first, complete)
    return _merge(stack, native, owners)


def _owners_by_place(stack: list[Run], native: Sequence[RawFrame], complete: bool) -> dict[int, int]:
    """Maps the index of a native frame to the index of the run whose place lies in that frame."""
    places = sorted((run.place, index) for index, run in enumerate(stack) if run.place)
    if not places:
        return {}
    owners: dict[int, int] = {}
    owned = -1
    begin = native[0][1] - LEAF_FRAME_MAX if native else 0
    # If a walk ends early, the end of its last frame is not known.
    for index, (_, end, _, _) in enumerate(native if complete else native[:-1]):
        last = bisect_left(places, (end, 0)) - 1
        if last >= 0 and places[last][0] >= begin and places[last][1] > owned:
            owners[index] = owned = places[last][1]
        begin = end
    return owners


def _owners_in_order(
    stack: list[Run], native: Sequence[RawFrame], is_loop: Is, is_first: Is, complete: bool
) -> dict[int, int]:
    """Maps the index of a native frame to the index of a run, in order.

    The order counts from the root if it was reached, else from the leaf.  The innermost call may have no frame yet, or
    no longer, but each run has a call, so counting from the root is right.  Frames outwards of a first function belong
    to another stack.
    """
    calls: list[int] = []
    for index, frame in enumerate(native):
        if is_loop(frame[0]):
            calls.append(index)
        elif calls and is_first(frame[0]):
            complete = True
            break
    if complete:
        return dict(zip(reversed(calls), range(len(stack) - 1, -1, -1), strict=False))
    return dict(zip(calls, range(len(stack)), strict=False))


def _merge(stack: list[Run], native: Sequence[RawFrame], owners: dict[int, int]) -> list[tuple[RawFrame, bool]]:
    merged: list[tuple[RawFrame, bool]] = []
    emitted = 0
    for index, frame in enumerate(native):
        run = owners.get(index)
        if run is not None:
            for inner in stack[emitted : run + 1]:
                merged += [(raw, False) for raw in inner.frames]
            emitted = run + 1
        merged.append((frame, run is not None))
    for outer in stack[emitted:]:  # the native walk ended before their calls
        merged += [(raw, False) for raw in outer.frames]
    return merged
