"""Weaving Python and native frames, with stacks written down as letters.

A stack is text, leaf first: ``E`` is a call of the evaluation loop, other letters are C functions.  Native frames lie
one behind the other on a made-up C stack, the leaf's first.
"""

from __future__ import annotations

import random
import time

import pytest

from pyflame_ebpf.sampling.abi import FRAME_BOUNDARY, FRAME_ENTRY, FRAME_NATIVE, FRAME_PYTHON
from pyflame_ebpf.sampling.events import RawFrame
from pyflame_ebpf.stacks.weave import LEAF_FRAME_MAX, Run, runs, weave

STACK = 0x7FFD_0000_0000
SIZE = 0x100  # of a C frame
LOOP, GREENLET = ord("E"), ord("G")


def native(functions: str, start: int = STACK) -> list[RawFrame]:
    """Frames of C functions named by a letter; each ends SIZE further on."""
    return [(ord(name), start + SIZE * (index + 1), 0, FRAME_NATIVE) for index, name in enumerate(functions)]


def place(index: int, start: int = STACK) -> int:
    """An address in the C frame of that index."""
    return start + SIZE * index + SIZE // 2


def python(code: int, *, entry: bool = False) -> RawFrame:
    return code, code, 0, FRAME_PYTHON | (FRAME_ENTRY if entry else 0)


def boundary(at: int) -> RawFrame:
    return at, 0, 0, FRAME_BOUNDARY


def by_place(functions: str, *lengths: int) -> list[RawFrame]:
    """Python frames 0, 1, 2, … in runs of these lengths, of the evaluation-loop calls in turn, as 3.12 has them."""
    calls = [index for index, name in enumerate(functions) if name == "E"]
    frames, code = [], 0
    for call, length in zip(calls, lengths, strict=True):
        frames += [python(code + step) for step in range(length)]
        frames.append(boundary(place(call)))
        code += length
    return frames


def in_order(*lengths: int) -> list[RawFrame]:
    """The same as 3.11 has them; in releases before, all lengths are 1."""
    frames: list[RawFrame] = []
    for length in lengths:
        code = len(frames)
        frames += [python(code + step, entry=step == length - 1) for step in range(length)]
    return frames


def woven(python_frames: list[RawFrame], native_frames: list[RawFrame], *, complete: bool = True) -> str:
    """Leaf first: Python frames as numbers, C functions as letters, calls that a run replaces as ``e``."""
    frames = weave(
        python_frames,
        native_frames,
        lambda address: address == LOOP,
        lambda address: address == GREENLET,
        complete=complete,
    )
    return " ".join(shown(frame, is_call) for frame, is_call in frames)


def shown(frame: RawFrame, is_call: bool) -> str:
    if frame[3] & 0xFF == FRAME_PYTHON:
        return str(frame[0])
    return chr(frame[0]).lower() if is_call else chr(frame[0])


# ---- runs ----


def test_run_ends_with_its_boundary_or_its_entry_frame() -> None:
    frames = [python(0), python(1), boundary(77), python(2, entry=True), python(3), python(4, entry=True), python(5)]
    assert runs(frames) == [
        Run([frames[0], frames[1]], 77),
        Run([frames[3]]),
        Run([frames[4], frames[5]]),
        Run([frames[6]]),
    ]


def test_boundary_without_frames_is_no_run() -> None:
    frames = [boundary(7), python(0), boundary(8), boundary(9)]
    assert runs(frames) == [Run([frames[1]], 8)]


def test_boundary_without_frames_gives_the_next_run_no_place() -> None:
    frames = [boundary(7), python(0)]
    assert runs(frames) == [Run([frames[1]], 0)]


# ---- both whole ----


@pytest.mark.parametrize("frames", [by_place("aEbcEdE", 1, 3, 2), in_order(1, 3, 2)], ids=["by place", "in order"])
def test_each_run_takes_the_place_of_its_call(frames: list[RawFrame]) -> None:
    assert woven(frames, native("aEbcEdES")) == "a 0 e b c 1 2 3 e d 4 5 e S"


@pytest.mark.parametrize("frames", [by_place("E", 5), in_order(5)], ids=["by place", "in order"])
def test_recursion_without_calls_of_c_is_one_run(frames: list[RawFrame]) -> None:
    assert woven(frames, native("EmS")) == "0 1 2 3 4 e m S"


@pytest.mark.parametrize("frames", [by_place("EE", 1, 1), in_order(1, 1)], ids=["by place", "in order"])
def test_calls_with_nothing_between_them_stay_apart(frames: list[RawFrame]) -> None:
    assert woven(frames, native("EES")) == "0 e 1 e S"


@pytest.mark.parametrize("frames", [by_place("aEbE", 1, 1), in_order(1, 1)], ids=["by place", "in order"])
def test_call_of_the_loop_that_has_no_frame_yet_shifts_nothing(frames: list[RawFrame]) -> None:
    places = [frame if frame[3] != FRAME_BOUNDARY else boundary(frame[0] + SIZE) for frame in frames]
    assert woven(places, native("EaEbES")) == "E a 0 e b 1 e S"


@pytest.mark.parametrize("alternations", [3, 30, 500])
@pytest.mark.parametrize("layout", ["by place", "in order"])
def test_true_order_through_any_number_of_alternations(alternations: int, layout: str) -> None:
    functions = "abE" * alternations
    lengths = [1 + index % 3 for index in range(alternations)]
    frames = by_place(functions, *lengths) if layout == "by place" else in_order(*lengths)
    expected, code = [], 0
    for length in lengths:
        expected += ["a", "b", *map(str, range(code, code + length)), "e"]
        code += length
    assert woven(frames, native(functions + "S")) == " ".join([*expected, "S"])


def test_place_is_believed_whatever_functions_are_called() -> None:
    frames = [python(0), boundary(place(1)), python(1), boundary(place(3))]
    assert woven(frames, native("axbyS")) == "a 0 x b 1 y S"


def test_leaf_s_own_frame_can_hold_a_run() -> None:
    assert woven(by_place("EaE", 1, 2), native("EaES")) == "0 e a 1 2 e S"


@pytest.mark.parametrize(("below", "expected"), [(0, "0 l a 1 e S"), (1, "L a 0 1 e S")])
def test_leaf_s_own_frame_is_taken_to_be_no_longer_than_the_maximum(below: int, expected: str) -> None:
    end_of_leaf = STACK + SIZE
    frames = [python(0), boundary(end_of_leaf - LEAF_FRAME_MAX - below), python(1), boundary(place(2))]
    assert woven(frames, native("LaES")) == expected


def test_handler_on_a_stack_of_its_own_holds_no_run_of_the_other_stack() -> None:
    own = native("ab", STACK + 64 * LEAF_FRAME_MAX)
    interrupted = [(ord("r"), STACK, 0, FRAME_NATIVE)]
    assert woven(by_place("EcE", 1, 1), [*own, *interrupted, *native("EcES")]) == "a b r 0 e c 1 e S"


def test_run_whose_place_no_c_frame_has_goes_with_the_next_that_has() -> None:
    frames = [python(0), boundary(STACK - 2 * LEAF_FRAME_MAX), python(1), boundary(place(1)), python(2)]
    assert woven(frames, native("aES")) == "a 0 1 e S 2"


def test_places_that_fit_nowhere_leave_the_order() -> None:
    frames = [python(0), boundary(8), python(1), boundary(16)]
    assert woven(frames, native("aEbES")) == "a 0 e b 1 e S"


# ---- one of them is not whole ----


def test_native_frames_alone_stay_as_they_are() -> None:
    assert woven([], native("aEbS")) == "a E b S"


@pytest.mark.parametrize("frames", [by_place("E", 2), in_order(2)], ids=["by place", "in order"])
@pytest.mark.parametrize("complete", [True, False])
def test_python_frames_alone_stay_as_they_are(frames: list[RawFrame], complete: bool) -> None:
    assert woven(frames, [], complete=complete) == "0 1"


@pytest.mark.parametrize("frames", [by_place("aEbEE", 1, 2, 1), in_order(1, 2, 1)], ids=["by place", "in order"])
def test_python_frames_beyond_the_end_of_the_native_walk_are_kept(frames: list[RawFrame]) -> None:
    assert woven(frames, native("aEb"), complete=False) == "a 0 e b 1 2 3"


@pytest.mark.parametrize("frames", [by_place("aEbE", 1, 1), in_order(1, 1)], ids=["by place", "in order"])
def test_python_walk_that_broke_off_is_matched_from_the_leaf(frames: list[RawFrame]) -> None:
    assert woven(frames, native("aEbEcES"), complete=False) == "a 0 e b 1 e c E S"


def test_end_of_the_last_frame_of_a_broken_walk_is_not_believed() -> None:
    *known, (address, _, _, kind) = native("aEb")
    garbage = (address, 2**63, 0, kind)
    frames = by_place("aEbEcE", 1, 1, 1)
    assert woven(frames, [*known, garbage], complete=False) == "a 0 e b 1 2"


def test_frames_of_a_greenlet_do_not_go_on_into_the_stack_beneath_it() -> None:
    assert woven(in_order(1, 1), native("aEbEGcEdES")) == "a 0 e b 1 e G c E d E S"


def test_place_says_where_the_frames_of_a_greenlet_are() -> None:
    assert woven(by_place("aEbE", 1, 1), native("aEbEGcEdES")) == "a 0 e b 1 e G c E d E S"


# ---- cost and hostile stacks ----


@pytest.mark.parametrize("layout", ["by place", "in order"])
def test_deepest_stack_is_woven_fast(layout: str) -> None:
    functions = "abcdefgE" * 500
    frames = by_place(functions, *[4] * 500) if layout == "by place" else in_order(*[4] * 500)
    before = time.process_time()
    woven(frames, native(functions))
    assert time.process_time() - before < 0.25  # some 5 ms; the square of it would be seconds


@pytest.mark.parametrize("seed", range(200))
def test_every_frame_comes_out_once_and_in_its_own_order_whatever_the_places(seed: int) -> None:
    chosen = random.Random(seed)
    numbers = [0, 8, STACK, STACK + 64, STACK + 300, STACK + 2000, 2**64 - 1]
    kinds = [FRAME_PYTHON, FRAME_PYTHON, FRAME_PYTHON | FRAME_ENTRY, FRAME_BOUNDARY]
    frames = [(chosen.choice(numbers), code, 0, chosen.choice(kinds)) for code in range(chosen.randrange(30))]
    code = [(ord(chosen.choice("abEG")), chosen.choice(numbers), index, FRAME_NATIVE) for index in range(20)]
    result = weave(frames, code, lambda it: it == LOOP, lambda it: it == GREENLET, complete=chosen.random() < 0.5)
    assert [frame for frame, _ in result if frame[3] == FRAME_NATIVE] == code
    assert [frame for frame, _ in result if frame[3] != FRAME_NATIVE] == [
        frame for frame in frames if frame[3] != FRAME_BOUNDARY
    ]
