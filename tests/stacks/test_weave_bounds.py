"""The weave by places where a place lies at a C frame's bound, and where a walk ended early."""

from __future__ import annotations

from pyflame_ebpf.sampling.abi import FRAME_BOUNDARY, FRAME_NATIVE, FRAME_PYTHON
from pyflame_ebpf.sampling.events import RawFrame
from pyflame_ebpf.stacks.weave import weave

STACK, SIZE = 0x7FFD_0000_0000, 0x100  # where the leaf's C frame begins, and how long each is
LEAF, CALL, OUTER, ROOT = (
    (address, STACK + SIZE * (index + 1), 0, FRAME_NATIVE) for index, address in enumerate((0x10, 0x20, 0x30, 0x40))
)
INNER_RUN, OUTER_RUN = (1, 1, 0, FRAME_PYTHON), (2, 2, 0, FRAME_PYTHON)


def boundary(place: int) -> RawFrame:
    return place, 0, 0, FRAME_BOUNDARY


def woven(python: list[RawFrame], native: list[RawFrame], *, complete: bool) -> list[tuple[RawFrame, bool]]:
    """The weave of stacks in which no address is known to be the evaluation loop's."""
    return weave(python, native, lambda _address: False, lambda _address: False, complete=complete)


def test_a_place_where_two_frames_meet_is_the_outer_frames() -> None:
    assert woven([INNER_RUN, boundary(STACK + SIZE)], [LEAF, CALL, ROOT], complete=True) == [
        (LEAF, False),
        (INNER_RUN, False),
        (CALL, True),
        (ROOT, False),
    ]


def test_every_frame_but_the_last_of_a_walk_that_ended_early_may_hold_a_run() -> None:
    assert woven([INNER_RUN, boundary(STACK + 2 * SIZE + 8)], [LEAF, CALL, OUTER, ROOT], complete=False) == [
        (LEAF, False),
        (CALL, False),
        (INNER_RUN, False),
        (OUTER, True),
        (ROOT, False),
    ]


def test_the_last_frame_of_a_walk_that_ended_early_holds_no_run() -> None:
    assert woven([INNER_RUN, boundary(STACK + 3 * SIZE + 8)], [LEAF, CALL, OUTER, ROOT], complete=False) == [
        (LEAF, False),
        (CALL, False),
        (OUTER, False),
        (ROOT, False),
        (INNER_RUN, False),
    ]


def test_of_all_frames_only_the_calls_are_said_to_be_replaced() -> None:
    python = [INNER_RUN, boundary(STACK + SIZE + 8), OUTER_RUN, boundary(STACK + 9 * SIZE)]
    assert woven(python, [LEAF, CALL, ROOT], complete=True) == [
        (LEAF, False),
        (INNER_RUN, False),
        (CALL, True),
        (ROOT, False),
        (OUTER_RUN, False),
    ]
