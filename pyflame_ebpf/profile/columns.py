"""Values of a saved profile's JSON, each checked when it is read: a file may hold anything.

A table of the file is an object of columns, lists of equal length.  The readers take a whole column, since a recording
has millions of values.  All of them raise WrongContentError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

_Item = TypeVar("_Item")
ReadColumn = Callable[[list[Any]], list[Any]]


class WrongContentError(Exception):
    """The file contradicts its format.  The text says where, and follows "the file cannot be read: "."""


def columns(table: dict[str, Any], **readers: ReadColumn) -> list[list[Any]]:
    """The named columns of a table, each as its reader returns it; all must have one length."""
    found = [reader(listed(table, name)) for name, reader in readers.items()]
    if len({len(column) for column in found}) > 1:
        raise WrongContentError(f"its columns {', '.join(readers)} differ in length")
    return found


def table(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The table with this name."""
    value = document.get(name)
    if not isinstance(value, dict):
        raise WrongContentError(f"it has no table {name}")
    return value


def listed(document: dict[str, Any], name: str) -> list[Any]:
    """The list with this name."""
    value = document.get(name)
    if not isinstance(value, list):
        raise WrongContentError(f"it has no list {name}")
    return value


# Whole columns


def chosen_from(choices: Sequence[_Item]) -> Callable[[list[Any]], list[_Item]]:
    """Reads indices as the choices that they stand for."""
    indices = indices_into(len(choices))
    return lambda column: [choices[index] for index in indices(column)]


def indices_into(count: int) -> Callable[[list[Any]], list[int]]:
    """Reads indices into a list of this length."""

    def indices(column: list[Any]) -> list[int]:
        if not _are_all(int, column) or (column and not (min(column) >= 0 and max(column) < count)):
            wrong = next(value for value in column if type(value) is not int or not 0 <= value < count)
            raise WrongContentError(f"it refers to entry {wrong!r:.20} of a list of {count}")
        return column

    return indices


def integers_within(least: int, most: int) -> Callable[[list[Any]], list[int]]:
    """Reads whole numbers from ``least`` to ``most``; a truth value is none."""

    def integers(column: list[Any]) -> list[int]:
        if _are_all(int, column) and (not column or (min(column) >= least and max(column) <= most)):
            return column
        return [integer(value, least, most) for value in column]

    return integers


def texts(column: list[Any]) -> list[str]:
    """Reads texts."""
    return column if _are_all(str, column) else [text(value) for value in column]


def numbers_or_none_within(least: float, most: float) -> Callable[[list[Any]], list[float | None]]:
    """Reads numbers from ``least`` to ``most``, and null as None."""
    return lambda column: [None if value is None else number(value, least, most) for value in column]


def _are_all(kind: type, values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= {kind}


# Single values


def integer(value: Any, least: int, most: int) -> int:
    """Reads a whole number from ``least`` to ``most``; a truth value is none."""
    if type(value) is not int:
        raise WrongContentError(f"it has {value!r:.20} where a whole number is needed")
    if not least <= value <= most:
        raise WrongContentError(f"it has {value!r:.30} where a number from {least} to {most} is needed")
    return value


def number(value: Any, least: float, most: float) -> float:
    """Reads a number from ``least`` to ``most``, which are finite."""
    if type(value) not in (int, float) or not least <= value <= most:
        raise WrongContentError(f"it has {value!r:.30} where a number from {least:g} to {most:g} is needed")
    return float(value)


def text(value: Any) -> str:
    """Reads a text."""
    if not isinstance(value, str):
        raise WrongContentError(f"it has {value!r:.20} where a text is needed")
    return value
