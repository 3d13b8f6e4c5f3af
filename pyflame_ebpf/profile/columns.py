"""Values of a saved profile's JSON, each checked when it is read: nothing in a file is what it claims to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_Item = TypeVar("_Item")


class WrongContentError(Exception):
    """Something in the file is not what the format says; the text tells what."""


def columns(table: dict[str, Any], **readers: Callable[[Any], Any]) -> list[list[Any]]:
    """The named columns, each value through its reader; all of one length."""
    found = [[reader(value) for value in listed(table, name)] for name, reader in readers.items()]
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


def chosen_from(choices: Sequence[_Item]) -> Callable[[Any], _Item]:
    """Reads an index as the choice that it stands for."""
    index = index_into(choices)
    return lambda value: choices[index(value)]


def index_into(choices: Sequence[Any]) -> Callable[[Any], int]:
    """Reads an index into these."""
    count = len(choices)

    def index(value: Any) -> int:
        if type(value) is not int or not 0 <= value < count:
            raise WrongContentError(f"it refers to entry {value!r:.20} of a list of {count}")
        return value

    return index


def integer(value: Any) -> int:
    """Reads a whole number; a truth value is none."""
    if type(value) is not int:
        raise WrongContentError(f"it has {value!r:.20} where a whole number is needed")
    return value


def number(value: Any) -> float:
    """Reads a finite number."""
    try:
        found = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        found = math.nan
    if not math.isfinite(found):
        raise WrongContentError(f"it has {value!r:.20} where a number is needed")
    return found


def number_or_none(value: Any) -> float | None:
    """Reads a finite number, or that there is none."""
    return None if value is None else number(value)


def text(value: Any) -> str:
    """Reads a text."""
    if not isinstance(value, str):
        raise WrongContentError(f"it has {value!r:.20} where a text is needed")
    return value
