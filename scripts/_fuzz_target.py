"""A target of scripts/fuzz.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of untrusted bytes.

    ``read`` gives the reader an input, and raises only if the reader breaks a promise.  ``seeds`` yields inputs as they
    are in life; it may write files in a folder.  ``modules`` are those of the package whose branches guide the fuzzer.
    """

    read: Callable[[bytes], None]
    seeds: Callable[[Path], Iterator[bytes]]
    modules: tuple[str, ...]
