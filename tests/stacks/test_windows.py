"""Naming while a recording goes on: a second's samples at a time, each stack and each file read once."""

from __future__ import annotations

import pytest

from pyflame_ebpf.profile.model import Frame, Profile
from pyflame_ebpf.stacks.profile_builder import NOT_NAMED
from pyflame_ebpf.stacks.symbolize import Symbolizer
from tests.command_line import environment, pyflame
from tests.profiles import framed_stacks
from tests.stacks.test_symbolize import (
    IDENTITY,
    LAYOUT,
    PYTHON,
    RECORDING,
    STACK_ID,
    code_event,
    count,
    name_kernel_address,
    native,
    native_frame,
    parse_at,
    python_frame,
    stack_event,
)


class Names:
    """Native names that become known later, and how often they were asked for."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self.asked: list[int] = []

    def name(self, _identity: object, address: int) -> Frame | None:
        self.asked.append(address)
        return native(self.known[address]) if address in self.known else None


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def symbols(names: Names) -> Symbolizer:
    return Symbolizer(lambda *_: b"", names.name, name_kernel_address)


def window(symbols: Symbolizer, second: int, *counts) -> Profile:
    found = symbols.window(symbols.add_counts(second, list(counts)), RECORDING, {IDENTITY: PYTHON})
    assert found.name(60.0)
    return found.profile()


def test_a_window_has_the_samples_of_its_second_and_the_profile_those_of_all(symbols: Symbolizer) -> None:
    symbols.add_code(code_event(), LAYOUT)
    symbols.add_stack(stack_event(python_frame()), LAYOUT)
    assert window(symbols, 0, count(samples=3)).total == 3
    later = window(symbols, 1, count(samples=4))
    assert (later.total, framed_stacks(later)) == (4, [(parse_at(11),)])
    assert symbols.profile(RECORDING, {}).total == symbols.samples == 7


def test_a_stack_that_the_window_before_had_is_not_named_again(symbols: Symbolizer, names: Names) -> None:
    names.known[0x5000] = "work"
    symbols.add_stack(stack_event(native_frame(0x5000)), LAYOUT)
    first, second = window(symbols, 0, count()), window(symbols, 1, count())
    assert framed_stacks(second) == framed_stacks(first)
    assert second.frames[0] is first.frames[0]
    assert names.asked == [0x5000]


def test_what_had_no_name_is_asked_for_again_in_the_end(symbols: Symbolizer, names: Names) -> None:
    symbols.add_stack(stack_event(native_frame(0x5000)), LAYOUT)
    assert framed_stacks(window(symbols, 0, count())) == [(native("0x5000"),)]
    names.known[0x5000] = "work"
    assert framed_stacks(symbols.profile(RECORDING, {})) == [(native("work"),)]


def test_names_that_are_forgotten_are_asked_for_again(symbols: Symbolizer, names: Names) -> None:
    names.known[0x5000] = "early"
    symbols.add_stack(stack_event(native_frame(0x5000)), LAYOUT)
    window(symbols, 0, count())
    names.known[0x5000] = "late"
    symbols.forget_names()
    assert framed_stacks(symbols.profile(RECORDING, {})) == [(native("late"),)]


def test_code_that_comes_after_its_stack_is_named_in_the_end(symbols: Symbolizer) -> None:
    symbols.add_stack(stack_event(python_frame()), LAYOUT)
    window(symbols, 0, count())
    symbols.add_code(code_event(), LAYOUT)
    assert framed_stacks(symbols.profile(RECORDING, {})) == [(parse_at(11),)]


def test_samples_that_are_not_named_in_time_count_under_a_mark(symbols: Symbolizer) -> None:
    symbols.add_stack(stack_event(native_frame(0x5000)), LAYOUT)
    found = symbols.window(symbols.add_counts(0, [count(samples=5)]), RECORDING, {IDENTITY: PYTHON})
    assert not found.name(0.0)
    profile = found.profile()
    assert (profile.total, framed_stacks(profile)) == (5, [(NOT_NAMED,)])


def test_a_stack_that_was_let_go_is_missing_until_it_comes_again(symbols: Symbolizer) -> None:
    counts = symbols.add_counts(0, [count()])
    assert symbols.missing(counts) == {STACK_ID}
    symbols.add_stack(stack_event(native_frame(0x5000)), LAYOUT)
    assert symbols.missing(counts) == set()


def test_seconds_of_a_profile_begin_with_the_samples_that_are_kept(names: Names) -> None:
    symbols = Symbolizer(lambda *_: b"", names.name, name_kernel_address, limit=1)
    for second in range(6):
        symbols.add_stack(stack_event(native_frame(0x5000)), LAYOUT)
        symbols.add_counts(second, [count()])
        symbols.make_room(second + 1)
    profile = symbols.profile(RECORDING, {IDENTITY: PYTHON})
    assert symbols.begin > 0
    assert {key.second for key in profile.samples} == set(range(6 - symbols.begin))
    assert framed_stacks(profile) == [(native("0x5000"),)]


def test_a_process_that_is_forgotten_has_no_names(symbols: Symbolizer, names: Names) -> None:
    names.known[0x5000] = "early"
    symbols.add_stack(stack_event(native_frame(0x5000)), LAYOUT)
    window(symbols, 0, count())
    symbols.forget({IDENTITY})
    names.known[0x5000] = "late"
    assert framed_stacks(symbols.profile(RECORDING, {})) == [(native("late"),)]


# ---- what no sample has any more ----


@pytest.fixture
def live(names: Names) -> Symbolizer:
    return Symbolizer(lambda *_: b"", names.name, name_kernel_address, limit=1)


def starts_of_a_program(symbols: Symbolizer, starts: int) -> None:
    """Each has a code object and a thread of its own."""
    for second in range(starts):
        symbols.add_code(code_event(code_id=second + 1), LAYOUT)
        symbols.add_thread(IDENTITY, second, "worker")
        symbols.add_stack(stack_event(python_frame(code_id=second + 1), stack_id=second), LAYOUT)
        assert framed_stacks(window(symbols, second, count(stack_id=second, tid=second))) == [(parse_at(11),)]
        symbols.make_room(second + 1)


def test_code_objects_and_threads_without_samples_are_forgotten(live: Symbolizer) -> None:
    starts_of_a_program(live, 6)
    assert live.forget_unsampled() == ({1, 2, 3, 4, 5}, {(IDENTITY, tid) for tid in range(5)})
    assert live.forget_unsampled() == (set(), set())


def test_what_is_kept_is_named_after_the_rest_was_forgotten(live: Symbolizer) -> None:
    starts_of_a_program(live, 6)
    live.forget_unsampled()
    profile = live.profile(RECORDING, {IDENTITY: PYTHON})
    assert framed_stacks(profile) == [(parse_at(11),)]
    assert [(thread.tid, thread.name) for thread in profile.threads] == [(5, "worker")]


def test_a_code_object_whose_stack_is_yet_to_come_stays(live: Symbolizer) -> None:
    live.add_code(code_event(), LAYOUT)
    live.make_room(1)
    assert live.forget_unsampled() == (set(), set())


def test_a_code_object_of_a_stack_that_is_sampled_still_stays(live: Symbolizer) -> None:
    starts_of_a_program(live, 1)
    for second in range(1, 6):
        window(live, second, count(stack_id=0, tid=0))
        live.make_room(second + 1)
    assert live.forget_unsampled() == (set(), set())


def test_a_code_object_that_was_forgotten_a_moment_ago_is_read_from_its_process(names: Names) -> None:
    reads = []
    symbols = Symbolizer(
        lambda _identity, address, _size: reads.append(address) or b"", names.name, name_kernel_address, limit=1
    )
    symbols.add_stack(stack_event(python_frame()), LAYOUT)
    symbols.settle()
    assert reads


# ---- the command line ----


def test_without_a_terminal_top_says_what_to_do() -> None:
    run = pyflame("top")
    assert run.returncode == 2
    assert "top needs a terminal" in run.stderr
    assert "pyflame-ebpf record --all" in run.stderr


def test_an_interval_below_a_second_is_refused() -> None:
    run = pyflame("top", "--interval", "0.5", env=environment(TERM="xterm"))
    assert run.returncode == 2
    assert "--interval" in run.stderr
