"""One stack out of two: Python frames take the place of the evaluation-loop calls that ran them.

Pure.  A stack is a list of frames leaf first, as the walker sends them.  A run is the Python frames of one call of the
evaluation loop.  From 3.12 on the frame that ends a run lies in that call's own C frame, which says for certain where
it belongs; before, runs and calls are matched in order, from the thread's root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pyflame_ebpf import bpf_abi

RawFrame = tuple[int, int, int, int]  # address, code id or CFA, position, kind


@dataclass(slots=True)
class Run:
    """Python frames, leaf first, of one call of the evaluation loop; ``place`` on the C stack, 0: unknown."""

    frames: list[RawFrame] = field(default_factory=list)
    place: int = 0


def runs(python: Iterable[RawFrame]) -> list[Run]:
    """The runs of a Python stack, innermost first."""
    found: list[Run] = []
    run = Run()
    for frame in python:
        kind = frame[3]
        if kind & bpf_abi.FRAME_KIND == bpf_abi.FRAME_BOUNDARY:
            run.place = frame[0]
            found.append(run)
            run = Run()
            continue
        run.frames.append(frame)
        if kind & bpf_abi.FRAME_ENTRY:
            found.append(run)
            run = Run()
    if run.frames:
        found.append(run)
    return found


def weave(
    python: Sequence[RawFrame], native: Sequence[RawFrame], is_loop: Callable[[int], bool], *, complete: bool
) -> list[tuple[RawFrame, bool]]:
    """(frame, whether it is an evaluation-loop call whose Python frames stand before it), leaf first.

    ``is_loop`` tells addresses of the evaluation loop, ``complete`` whether the native frames reach the root.
    """
    stack = runs(python)
    if not stack:
        return [(frame, False) for frame in native]
    owners = _owners_by_place(stack, native) if any(run.place for run in stack) else {}
    if not owners:
        owners = _owners_in_order(stack, native, is_loop, complete)
    return _merge(stack, native, owners)


def _owners_by_place(stack: list[Run], native: Sequence[RawFrame]) -> dict[int, int]:
    """Native frame → run: the C frame that holds the run's last frame."""
    owners: dict[int, int] = {}
    run = below = 0
    for index, (_, end, _, _) in enumerate(native):
        while run < len(stack) and not stack[run].place:
            run += 1
        if run < len(stack) and below <= stack[run].place < end:
            owners[index] = run
            run += 1
        below = end
    return owners


def _owners_in_order(
    stack: list[Run], native: Sequence[RawFrame], is_loop: Callable[[int], bool], complete: bool
) -> dict[int, int]:
    """Native frame → run, in order: from the root if it was reached, else from the leaf."""
    calls = [index for index, frame in enumerate(native) if is_loop(frame[0])]
    indices = list(range(len(stack)))
    if complete:
        return dict(zip(reversed(calls), reversed(indices), strict=False))
    return dict(zip(calls, indices, strict=False))


def _merge(stack: list[Run], native: Sequence[RawFrame], owners: dict[int, int]) -> list[tuple[RawFrame, bool]]:
    merged: list[tuple[RawFrame, bool]] = []
    emitted = 0
    for index, frame in enumerate(native):
        run = owners.get(index)
        if run is not None:
            for python in stack[emitted : run + 1]:
                merged += [(raw, False) for raw in python.frames]
            emitted = max(emitted, run + 1)
        merged.append((frame, run is not None))
    for python in stack[emitted:]:  # the native walk ended before them
        merged += [(raw, False) for raw in python.frames]
    return merged
