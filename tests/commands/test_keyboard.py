"""Keys from a terminal that sends them as it likes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.commands import keyboard
from pyflame_ebpf.commands.keyboard import Keyboard

Send = Callable[[str | bytes], list[str]]


class FakeTime:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(keyboard, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, clock: FakeTime) -> Iterator[Send]:
    """Gives the keys that are seen after the terminal has sent something."""
    ours, theirs = os.openpty()
    with Path(os.ttyname(theirs)).open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with Keyboard() as keys:

            def send(sent: str | bytes) -> list[str]:
                os.write(ours, sent.encode() if isinstance(sent, str) else sent)
                return keys.pressed()

            yield send
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("sequence", "key"), [("\x1b[A", "up"), ("\x1b[5~", "page up"), ("\x1bOH", "home"), ("\x1b[1;5C", "")]
)
def test_a_sequence_that_comes_in_pieces_is_one_key(terminal: Send, sequence: str, key: str) -> None:
    assert [terminal(character) for character in sequence[:-1]] == [[]] * (len(sequence) - 1)
    assert terminal(sequence[-1] + "q") == [*([key] if key else []), "q"]


def test_what_comes_before_a_piece_is_not_held_back(terminal: Send) -> None:
    assert terminal("l\x1b[") == ["l"]
    assert terminal("B") == ["down"]


def test_escape_is_a_key_once_nothing_follows(terminal: Send, clock: FakeTime) -> None:
    assert terminal("\x1b") == []
    clock.now += 0.05
    assert terminal("") == []
    clock.now += 0.06
    assert terminal("") == ["escape"]
    assert terminal("") == []


def test_escape_and_a_letter_are_two_keys(terminal: Send) -> None:
    assert terminal("\x1b") == []
    assert terminal("q") == ["escape", "q"]


def test_a_sequence_that_never_ends_holds_nothing_up(terminal: Send, clock: FakeTime) -> None:
    assert terminal("\x1b[" + "1;" * 100) == []
    assert terminal("q") == ["q"]
    assert terminal("\x1b[") == []
    clock.now += 1
    assert terminal("") == []
    assert terminal("q") == ["q"]


def test_a_character_that_comes_in_pieces_is_one_key(terminal: Send) -> None:
    first, second = (bytes([byte]) for byte in "\xe9".encode())
    assert terminal(first) == []
    assert terminal(second) == ["\xe9"]
