"""Patterns of the command line that would take time without end over names that strangers chose."""

from __future__ import annotations

import signal
import time

import pytest

from pyflame_ebpf.commands import pattern_time
from pyflame_ebpf.commands.pattern_time import limited_matching
from pyflame_ebpf.errors import UsageError
from pyflame_ebpf.profile.model import Gil, Outcome, Process, Profile, SampleKey, Thread
from pyflame_ebpf.profile.selection import Selection
from tests.profiles import recording


def named(name: str) -> Profile:
    """A recording of one process of this name."""
    profile = Profile(recording(), [Process(1, name)], [Thread(1, name)], stacks=[()])
    profile.samples[SampleKey(0, 0, 0, 0, False, Gil.UNKNOWN, Outcome.NOT_PYTHON)] = 1
    return profile


def test_a_pattern_that_takes_too_long_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match="takes too long"), limited_matching(0.2):
        Selection(processes=("(a+)+$",)).of(named("a" * 60 + "!"))
    assert time.monotonic() - began < 20


def test_after_the_matching_the_alarm_is_as_before() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with limited_matching(60):
        assert Selection(processes=("web",)).of(named("web-1")).total == 1
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (before, (0.0, 0.0))


def test_there_is_time_enough_for_the_largest_profile() -> None:
    assert pattern_time.MATCHING_MAX >= 10
