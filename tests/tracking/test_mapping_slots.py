"""Slots of the map of executable memory."""

from __future__ import annotations

import pytest

from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.tracking.mapping_slots import MappingSlots

FIRST, SECOND, THIRD = (Identity(number, number, 0) for number in (1, 2, 3))


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> MappingSlots:
    monkeypatch.setattr(abi, "MAPPED_PROCESSES", 2)
    return MappingSlots()


def test_a_process_keeps_its_slot(slots: MappingSlots) -> None:
    assert slots.take(FIRST) == slots.take(FIRST)
    assert slots.take(SECOND) != slots.take(FIRST)


def test_the_entry_of_a_process_has_one_more_than_its_slot_and_0_for_none(slots: MappingSlots) -> None:
    taken, _ = slots.take(FIRST)
    assert (slots.entry_of(FIRST), slots.entry_of(SECOND)) == (taken + 1, 0)


def test_the_process_that_was_mapped_longest_ago_loses_its_slot_and_is_named(slots: MappingSlots) -> None:
    first, second = slots.take(FIRST), slots.take(SECOND)
    assert slots.take(FIRST) == first
    assert slots.take(THIRD) == (second[0], SECOND)
    assert slots.entry_of(SECOND) == 0


def test_the_slot_of_a_process_that_has_ended_is_given_again(slots: MappingSlots) -> None:
    taken, _ = slots.take(FIRST)
    slots.take(SECOND)
    slots.give_back(FIRST)
    slots.give_back(FIRST)
    assert slots.entry_of(FIRST) == 0
    assert slots.take(THIRD) == (taken, None)
