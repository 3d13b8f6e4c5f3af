"""Names of threads, and how they are forgotten."""

from __future__ import annotations

import pytest

from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.stacks.thread_names import ThreadNames
from tests.stacks.records import IDENTITY, OTHER


def three_threads() -> ThreadNames:
    names = ThreadNames()
    names.add(IDENTITY, 1, "reader")
    names.add(IDENTITY, 2, "writer")
    names.add(OTHER, 1, "other")
    return names


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (Gone(), ["reader", "writer", "other"]),
        (Gone(threads={(IDENTITY, 1), (IDENTITY, 9)}), ["", "writer", "other"]),
        (Gone(processes={IDENTITY}), ["", "", "other"]),
        (Gone(threads={(OTHER, 1)}), ["reader", "writer", ""]),
        (Gone(threads={(OTHER, 1)}, processes={OTHER}), ["reader", "writer", ""]),
    ],
)
def test_what_is_gone_has_no_name(gone: Gone, left: list[str]) -> None:
    names = three_threads()
    names.forget(gone)
    assert [names.get(IDENTITY, 1), names.get(IDENTITY, 2), names.get(OTHER, 1)] == left


def test_a_thread_has_the_name_that_came_last() -> None:
    names = three_threads()
    names.add(IDENTITY, 1, "renamed")
    assert names.get(IDENTITY, 1) == "renamed"
