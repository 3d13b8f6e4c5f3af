"""What the live view does about savings; its recorder is a stand-in, and nothing is drawn."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyflame_ebpf.commands.background_save import BackgroundSave, SaveOutcome
from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.commands.targets import WholeHost
from pyflame_ebpf.commands.top import LiveScreen, Request, ViewedRecorder
from pyflame_ebpf.errors import Interrupted
from pyflame_ebpf.live.view import ViewState
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.recording.recorder import Progress
from pyflame_ebpf.stacks.profile_builder import SegmentNaming
from pyflame_ebpf.stacks.segments import Segment
from tests.command_line import environment, pyflame
from tests.profiles import realistic_profile


@dataclass
class StillRecorder:
    """Has sampled, and samples nothing more."""

    kept: tuple[float, float]
    samples: int

    @property
    def elapsed(self) -> float:
        return self.kept[1]

    def step(self, _wait: float, /) -> Segment | None:
        return None

    def begin_naming(self, _segment: Segment, /) -> SegmentNaming:
        raise AssertionError

    def progress(self) -> Progress:
        return Progress(self.elapsed, self.samples, 1, 1, 0)

    def profile_so_far(self) -> Profile:
        return realistic_profile()


def live_screen(kept: tuple[float, float], samples: int = 9) -> LiveScreen:
    recorder: ViewedRecorder = StillRecorder(kept, samples)
    return LiveScreen(Request(), recorder, WholeHost())


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


class InterruptedSave(BackgroundSave):
    """A signal comes while it is waited for."""

    path = Path("second")

    def __init__(self) -> None:
        pass

    def outcome(self, _timeout: float | None = 0.0) -> SaveOutcome | None:
        raise Interrupted(signal.SIGINT)


def test_a_failed_saving_is_told_although_a_later_one_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    screen = live_screen((0, 30.0))
    screen.saved.append(SaveOutcome("the first was broken off"))

    with pytest.raises(Interrupted, match="goes on"):
        screen._wait_for(InterruptedSave(), StopSignals())
    assert capsys.readouterr().err.splitlines() == ["still saving to second", "the first was broken off"]


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
