"""Mappings of now and of all times."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from pyflame_ebpf.host import maps
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.tracking import mappings as mappings_module
from pyflame_ebpf.tracking.directories import Directories
from pyflame_ebpf.tracking.mappings import Mappings
from tests.tracking.live_processes import NO_PID, identity_of

GONE = Identity(1, NO_PID, 1)


def page(number: int, path: str = "", *, executable: bool = True) -> Mapping:
    return Mapping(number << 12, (number + 1) << 12, 0, executable, 0, 0, path)


@pytest.fixture
def me() -> Identity:
    """This process."""
    return identity_of(os.getpid())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the monotonic clock shows."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def mapped(me: Identity) -> Iterator[Mappings]:
    directories = Directories()
    directories.begin(me)
    mapped = Mappings(directories)
    for identity in (me, GONE):
        mapped.met(identity)
    yield mapped
    directories.close()


def test_only_executable_mappings_are_read(mapped: Mappings, me: Identity) -> None:
    assert mapped.read(me) == [each for each in maps.mappings(os.getpid()) if each.executable]
    assert mapped.read(GONE) == []


def test_what_is_read_again_and_the_same_is_no_change(mapped: Mappings, me: Identity) -> None:
    assert [mapped.replace(me, code) for code in ([page(1)], [page(1)], [page(2)], [page(1)])] == [
        True,
        False,
        True,
        True,
    ]
    assert mapped.now(me) == [page(1)]


def test_what_the_programs_have_lost_is_a_change(mapped: Mappings, me: Identity) -> None:
    mapped.replace(me, [page(1)])
    mapped.unmap(me)
    assert mapped.now(me) == []
    assert mapped.at(me, 0x1000) == page(1)
    assert mapped.replace(me, [page(1)])


def test_an_address_belongs_to_the_mapping_that_held_it_last(mapped: Mappings, me: Identity) -> None:
    first, second = page(1, "first"), page(1, "second")
    found = []
    for code in ([first], [second], [page(2)], [first]):
        mapped.replace(me, code)
        found.append([mapped.at(me, address) for address in (0xFFF, 0x1000, 0x1FFF, 0x2000)])
    assert found == [
        [None, first, first, None],
        [None, second, second, None],
        [None, second, second, page(2)],
        [None, first, first, page(2)],
    ]


def test_what_was_mapped_longest_ago_makes_room(
    mapped: Mappings, monkeypatch: pytest.MonkeyPatch, me: Identity
) -> None:
    monkeypatch.setattr(mappings_module, "MAPPED_MAX", 2)
    for number in (1, 2, 1, 3):
        mapped.replace(me, [page(number)])
    assert [mapped.at(me, number << 12) is not None for number in (1, 2, 3)] == [True, False, True]


def test_a_missed_address_is_a_reason_to_read_again_unless_it_is_mapped(
    mapped: Mappings, clock: list[float], me: Identity
) -> None:
    mapped.read(me)
    mapped.replace(me, [page(1)])
    clock[0] += 1
    assert [mapped.may_have_changed(me, address) for address in (0xFFF, 0x1000, 0x1FFF, 0x2000)] == [
        True,
        False,
        False,
        True,
    ]
    assert not mapped.may_have_changed(identity_of(os.getpid(), 9), 0xFFF)


def test_a_process_that_misses_and_maps_nothing_new_is_read_ever_more_rarely(
    mapped: Mappings, clock: list[float], me: Identity
) -> None:
    def wait() -> float:
        """Milliseconds until the next miss is a reason to read."""
        mapped.read(me)
        began = clock[0]
        while not mapped.may_have_changed(me, 0):
            clock[0] += 0.0005
        return round((clock[0] - began) * 1000)

    waits = [wait()]
    for _ in range(14):
        mapped.were_read_again(me, changed=False)
        waits.append(wait())
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 5000, 5000]
    mapped.were_read_again(me, changed=True)
    assert wait() == 1


def test_what_is_forgotten_has_no_mappings(mapped: Mappings, me: Identity) -> None:
    mapped.replace(me, [page(1)])
    mapped.forget([me, GONE, me])
    assert (mapped.at(me, 0x1000), mapped.now(me)) == (None, [])
