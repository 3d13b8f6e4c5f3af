"""The rows of a page while they are collected."""

from __future__ import annotations

import pytest

from pyflame_ebpf.unwind.page_rows import PAGE_SIZE, ROWS_MAX, PageRows, TooManyRows
from pyflame_ebpf.unwind.row import NONE_BODY, ROOT_BODY, CfaKind, body, unpack_rows
from tests.unwind.made_files import NONE, ROOT, UNSUPPORTED, Rows, as_rule, rsp

BEGIN = 0x5000
A, B = body(CfaKind.RSP, 8), body(CfaKind.RSP, 16)
A_RULE, B_RULE = rsp(8), rsp(16)


def rows_of(*added: tuple[int, bytes]) -> PageRows:
    """Rows that were added one by one, by their offsets in the page."""
    rows = PageRows(BEGIN)
    for start, row in added:
        rows.add(BEGIN + start, row)
    return rows


def said(rows: PageRows) -> Rows:
    """The packed rows as values."""
    return [(row.start, as_rule(row)) for row in unpack_rows(rows.packed())]


def functions(count: int, size: int, gap: int, first: int = 0) -> PageRows:
    """So many functions of equal size with gaps behind them."""
    rows = PageRows(BEGIN)
    for number in range(count):
        rows.add(BEGIN + first + number * (size + gap), B if number % 2 else A)
        rows.add(BEGIN + first + number * (size + gap) + size, NONE_BODY)
    return rows


def test_a_page_begins_without_rows_of_anything() -> None:
    assert said(PageRows(BEGIN)) == [(0, NONE)]


def test_a_later_row_replaces_one_at_the_same_address() -> None:
    assert said(rows_of((4, A), (4, B))) == [(0, NONE), (4, B_RULE)]


def test_a_row_that_comes_to_equal_the_one_before_is_none_of_its_own() -> None:
    assert said(rows_of((4, A), (8, B), (8, A), (12, A))) == [(0, NONE), (4, A_RULE)]


def test_a_row_from_before_the_page_holds_from_its_beginning() -> None:
    assert said(rows_of((-100, A), (4, B))) == [(0, A_RULE), (4, B_RULE)]


def test_rows_behind_the_page_are_left_out() -> None:
    assert said(rows_of((PAGE_SIZE - 1, A), (PAGE_SIZE, B), (PAGE_SIZE + 9, B))) == [(0, NONE), (PAGE_SIZE - 1, A_RULE)]


ADDED = [
    [(-8, A), (-4, B), (8, A), (8, A), (9, B), (9, A), (20, B)],
    [(0, A), (0, B), (1, B), (PAGE_SIZE - 1, A), (PAGE_SIZE, B), (PAGE_SIZE + 1, A)],
    [(5, NONE_BODY), (6, A), (6, NONE_BODY)],
]


@pytest.mark.parametrize("added", ADDED)
def test_rows_of_a_function_are_added_together_as_one_by_one(added: list[tuple[int, bytes]]) -> None:
    together = PageRows(BEGIN)
    together.add_all([(BEGIN + start, row) for start, row in added])
    assert said(together) == said(rows_of(*added))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (0, [(0, ROOT), (8, A_RULE), (16, NONE), (32, B_RULE)]),
        (4, [(0, NONE), (4, ROOT), (8, A_RULE), (16, NONE), (32, B_RULE)]),
        (16, [(0, NONE), (8, A_RULE), (16, ROOT), (32, B_RULE)]),
        (20, [(0, NONE), (8, A_RULE), (16, NONE), (20, ROOT), (32, B_RULE)]),
        (8, [(0, NONE), (8, A_RULE), (16, NONE), (32, B_RULE)]),
        (12, [(0, NONE), (8, A_RULE), (16, NONE), (32, B_RULE)]),
        (40, [(0, NONE), (8, A_RULE), (16, NONE), (32, B_RULE)]),
    ],
)
def test_only_addresses_that_no_entry_covers_are_filled(place: int, expected: Rows) -> None:
    rows = rows_of((8, A), (16, NONE_BODY), (32, B))
    rows.fill(BEGIN + place, ROOT_BODY)
    assert said(rows) == expected


def test_padding_stays_while_a_page_has_room() -> None:
    assert len(said(functions(ROWS_MAX // 2, size=4, gap=4))) == ROWS_MAX


def test_padding_goes_when_a_page_has_too_many_rows() -> None:
    found = said(functions(ROWS_MAX // 2, size=4, gap=4, first=1))
    kept = [(1 + 8 * number, B_RULE if number % 2 else A_RULE) for number in range(ROWS_MAX // 2)]
    assert found == [(0, NONE), *kept, (1 + 8 * ROWS_MAX // 2 - 4, NONE)]


def test_padding_at_the_beginning_of_a_page_stays() -> None:
    found = said(functions(ROWS_MAX // 2 + 1, size=4, gap=3, first=2))
    assert found[:3] == [(0, NONE), (2, A_RULE), (9, B_RULE)]


def after_a_gap(gap: int) -> PageRows:
    """A function, a gap, and rows that are one too many unless the gap is padding."""
    rows = rows_of((0, A), (8, NONE_BODY))
    for number in range(ROWS_MAX - 1):
        rows.add(BEGIN + 8 + gap + 6 * number, A if number % 2 else B)
    return rows


def test_a_gap_that_alignment_may_leave_is_padding() -> None:
    kept = [(23 + 6 * number, A_RULE if number % 2 else B_RULE) for number in range(ROWS_MAX - 1)]
    assert said(after_a_gap(15)) == [(0, A_RULE), *kept]


def test_a_gap_of_a_functions_size_is_no_padding() -> None:
    with pytest.raises(TooManyRows):
        after_a_gap(16).packed()


def short_rows(count: int, size: int) -> PageRows:
    """So many rows of a size from the page's beginning on, and a long one behind them."""
    rows = PageRows(BEGIN)
    for number in range(count):
        rows.add(BEGIN + number * size, B if number % 2 else A)
    return rows


@pytest.mark.parametrize("size", [2, 5])
def test_no_more_rows_are_given_up_than_needed(size: int) -> None:
    found = said(short_rows(ROWS_MAX + 2, size))
    kept = [(size * number, B_RULE if number % 2 else A_RULE) for number in range(3, ROWS_MAX + 2)]
    assert found == [(0, UNSUPPORTED), *kept]


def test_rows_of_more_than_a_push_and_a_move_are_not_given_up() -> None:
    with pytest.raises(TooManyRows, match=f"the page at 0x5000 has {ROWS_MAX + 2} unwind rows"):
        short_rows(ROWS_MAX + 2, 6).packed()


def test_as_many_rows_as_the_maps_hold_are_left_as_they_are() -> None:
    found = said(short_rows(ROWS_MAX, 2))
    assert found == [(2 * number, B_RULE if number % 2 else A_RULE) for number in range(ROWS_MAX)]


def test_single_pushes_are_given_up_before_longer_rows() -> None:
    rows = PageRows(BEGIN)
    for number in range(ROWS_MAX // 2 - 1):
        rows.add(BEGIN + 8 * number, A)
        rows.add(BEGIN + 8 * number + 5, B)
    rows.add(BEGIN + 3000, A)
    rows.add(BEGIN + 3002, B)
    rows.add(BEGIN + 3004, A)
    pairs = range(ROWS_MAX // 2 - 1)
    kept = [row for number in pairs for row in ((8 * number, A_RULE), (8 * number + 5, B_RULE))]
    assert said(rows) == [*kept, (3000, UNSUPPORTED), (3004, A_RULE)]
