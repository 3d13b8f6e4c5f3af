"""Numbers for distinct values: frames, stacks, processes, threads, texts, and whatever else a format refers to."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

_Value = TypeVar("_Value", bound=Hashable)


class Numbering(dict[_Value, int]):
    """Gives every distinct value a number, in the order in which the values are first asked for.

    ``numbering[value]`` is the number of a value, the next free one if the value is new.  ``distinct`` holds the values
    in the order of their numbers and grows with the numbering.  The first number is 0, or ``first``.
    """

    __slots__ = ("_first", "distinct")

    def __init__(self, values: Iterable[_Value] = (), *, first: int = 0) -> None:
        super().__init__()
        self.distinct: list[_Value] = []
        self._first = first
        for value in values:
            self[value]

    def __missing__(self, value: _Value) -> int:
        """Give a new value the next number."""
        self[value] = number = self._first + len(self.distinct)
        self.distinct.append(value)
        return number
