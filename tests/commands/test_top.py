"""What the live view does about savings; its recorder is a stand-in, and nothing is drawn."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyflame_ebpf.commands.background_save import SaveOutcome
from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.commands.top import LiveScreen, Request
from pyflame_ebpf.errors import Interrupted
from pyflame_ebpf.live.view import ViewState
from pyflame_ebpf.recording.recorder import Progress
from tests.profiles import realistic_profile


def live_screen(kept: tuple[float, float], samples: int = 9) -> LiveScreen:
    recorder = SimpleNamespace(
        kept=kept, profile_so_far=realistic_profile, progress=lambda: Progress(kept[1], samples, 1, 1, 0)
    )
    return LiveScreen(Request(), recorder, SimpleNamespace(text="all processes"))


def told_when_saving(screen: LiveScreen, path: Path) -> str:
    screen._state = ViewState(typed=str(path))
    screen._begin_save()
    if screen._save is not None:
        screen._save.outcome(None)
    return screen._state.message


def test_a_saving_of_all_says_where_it_goes(tmp_path: Path) -> None:
    assert told_when_saving(live_screen((0, 30.2)), tmp_path / "out") == f"saving to {tmp_path / 'out'} …"


def test_a_saving_of_the_latter_part_of_a_view_says_how_long_that_is(tmp_path: Path) -> None:
    told = told_when_saving(live_screen((3200, 3600.4)), tmp_path / "out")
    assert told == f"saving to {tmp_path / 'out'} (the last 6:40) …"


def test_before_the_first_samples_there_is_nothing_to_save(tmp_path: Path) -> None:
    assert told_when_saving(live_screen((0, 0.0), samples=0), tmp_path / "out") == "there is nothing to save yet"
    assert not (tmp_path / "out").exists()


def test_a_failed_saving_is_told_although_a_later_one_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    screen = live_screen((0, 30.0))
    screen.saved.append(SaveOutcome("the first was broken off"))

    def interrupted(_timeout: None) -> SaveOutcome:
        raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted, match="goes on"):
        screen._wait_for(SimpleNamespace(path="second", outcome=interrupted), StopSignals(()))
    assert capsys.readouterr().err.splitlines() == ["still saving to second", "the first was broken off"]
