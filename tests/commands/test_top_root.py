"""The live view in a real terminal, over a load that changes."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.profile.file import load_profile
from tests.command_line import BUSY, RECORDED_FILES, BusyProcess
from tests.interpreters import discover
from tests.target_process import TargetProcess
from tests.tmux_terminal import TIMEOUT, Terminal

pytestmark = pytest.mark.root
WAIT_FOR_OTHERS = 240.0  # seconds
PATIENTLY = """
import contextlib, io, sys, time
from pyflame_ebpf.commands import cli
from pyflame_ebpf.commands import top
from pyflame_ebpf.recording.host_lock import AlreadyRecording
code = AlreadyRecording.exit_code
while code == AlreadyRecording.exit_code:
    time.sleep(0.05)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = cli.run(sys.argv[1:])
sys.stderr.write(said.getvalue())
sys.exit(code)
"""  # other tests on this host may record meanwhile
FUNCTIONS = r"(morning|evening|spin|elsewhere) \("
OTHER_PROGRAM = "def elsewhere():\n    while True: pass\nelsewhere()"
DEFECT = """
from pyflame_ebpf.live import totals
def add(self, profiles): raise RuntimeError("made to fail")
totals.LiveTotals.add = add
"""


def row(function: str) -> str:
    """Matches the row of a function that runs now, with its Total%."""
    return rf"^ *[\d.]+ +([1-9][\d.]*) .*{function} \("


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``top``, started again while another recording on this host comes first."""
    program = tmp_path_factory.mktemp("top") / "top"
    program.write_text(PATIENTLY)
    return program


def start(terminal: Terminal, program: Path, *arguments: str) -> None:
    terminal.run([sys.executable, str(program), "top", *arguments])
    terminal.wait_for(r"^pyflame-ebpf top", WAIT_FOR_OTHERS)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as terminal:
        yield terminal


# ---- a top of its own for each; before the one that the others share, for there can be only one ----


@pytest.mark.parametrize("key", ["q", "C-c", "C-\\"])
def test_the_terminal_is_restored_at_the_end(terminal: Terminal, program: Path, key: str) -> None:
    start(terminal, program)
    assert str(program) not in terminal.screen()
    terminal.press(key)
    terminal.wait_for(re.escape(f"{program} top"))
    assert_usable(terminal)


def assert_usable(terminal: Terminal) -> None:
    """What is typed is shown, line by line, and the status of the last command was what a shell can tell."""
    terminal.run(["sh", "-c", "stty -a"])
    screen = terminal.wait_for(r"\becho\b.*\n")
    assert re.search(r" icanon\b", screen)
    assert re.search(r" echo\b", screen)
    assert "susp = ^Z" in screen


def test_a_defect_gives_the_terminal_back_and_is_reported(terminal: Terminal, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text(DEFECT + PATIENTLY)
    terminal.run([sys.executable, str(broken), "top"])
    terminal.wait_for(r"^error: a defect in pyflame-ebpf: RuntimeError: made to fail", WAIT_FOR_OTHERS)
    assert_usable(terminal)


def test_it_ends_when_its_terminal_is_closed(program: Path, tmp_path: Path) -> None:
    with Terminal() as closed:
        closed.run(["exec", "env", f"TMPDIR={tmp_path}", sys.executable, str(program), "top"])
        closed.wait_for(r"^pyflame-ebpf top", WAIT_FOR_OTHERS)
        ended = os.pidfd_open(closed.pid)
    assert select.select([ended], [], [], TIMEOUT)[0]
    os.close(ended)
    assert not list(tmp_path.iterdir())  # no report of a defect


def test_a_duration_ends_it(terminal: Terminal, program: Path) -> None:
    command = shlex.join([sys.executable, str(program), "top", "--duration", "2"])
    terminal.run(["sh", "-c", f"{command}; printf 'status %s\\n' $?"])
    terminal.wait_for(r"^status 0$", WAIT_FOR_OTHERS)  # the view may come and go between two looks
    assert_usable(terminal)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system that has room for a directory and for nothing in it."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # a top that failed to end may still be in it


def test_the_end_says_that_what_was_to_be_saved_is_elsewhere(
    terminal: Terminal, program: Path, full_disk: Path
) -> None:
    (full_disk / "filler").write_bytes(bytes(4096))
    terminal.resize(300, 40)  # no message is broken into lines
    with BusyProcess():
        run_to_its_end(terminal, program)
        terminal.wait_for(r"<module> \(")  # something was sampled
        save(terminal, full_disk / "saved")
        terminal.wait_for(r"No space left on device; the recording is saved in ")
        terminal.press("q")
        screen = terminal.wait_for(r"^status 15$")
    said = re.search(r"^error: .* the recording is saved in (\S+)$", screen, re.MULTILINE)
    assert said is not None, screen
    with Path(said[1]).open("rb") as saved:
        assert load_profile(saved).total
    Path(said[1]).unlink()


def run_to_its_end(terminal: Terminal, program: Path, *arguments: str) -> None:
    """Start a top; once it has ended its status is shown."""
    command = shlex.join([sys.executable, str(program), "top", *arguments])
    terminal.run(["sh", "-c", f"{command}; printf 'status %s\\n' $?"])
    terminal.wait_for(r"^pyflame-ebpf top", WAIT_FOR_OTHERS)


def save(terminal: Terminal, directory: Path) -> None:
    terminal.type("w")
    terminal.wait_for(r"^save to: pyflame-\d+")
    terminal.press("C-u")
    terminal.type(str(directory))
    terminal.press("Enter")


def test_a_saving_that_succeeds_makes_up_for_one_that_failed(terminal: Terminal, program: Path, tmp_path: Path) -> None:
    run_to_its_end(terminal, program)
    terminal.wait_for(r" [1-9][\d,]* samples")
    save(terminal, tmp_path / "missing" / "saved")
    terminal.wait_for(r"missing/saved cannot be made: ")
    save(terminal, tmp_path / "saved")
    terminal.press("q")
    screen = terminal.wait_for(r"^status 0$")
    assert re.search(r"^saved in ", screen, re.MULTILINE)
    assert re.search(r"missing/saved cannot be made: ", screen)


def test_the_end_of_the_only_process_is_told_and_its_functions_stay(terminal: Terminal, program: Path) -> None:
    with BusyProcess(BUSY.format(seconds=600)) as busy:
        start(terminal, program, "--pid", str(busy.pid))
        terminal.wait_for(r"<module> \(")
        busy.kill()
        screen = terminal.wait_for(rf"^process {busy.pid} ended")
    assert "<module> (" in screen
    assert not Path("/proc", str(busy.pid)).exists()


# ---- one top for all ----


@pytest.fixture(scope="module")
def load() -> Iterator[TargetProcess]:
    target = TargetProcess(discover()[-1], "taking_turns.py")
    target.wait_until_ready()
    yield target
    target.close()


@pytest.fixture(scope="module")
def view(load: TargetProcess, program: Path) -> Iterator[Terminal]:
    """A view of everything, with another program than the load that runs, too."""
    with BusyProcess(OTHER_PROGRAM), Terminal() as terminal:
        start(terminal, program)
        set_filter(terminal, FUNCTIONS)
        terminal.wait_for(r"^ +\d+ .*taking_turns\.py")
        yield terminal


def set_filter(terminal: Terminal, pattern: str) -> None:
    """What else runs on this host must not push our functions off the screen."""
    terminal.press("/", "C-u")
    terminal.type(pattern)
    terminal.wait_for(rf"^filter: /{re.escape(pattern)}_")
    terminal.press("Enter")
    terminal.wait_for(rf"filter /{re.escape(pattern)}/")


def test_the_hottest_function_changes_with_the_load(view: Terminal, load: TargetProcess) -> None:
    view.wait_for(row("morning"))
    load.write_line()
    view.wait_for(row("evening"))
    screen = view.wait_for(r"^ +0\.0 +0\.0 .*morning \(")
    assert re.search(row("elsewhere"), screen, re.MULTILINE)
    load.write_line()
    view.wait_for(row("morning"))


def test_a_filter_leaves_what_it_matches(view: Terminal, load: TargetProcess) -> None:
    set_filter(view, "spin.*taking_turns")
    screen = view.screen()
    assert re.search(r"^ +\d+ .*taking_turns\.py", screen, re.MULTILINE)
    assert "elsewhere" not in screen
    set_filter(view, FUNCTIONS)
    view.wait_for(row("elsewhere"))


def test_the_columns_sort_by_turns(view: Terminal, load: TargetProcess) -> None:
    for column, name in enumerate(("Self%", "Total%", "Self s", "Total s")):
        figures = [float(cells[column]) for cells in functions_pane(view.wait_for(rf"^functions by {name} "))]
        assert len(figures) >= 3
        assert figures == sorted(figures, reverse=True)
        view.type("s")
    view.wait_for(r"^functions by Self%")


def functions_pane(screen: str) -> list[list[str]]:
    lines = screen.splitlines()
    names = next(index for index, line in enumerate(lines) if "Total%" in line and "by Total%" not in line)
    return [line.split() for line in lines[names + 1 : -1] if line.strip()]


def test_lines_show_where_a_function_is_executing(view: Terminal, load: TargetProcess) -> None:
    view.type("l")
    view.wait_for(r"^lines by")
    view.wait_for(r"spin \(\S*taking_turns\.py:2[123]\)")
    view.type("l")
    view.wait_for(r"^functions by")


def test_a_process_restricts_the_functions_to_its_own(view: Terminal, load: TargetProcess) -> None:
    view.wait_for(row("elsewhere"))
    view.type(" ")  # or the order could change before the keys come
    screen = view.wait_for(r"^PAUSED")
    pids = [int(found[1]) for found in re.finditer(r"^ +(\d+) .*[\d.]+ ", screen, re.MULTILINE)]
    view.press(*["Down"] * (pids.index(load.pid) + 1))
    view.type("p")
    screen = view.wait_for(rf"process {load.pid} ")
    assert re.search(r"morning \(", screen)
    assert "elsewhere (" not in "\n".join(" ".join(cells) for cells in functions_pane(screen))
    view.press("Escape")
    view.type(" ")
    view.wait_for(r"^pyflame-ebpf top")
    view.wait_for(row("elsewhere"))


def test_a_pause_keeps_the_screen_while_samples_are_taken(view: Terminal, load: TargetProcess) -> None:
    def samples(screen: str) -> str:
        found = re.search(r"([\d,]+) samples", screen)
        assert found is not None, screen
        return found[1]

    view.type(" ")
    paused = samples(view.wait_for(r"^PAUSED"))
    load.write_line()
    load.write_line()
    view.type("l")  # is obeyed, and shows the same moment
    still = view.wait_for(r"^lines by")
    assert samples(still) == paused
    view.type("l ")
    going_on = view.wait_for(rf" (?!{paused} )[\d,]+ samples")
    assert int(samples(going_on).replace(",", "")) > int(paused.replace(",", ""))


def test_what_was_seen_is_saved_as_a_recording_and_the_view_goes_on(
    view: Terminal, load: TargetProcess, tmp_path: Path
) -> None:
    directory = tmp_path / "saved"
    save(view, directory)
    view.wait_for(r"^saved in ")
    assert sorted(path.name for path in directory.iterdir()) == RECORDED_FILES
    with (directory / "profile.json.gz").open("rb") as stream:
        profile = load_profile(stream)
    names = {frame.name for frame in profile.frames}
    assert {"morning", "evening", "elsewhere"} <= names
    assert profile.total > 99
    view.wait_for(row("elsewhere"))


def test_a_directory_that_cannot_be_saved_to_is_told(view: Terminal, tmp_path: Path) -> None:
    save(view, tmp_path / "missing" / "saved")
    view.wait_for(r"missing/saved cannot be made: ")


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50), (40, 12), (120, 40)])
def test_the_screen_follows_the_size_of_the_window(
    view: Terminal, load: TargetProcess, columns: int, lines: int
) -> None:
    view.resize(columns, lines)
    view.press("Escape")
    view.wait_for(rf"\A(.*\n){{{lines - 1}}}\? help  q quit")
    screen = view.wait_for(r"spin \(\S+\)")
    assert max(map(len, screen.splitlines())) <= columns
    assert ("Total s" in screen) == (columns >= 80)


def test_the_help_names_the_keys(view: Terminal) -> None:
    view.type("?")
    view.wait_for(r"^ +q, Ctrl-C  quit")
    view.press("x")
    view.wait_for(r"Total%")
