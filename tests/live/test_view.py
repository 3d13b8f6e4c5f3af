"""What the keys of the live view do."""

from __future__ import annotations

from typing import Any

import pytest

from pyflame_ebpf.commands.keyboard import keys_in
from pyflame_ebpf.live.rows import Sort
from pyflame_ebpf.live.view import Action, Shown, ViewState, pressed

SHOWN = Shown(pids=(10, 20, 30), functions=25, room=10)


def after(*keys: str, state: ViewState | None = None) -> ViewState:
    state = state or ViewState()
    for key in keys:
        state, _ = pressed(state, key, SHOWN, "pyflame-now")
    return state


def action_of(*keys: str) -> Action | None:
    return pressed(after(*keys[:-1]), keys[-1], SHOWN, "pyflame-now")[1]


def test_q_quits_also_from_the_help() -> None:
    assert action_of("q") is action_of("?", "q") is Action.QUIT


def test_l_changes_between_functions_and_lines() -> None:
    assert [after(*"l" * times).wanted.lines for times in range(3)] == [False, True, False]


def test_s_goes_through_all_columns_and_round() -> None:
    assert [after(*"s" * times).wanted.sort for times in range(5)] == [*Sort, Sort.OWN_NOW]


def test_k_and_n_turn_frames_off_and_on() -> None:
    frames = after("k", "n").wanted.frames
    assert (frames.kernel, frames.native) == (False, False)
    assert after("k", "n", "k", "n") == ViewState()


def test_space_pauses_and_goes_on() -> None:
    assert after(" ").paused
    assert not after(" ", " ").paused


def test_a_filter_is_typed_and_entered() -> None:
    state = after("/", *"fop", "backspace", "o", "enter")
    assert state.pattern_text == "foo"
    assert state.typed is None


def test_keys_are_characters_while_a_filter_is_typed() -> None:
    assert after("/", *"q s?l").typed == "q s?l"
    assert action_of("/", "q") is None


def test_escape_leaves_the_filter_as_it_was() -> None:
    assert after("/", "f", "enter", "/", "g", "escape").pattern_text == "f"


def test_the_filter_is_offered_again_and_an_empty_one_shows_all() -> None:
    assert after("/", "f", "enter", "/").typed == "f"
    assert after("/", "f", "enter", "/", "clear", "enter").wanted.pattern is None


def test_what_is_no_regular_expression_is_told_and_changes_nothing() -> None:
    state = after("/", "f", "enter", "/", "clear", "(", "enter")
    assert "not a regular expression" in state.message
    assert state.pattern_text == "f"
    assert not after("x", state=state).message


def test_arrows_choose_a_process_and_p_restricts_to_it() -> None:
    assert after("down", "down").cursor == 20
    assert after("down", "down", "down", "down", "down", "up").cursor == 20
    assert after("down", "down", "p").wanted.pid == 20
    assert after("down", "down", "p", "p").wanted.pid is None
    assert after("down", "enter", "escape").wanted.pid is None


def test_p_without_a_chosen_process_takes_the_first() -> None:
    assert after("p").wanted.pid == 10


def test_the_functions_scroll_by_pages_to_the_last_and_not_further() -> None:
    assert [after(*["page down"] * times).first for times in range(4)] == [0, 10, 15, 15]
    assert after("page down", "page up").first == 0
    assert after("end").first == 15
    assert after("end", "home").first == 0


def test_another_order_starts_at_the_first_row() -> None:
    assert after("end", "s").first == 0


def test_w_offers_a_directory_that_can_be_changed() -> None:
    assert after("w").typed == "pyflame-now"
    state, action = pressed(after("w", "clear", *"/x"), "enter", SHOWN)
    assert (action, state.typed) == (Action.SAVE, "/x")


def test_nothing_is_saved_to_no_directory_or_after_escape() -> None:
    assert action_of("w", "clear", "enter") is None
    assert action_of("w", "escape") is None


def test_c_counts_anew() -> None:
    assert action_of("c") is Action.RESET


def test_the_help_goes_away_with_any_key() -> None:
    assert after("?").help
    assert not after("?", "x").help


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("sl/", ["s", "l", "/"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1bOA\x1b[5~\x1b[6~", ["up", "page up", "page down"]),
        ("\x1b", ["escape"]),
        ("\x1bq", ["escape", "q"]),
        ("\r\x7f\x15", ["enter", "backspace", "clear"]),
        ("\x1b[1;5Cq", ["q"]),
        ("\x01\x02é", ["é"]),
        ("\x1b[", []),
    ],
)
def test_what_a_terminal_sends_is_read_as_keys(sent: str, keys: list[str] | list[Any]) -> None:
    assert keys_in(sent) == keys
