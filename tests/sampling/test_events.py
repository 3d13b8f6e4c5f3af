"""Stacks whose frames were found later."""

from __future__ import annotations

import struct

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling.abi import FRAME_NATIVE
from pyflame_ebpf.sampling.events import StackEvent, native_frames

PROCESS = Identity(1, 2, 3)


def test_frames_that_were_found_later_follow_those_that_were_sent() -> None:
    event = StackEvent(PROCESS, 1, False, native_frames([(0x50, 0x60), (0x70, 0x80)]))
    found = native_frames([(0x100, 0x200)])
    assert event.continued(found).frames() == [*event.frames(), (0x100, 0x200, 0, FRAME_NATIVE)]


def test_the_last_frame_that_was_sent_without_its_end_is_not_there_twice() -> None:
    last = struct.pack("<QQiI", 0x100, 0, 0, FRAME_NATIVE)
    event = StackEvent(PROCESS, 1, False, native_frames([(0x50, 0x60)]) + last)
    whole = event.continued(native_frames([(0x100, 0x200), (0x300, 0x400)]))
    assert [frame[:2] for frame in whole.frames()] == [(0x50, 0x60), (0x100, 0x200), (0x300, 0x400)]
