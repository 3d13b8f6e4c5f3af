"""The keys of the live view: a state and a key give the next state, and perhaps an action.

Pure.  A key has a name ("up", "escape"), or is the character that was typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from pyflame_ebpf.live.rows import EVERYTHING, Wanted

PATTERN_MAX = 200  # characters


class Action(Enum):
    """What a key asks for besides another look of the view."""

    QUIT = "quit"
    SAVE = "save"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewState:
    """How the view looks.

    ``typed`` is the text that is being typed, None while nothing is typed.  ``asks`` tells what the text is for: None
    for a pattern, SAVE for a directory.  ``cursor`` is the PID that the arrows have chosen, ``first`` the first
    function row in view.  ``message`` is shown until the next key.
    """

    wanted: Wanted = EVERYTHING
    paused: bool = False
    help: bool = False
    cursor: int | None = None
    first: int = 0
    typed: str | None = None
    asks: Action | None = None
    message: str = ""

    @property
    def pattern_text(self) -> str:
        """The filter as it was typed, "" for none."""
        return self.wanted.pattern.pattern if self.wanted.pattern else ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the keys refer to: PIDs from the top, the number of function rows, and the number that fits the screen."""

    pids: Sequence[int] = ()
    functions: int = 0
    room: int = 1


Pressed = tuple[ViewState, Action | None]


def pressed(state: ViewState, key: str, shown: Shown, directory: str = "") -> Pressed:
    """The state after a key, and the action that it asks for.  ``directory`` is offered as the place to save to."""
    state = replace(state, message="")
    if state.typed is not None:
        return _typed(state, key)
    if key in _ACTIONS:
        return replace(state, help=False, message=_SAID.get(key, "")), _ACTIONS[key]
    if state.help:
        return replace(state, help=False), None
    if key == "w":
        return replace(state, typed=directory, asks=Action.SAVE), None
    return _MOVES.get(key, _unchanged)(state, shown), None


def _typed(state: ViewState, key: str) -> Pressed:
    """The state after a key that is pressed while a text is typed."""
    text = state.typed or ""
    if key == "escape":
        return replace(state, typed=None, asks=None), None
    if key == "enter":
        return _entered(replace(state, typed=None), text)
    if key in ("backspace", "clear"):
        return replace(state, typed=text[:-1] if key == "backspace" else ""), None
    if len(key) == 1 and key.isprintable() and len(text) < PATTERN_MAX:
        return replace(state, typed=text + key), None
    return state, None


def _entered(state: ViewState, text: str) -> Pressed:
    if state.asks is Action.SAVE:
        state = replace(state, asks=None)
        return (replace(state, typed=text), Action.SAVE) if text else (state, None)
    try:
        pattern = re.compile(text) if text else None
    except re.error as error:
        return replace(state, message=f"not a regular expression: {error}"), None
    return _wanting(state, pattern=pattern), None


def _unchanged(state: ViewState, _shown: Shown) -> ViewState:
    return state


def _wanting(state: ViewState, **changes: Any) -> ViewState:
    """The state with other rows, shown from the first row on."""
    return replace(state, wanted=replace(state.wanted, **changes), first=0)


def _move(step: int) -> Callable[[ViewState, Shown], ViewState]:
    def move(state: ViewState, shown: Shown) -> ViewState:
        if not shown.pids:
            return state
        if state.cursor not in shown.pids:
            return replace(state, cursor=shown.pids[0])
        index = shown.pids.index(state.cursor) + step
        return replace(state, cursor=shown.pids[min(max(index, 0), len(shown.pids) - 1)])

    return move


def _scroll(pages: int) -> Callable[[ViewState, Shown], ViewState]:
    def scroll(state: ViewState, shown: Shown) -> ViewState:
        last = max(shown.functions - shown.room, 0)
        return replace(state, first=min(max(state.first + pages * shown.room, 0), last))

    return scroll


def _restrict(state: ViewState, shown: Shown) -> ViewState:
    """Restrict the view to the process under the cursor, else the first; lift the restriction if there is one."""
    if state.wanted.pid is not None:
        return _release(state, shown)
    pid = state.cursor if state.cursor in shown.pids else next(iter(shown.pids), None)
    return _wanting(replace(state, cursor=pid), pid=pid)


def _release(state: ViewState, _shown: Shown) -> ViewState:
    return _wanting(state, pid=None)


def _help(state: ViewState, _shown: Shown) -> ViewState:
    return replace(state, help=True)


def _show_kernel(state: ViewState, _shown: Shown) -> ViewState:
    frames = state.wanted.frames
    return _wanting(state, frames=replace(frames, kernel=not frames.kernel))


def _show_native(state: ViewState, _shown: Shown) -> ViewState:
    frames = state.wanted.frames
    return _wanting(state, frames=replace(frames, native=not frames.native))


_ACTIONS = {"q": Action.QUIT, "Q": Action.QUIT, "c": Action.RESET}
_SAID = {"c": "counted anew from now on"}
_MOVES: dict[str, Callable[[ViewState, Shown], ViewState]] = {
    "up": _move(-1),
    "down": _move(1),
    "page up": _scroll(-1),
    "page down": _scroll(1),
    "home": lambda state, _shown: replace(state, first=0),
    "end": lambda state, shown: replace(state, first=max(shown.functions - shown.room, 0)),
    "p": _restrict,
    "enter": _restrict,
    "escape": _release,
    "l": lambda state, _shown: _wanting(state, lines=not state.wanted.lines),
    "s": lambda state, _shown: _wanting(state, sort=state.wanted.sort.next),
    "k": _show_kernel,
    "n": _show_native,
    " ": lambda state, _shown: replace(state, paused=not state.paused),
    "/": lambda state, _shown: replace(state, typed=state.pattern_text),
    "?": _help,
    "h": _help,
}
