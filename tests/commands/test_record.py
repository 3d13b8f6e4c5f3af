"""``record`` and ``report`` from end to end: what they start, print and write."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from pyflame_ebpf.commands.stop_signals import StopSignals
from pyflame_ebpf.commands.written_outputs import View, write_recorded
from pyflame_ebpf.errors import Interrupted
from pyflame_ebpf.host.output_directory import OutputDirectory, write_new_file
from pyflame_ebpf.outputs import formats as outputs
from pyflame_ebpf.outputs.formats import OutputFormat
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.processes import closing_line
from pyflame_ebpf.profile.file import load_profile, save_profile
from pyflame_ebpf.profile.model import Profile
from tests.command_line import (
    BUSY,
    PYFLAME,
    RECORDED_FILES,
    SAMPLED,
    BusyProcess,
    environment,
    pyflame,
    record_while_used,
    wait_for_other_recordings,
)
from tests.profiles import realistic_profile
from tests.target_process import wait_until_used

NOBODY = 65534
FOLDED_LINE = re.compile(r"[^;]+ \(\d+\)(;[^;]+)* \d+")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory with a saved profile, as a recording leaves it."""
    directory = tmp_path / "recorded"
    directory.mkdir()
    write_new_file(directory / "profile.json.gz", lambda stream: save_profile(realistic_profile(), stream))
    return directory


# report


@pytest.mark.parametrize(
    ("output_format", "start"),
    [("folded", ""), ("svg", "<svg "), ("flamegraph", "<svg "), ("csv", "pid,name,"), ("processes", "pid,name,")],
)
def test_a_format_goes_to_standard_output_alone(saved: Path, output_format: str, start: str) -> None:
    ended = pyflame("report", saved, "--format", output_format)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(start)
    assert ended.stdout


def test_a_report_is_the_table_unless_told_otherwise(saved: Path) -> None:
    ended = pyflame("report", saved)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert closing_line(realistic_profile()).split(":")[0] in ended.stdout


def test_a_report_takes_the_profile_itself_and_writes_every_output(saved: Path, tmp_path: Path) -> None:
    ended = pyflame("report", saved / "profile.json.gz", "--output", tmp_path / "again")
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == [str(tmp_path / "again" / name) for name in names_in_order()]
    assert (tmp_path / "again" / "profile.json.gz").read_bytes() == (saved / "profile.json.gz").read_bytes()


def names_in_order() -> list[str]:
    return [each.file_name for each in outputs.OUTPUT_FORMATS.values() if each.recorded]


def test_a_report_of_a_part_shows_its_processes_in_its_time(saved: Path) -> None:
    part = ("--from", "0:10", "--to", "30", "--process", "celery", "--group-by", "command,thread")
    ended = pyflame("report", saved, "--format", "folded", *part)
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert {tuple(line.split(";")[:2]) for line in lines} == {("celery -A shop worker", "celery (1317)")}
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == 20 * (21 + 9 + 4)


@pytest.mark.parametrize(
    ("part", "code", "said"),
    [
        (["--process", "no such"], 16, "is in what was selected"),
        (["--from", "90"], 16, "is in what was selected"),
        (["--from", "2", "--to", "1"], 2, "no time from 2 s to 1 s"),
        (["--process", "("], 2, "not a regular expression"),
        (["--group-by", "colour"], 2, "nothing to group by"),
        (["--group-by", "process,process"], 2, "nothing to group by"),
        (["--from", "1:60"], 2, "is not a duration"),
    ],
    ids=str,
)
def test_an_impossible_or_empty_part_is_refused(saved: Path, part: list[str], code: int, said: str) -> None:
    ended = pyflame("report", saved, *part)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in " ".join(ended.stderr.replace("\u2502", " ").split())


@pytest.mark.parametrize("output_format", ["pprof", "speedscope", "firefox", "jsonl"])
def test_a_format_goes_to_a_file_of_ones_choice(saved: Path, tmp_path: Path, output_format: str) -> None:
    ended = pyflame("report", saved, "--format", output_format, "--output", tmp_path / "other")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert (tmp_path / "other").stat().st_size > 1000


def test_a_report_takes_folded_stacks(tmp_path: Path) -> None:
    (tmp_path / "perf.folded").write_text("nginx;main;do_syscall_64_[k] 3\npython3;py::f:/srv/a.py 1\n")
    ended = pyflame("report", tmp_path / "perf.folded", "--format", "folded", "--no-kernel")
    assert (ended.returncode, ended.stdout) == (0, "nginx;main 3\npython3;f (srv/a.py) 1\n")


def test_a_report_never_overwrites_a_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.svg").write_text("mine")
    ended = pyflame("report", saved, "--format", "svg", "--output", tmp_path / "mine.svg")
    assert ended.returncode == 13
    assert (tmp_path / "mine.svg").read_text() == "mine"


def test_an_unknown_format_is_refused_with_those_there_are(saved: Path) -> None:
    ended = pyflame("report", saved, "--format", "pdf")
    assert ended.returncode == 2
    assert all(name in ended.stderr for name in outputs.OUTPUT_FORMATS)


@pytest.mark.parametrize("kind", ["missing", "empty directory", "text", "pipe"])
def test_what_is_no_profile_is_refused(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    if kind == "empty directory":
        source.mkdir()
    elif kind == "text":
        source.write_text("text")
    elif kind == "pipe":
        os.mkfifo(source)
    ended = pyflame("report", source)
    assert ended.returncode == 18
    assert "Traceback" not in ended.stderr


# Signals while the outputs are written


def signalling_writer(number: int) -> OutputFormat:
    def write(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
        stream.write(b"half")
        os.kill(os.getpid(), number)
        stream.write(b"whole")

    return OutputFormat("svg", "flamegraph.svg", write)


def test_a_signal_while_the_other_outputs_are_written_keeps_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(outputs.OUTPUT_FORMATS, "svg", signalling_writer(signal.SIGINT))
    with StopSignals() as signals, OutputDirectory(tmp_path / "out") as directory:
        signals.note_only()
        with pytest.raises(Interrupted, match=r"the recording is saved in .*profile\.json\.gz"):
            write_recorded(directory, realistic_profile(), View(), signals.raising(0))
    assert names(tmp_path / "out") == ["profile.json.gz", "stacks.folded"]
    with (tmp_path / "out" / "profile.json.gz").open("rb") as stream:
        assert load_profile(stream) == realistic_profile()


def test_a_signal_while_the_profile_is_written_leaves_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(profile: Profile, stream: BinaryIO, options: OutputOptions) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save_profile(profile, stream)

    monkeypatch.setitem(outputs.OUTPUT_FORMATS, "profile", OutputFormat("profile", "profile.json.gz", write))
    with StopSignals() as signals, OutputDirectory(tmp_path / "out") as directory:
        signals.note_only()
        with pytest.raises(Interrupted):
            write_recorded(directory, realistic_profile(), View(), signals.raising(0))
    assert names(tmp_path / "out") == ["profile.json.gz"]
    with (tmp_path / "out" / "profile.json.gz").open("rb") as stream:
        assert load_profile(stream) == realistic_profile()


# record


@pytest.fixture
def busy() -> Iterator[BusyProcess]:
    wait_for_other_recordings()
    with BusyProcess() as process:
        yield process


@pytest.mark.root
def test_a_recording_of_the_host_prints_the_table_and_the_paths(tmp_path: Path, busy: BusyProcess) -> None:
    ended = pyflame("record", "--all", "--duration", "1s", cwd=tmp_path)
    assert ended.returncode == 0
    (directory,) = tmp_path.iterdir()
    assert re.fullmatch(r"pyflame-\d{8}T\d{6}Z", directory.name)
    assert names(directory) == RECORDED_FILES
    paths = [f"{directory.name}/{name}" for name in names_in_order()]
    assert ended.stdout.splitlines()[-len(paths) :] == paths
    assert "they account for" in ended.stdout


@pytest.mark.root
def test_a_report_gives_the_same_files_as_the_recording(tmp_path: Path, busy: BusyProcess) -> None:
    recording = record_while_used(busy, arguments=("--pid", str(busy.pid), "--output", tmp_path / "one"))
    assert recording.process.returncode == 0
    assert pyflame("report", tmp_path / "one", "--output", tmp_path / "two").returncode == 0
    assert names(tmp_path / "one") == names(tmp_path / "two")
    differing = [name for name in names(tmp_path / "one") if not same_content(tmp_path, name)]
    assert differing == []


def same_content(tmp_path: Path, name: str) -> bool:
    return (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.root
def test_a_recording_writes_further_formats_beside_the_others(tmp_path: Path, busy: BusyProcess) -> None:
    formats = ("--format", "pprof", "--format", "jsonl", "--format", "svg")
    arguments = ("--pid", str(busy.pid), "--output", tmp_path / "out", *formats)
    assert record_while_used(busy, arguments=arguments).process.returncode == 0
    assert names(tmp_path / "out") == sorted([*RECORDED_FILES, "profile.pb.gz", "stacks.jsonl"])


@pytest.mark.root
def test_a_single_further_format_goes_to_standard_output(tmp_path: Path, busy: BusyProcess) -> None:
    arguments = ("--pid", str(busy.pid), "--output", "-", "--format", "jsonl")
    ended = record_while_used(busy, arguments=arguments, cwd=tmp_path)
    assert ended.process.returncode == 0
    assert {json.loads(line)["pid"] for line in ended.stdout.splitlines()} == {busy.pid}


@pytest.mark.root
def test_folded_stacks_on_standard_output_are_all_that_is_there(tmp_path: Path, busy: BusyProcess) -> None:
    ended = record_while_used(busy, arguments=("--all", "--output", "-"), cwd=tmp_path)
    assert ended.process.returncode == 0
    lines = ended.stdout.splitlines()
    assert [line for line in lines if not FOLDED_LINE.fullmatch(line)] == []
    assert any(f"({busy.pid});" in line for line in lines)
    assert "they account for" in ended.stderr
    assert names(tmp_path) == []


@pytest.mark.root
def test_only_python_processes_are_shown_when_asked_for_and_all_are_saved(tmp_path: Path, busy: BusyProcess) -> None:
    with BusyProcess.shell() as shell:
        ended = record_while_used(busy, shell, arguments=("--all", "--python", "--output", tmp_path / "out"))
    assert ended.process.returncode == 0
    shown = {row["pid"] for row in csv.DictReader((tmp_path / "out" / "processes.csv").open())}
    assert (str(busy.pid) in shown, str(shell.pid) in shown) == (True, False)
    everything = pyflame("report", tmp_path / "out", "--format", "folded").stdout
    assert f"sh ({shell.pid})" in everything


@pytest.mark.root
def test_a_started_program_runs_as_the_user_of_sudo_who_owns_the_outputs(tmp_path: Path) -> None:
    wait_for_other_recordings()
    program = BUSY.format(seconds=0.5) + (
        "\nimport json, os\n"
        "print(json.dumps([os.getuid(), os.getgid(), os.getgroups(), os.environ['USER'], os.environ['HOME'],"
        " [name for name in os.environ if name.startswith('SUDO_')]]))\nraise SystemExit(3)"
    )
    env = environment(SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_USER="nobody", SUDO_COMMAND="x")
    ended = pyflame("record", "--output", tmp_path / "out", "--", "/usr/bin/python3", "-c", program, env=env)
    assert ended.returncode == 0
    assert json.loads(ended.stdout.splitlines()[0]) == [NOBODY, NOBODY, [NOBODY], "nobody", "/nonexistent", []]
    assert re.search(r"/usr/bin/python3 \(PID \d+\) ended with exit status 3", ended.stderr)
    owners = {path.stat().st_uid for path in [tmp_path / "out", *(tmp_path / "out").iterdir()]}
    assert owners == {NOBODY}


@pytest.mark.root
def test_a_started_program_is_sampled_from_its_first_line_with_its_children(tmp_path: Path) -> None:
    wait_for_other_recordings()
    child = BUSY.format(seconds=0.5).replace("pass", "child_works = 1")
    program = f"import subprocess, sys\ndef parent(): subprocess.run([sys.executable, '-c', {child!r}])\nparent()"
    # At this frequency the imports that a program begins with, some 20 ms, are sure to be met.
    options = ("--output", tmp_path / "out", "--lines", "--frequency", "999")
    ended = pyflame("record", *options, "--", sys.executable, "-c", program)
    assert ended.returncode == 0
    pid = re.search(r"\(PID (\d+)\) and its children", ended.stderr)
    assert pid is not None
    rows = list(csv.DictReader((tmp_path / "out" / "processes.csv").open()))
    children = [row for row in rows if row["pid"] not in ("", pid[1]) and row["interpreter"]]
    assert sum(int(row["samples"]) for row in children) > 250  # of the 500 ticks in its half second of CPU
    assert "importlib" in (tmp_path / "out" / "stacks.folded").read_text()  # what a program does first


@pytest.mark.root
def test_source_text_and_build_ids_are_saved_though_the_program_has_ended(tmp_path: Path) -> None:
    wait_for_other_recordings()
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n\ndef work():\n    end = time.process_time() + 1\n    while time.process_time() < end: pass\n\n"
        "work()\n"
    )
    arguments = ("record", "--source", "--output", tmp_path / "out", "--", "/usr/bin/python3", program.name)
    assert pyflame(*arguments, cwd=tmp_path).returncode == 0
    with (tmp_path / "out" / "profile.json.gz").open("rb") as stream:
        profile = load_profile(stream)
    lines = dict(enumerate(program.read_text().split("\n"), 1))
    (found,) = (text for file, text in profile.sources.items() if file.endswith("program.py"))
    assert {3, 4, 5} <= set(found)
    assert {number: lines[number] for number in found} == found
    assert any(re.fullmatch("[0-9a-f]{40}", build_id) for build_id in profile.build_ids.values())


@pytest.mark.root
def test_with_folded_stacks_on_standard_output_the_program_writes_to_standard_error(tmp_path: Path) -> None:
    wait_for_other_recordings()
    program = BUSY.format(seconds=0.3) + "\nprint('from the program')"
    ended = pyflame("record", "--output", "-", "--", sys.executable, "-c", program, cwd=tmp_path)
    assert ended.returncode == 0
    assert "from the program" in ended.stderr
    assert [line for line in ended.stdout.splitlines() if not FOLDED_LINE.fullmatch(line)] == []


@pytest.mark.root
def test_a_signal_that_ends_the_recording_is_passed_on_to_the_program(tmp_path: Path) -> None:
    wait_for_other_recordings()
    process = subprocess.Popen(
        [
            *PYFLAME,
            "record",
            "--output",
            tmp_path / "out",
            "--",
            sys.executable,
            "-c",
            "import os; print(os.getpid(), flush=True)\nwhile 1: 1",
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    wait_until_used(int(process.stdout.readline()), SAMPLED)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "ended with signal SIGTERM" in said
    assert names(tmp_path / "out") == RECORDED_FILES


@pytest.mark.root
def test_progress_is_shown_on_a_terminal(tmp_path: Path, busy: BusyProcess) -> None:
    ours, terminal = pty.openpty()
    ended = subprocess.run(
        [*PYFLAME, "record", "--pid", str(busy.pid), "--duration", "2.5", "--output", tmp_path / "out"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    os.close(terminal)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert ended.returncode == 0
    assert re.search(r"\r\x1b\[K0:\d\d  samples \d+  processes 1, Python 1  lost 0", shown)
    assert shown.endswith("\r\x1b[K")
