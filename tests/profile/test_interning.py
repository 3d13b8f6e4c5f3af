"""Numbers for distinct values."""

from __future__ import annotations

from pyflame_ebpf.profile.interning import Numbering


def test_values_are_numbered_in_the_order_in_which_they_are_first_asked_for() -> None:
    numbers: Numbering[str] = Numbering()
    assert [numbers[text] for text in ("b", "a", "b", "c", "a")] == [0, 1, 0, 2, 1]
    assert numbers.distinct == list(numbers) == ["b", "a", "c"]


def test_the_list_of_values_grows_with_the_numbering() -> None:
    numbers: Numbering[tuple[int, ...]] = Numbering()
    distinct = numbers.distinct
    numbers[1, 2]
    assert distinct == [(1, 2)]


def test_values_may_be_given_at_first_and_equal_ones_have_one_number() -> None:
    numbers = Numbering(["", "a", ""])
    assert (dict(numbers), numbers["b"]) == ({"": 0, "a": 1}, 2)


def test_numbers_may_begin_with_another_than_0() -> None:
    numbers = Numbering("xy", first=1)
    assert (dict(numbers), numbers["z"], numbers["x"]) == ({"x": 1, "y": 2}, 3, 1)


def test_a_look_that_must_not_number_takes_get_or_in() -> None:
    numbers: Numbering[str] = Numbering()
    assert numbers.get("a") is None
    assert "a" not in numbers
    assert numbers.distinct == []
