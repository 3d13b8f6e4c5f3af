"""Outputs read back by the published code of the tools that they are for; see tests/readers/package.json."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.labelled_stacks import shown_frames
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile.labels import visible
from pyflame_ebpf.profile.model import Frame, Profile
from tests.profiles import LIBC, PYTHON_BINARY, hostile_profile, realistic_profile

pytestmark = pytest.mark.node

READERS = Path(__file__).parent.parent / "readers"
PROFILES = {"realistic": realistic_profile, "hostile": hostile_profile}
OPTIONS = OutputOptions()
Written = Callable[[str, str], Path]  # format, name of a profile


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the readers and what they need."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    directory = tmp_path_factory.mktemp("readers") / "readers"
    shutil.copytree(READERS, directory, ignore=shutil.ignore_patterns("node_modules"))
    cache = {"npm_config_cache": str(directory / "cache"), "HOME": str(directory)}
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=directory,
        env={**os.environ, **cache},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return directory


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a format of one of PROFILES."""

    def write(output_format: str, name: str) -> Path:
        each = OUTPUT_FORMATS[output_format]
        with (tmp_path / each.file_name).open("wb") as stream:
            each.write(PROFILES[name](), stream, OPTIONS)
        return tmp_path / each.file_name

    return write


def read(readers: Path, script: str, file: Path) -> Any:
    done = subprocess.run(
        ["node", script, str(file)], cwd=readers, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shown_name(frame: Frame) -> str:
    return visible(frame.name) or "?"


def stacks_of(profile: Profile) -> Counter[tuple[int, tuple[str, ...]]]:
    """Samples by PID and the names of the frames that are shown."""
    is_shown = shown_frames(OPTIONS)
    stacks: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for key, count in profile.samples.items():
        names = tuple(shown_name(frame) for frame in profile.frames_of(key.stack) if is_shown(frame))
        stacks[profile.processes[key.process].pid, names] += count
    return stacks


# pprof


@pytest.mark.parametrize("name", PROFILES)
def test_pprof_format_reads_every_sample(readers: Path, written: Written, name: str) -> None:
    profile = PROFILES[name]()
    found = read(readers, "read_pprof.mjs", written("pprof", name))
    assert found["types"] == [["samples", "count"], ["cpu", "nanoseconds"]]
    stacks: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for sample in found["samples"]:
        owner, *frames = (frame["name"] for frame in sample["frames"])
        assert owner.endswith(f"({sample['labels']['pid']})")
        stacks[sample["labels"]["pid"], tuple(frames)] += sample["values"][0]
    assert stacks == stacks_of(profile)


def test_pprof_format_reads_labels_lines_and_build_ids(readers: Path, written: Written) -> None:
    found = read(readers, "read_pprof.mjs", written("pprof", "realistic"))
    frames = [frame for sample in found["samples"] for frame in sample["frames"]]
    assert {"pid": 1201, "tid": 1209, "thread_name": "ThreadPoolExec"}.items() <= max(
        (sample["labels"] for sample in found["samples"]), key=lambda labels: labels["tid"] == 1209
    ).items()
    assert {
        "name": "basket",
        "file": "/srv/shop/views.py",
        "first_line": 41,
        "line": 52,
        "mapping": None,
        "build_id": None,
    } in frames
    build_ids = {frame["mapping"]: frame["build_id"] for frame in frames if frame["build_id"]}
    assert build_ids == {PYTHON_BINARY: "0f" * 20, LIBC: realistic_profile().build_ids[LIBC]}


# speedscope


@pytest.mark.parametrize("name", PROFILES)
def test_speedscope_imports_every_sample(readers: Path, written: Written, name: str) -> None:
    profile = PROFILES[name]()
    found = read(readers, "read_speedscope.mjs", written("speedscope", name))
    seconds: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for each in found["profiles"]:
        assert each["unit"] == "seconds"
        assert each["total"] == pytest.approx(sum(sample["weight"] for sample in each["samples"]))
        pid = int(each["name"].rpartition("(")[2].rstrip(")"))
        for sample in each["samples"]:
            seconds[pid, tuple(frame["name"] for frame in sample["frames"])] += sample["weight"]
    assert sum(seconds.values()) == pytest.approx(profile.total / 99)
    by_process = Counter({pid: 0.0 for pid, _ in seconds})
    for (pid, _), weight in seconds.items():
        by_process[pid] += weight
    wanted: Counter[int] = Counter()
    for (pid, _), count in stacks_of(profile).items():
        wanted[pid] += count
    assert {pid: round(weight * 99) for pid, weight in by_process.items()} == wanted


def test_speedscope_imports_names_files_and_lines(readers: Path, written: Written) -> None:
    found = read(readers, "read_speedscope.mjs", written("speedscope", "realistic"))
    (celery,) = (each for each in found["profiles"] if each["name"] == "celery (1317)")
    assert {"name": "score", "file": "/srv/shop/tree.py", "line": 30} in [
        sample["frames"][-1] for sample in celery["samples"]
    ]
    assert celery["total"] == pytest.approx((34 * 60 + 14) / 99)


# Firefox Profiler


class FirefoxProfiler:
    """The Firefox Profiler's own code with a profile loaded, asked by its command line.

    Its ``load`` gives a session half a second to begin, which a busy machine may need longer for; so the session, which
    is the same program with ``--daemon``, is started here.
    """

    def __init__(self, readers: Path, file: Path) -> None:
        self._program = ("node", str(readers / "node_modules/@firefox-devtools/profiler-cli/dist/profiler-cli.js"))
        directory = file.parent / "sessions"
        directory.mkdir()
        settings = {"PROFILER_CLI_SESSION_DIR": str(directory), "PROFILER_CLI_NO_SYMBOLICATE": "1"}
        self._environment = {**os.environ, **settings, "HOME": str(directory)}
        self._session = subprocess.Popen(
            [*self._program, "--daemon", str(file), "--session", "read"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        self._wait_until_loaded(directory / "read.log")

    def _wait_until_loaded(self, log: Path) -> None:
        """Return once its log says so; asked earlier, it may take the session for a dead one and remove it."""
        deadline = time.monotonic() + 60
        while not (log.exists() and "Profile loaded successfully" in log.read_text()):
            time.sleep(0.02)
            assert self._session.poll() is None, log.read_text() if log.exists() else "ended without a log"
            assert time.monotonic() < deadline, "never loaded"

    def ask(self, *arguments: str) -> Any:
        """An answer."""
        command = [*self._program, *arguments, "--json", "--session", "read"]
        done = subprocess.run(command, env=self._environment, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def close(self) -> None:
        """End the session."""
        self._session.kill()
        self._session.wait()


@pytest.fixture
def firefox(readers: Path, written: Written) -> Iterator[Callable[[str], FirefoxProfiler]]:
    """Loads one of PROFILES."""
    loaded: list[FirefoxProfiler] = []

    def load(name: str) -> FirefoxProfiler:
        loaded.append(FirefoxProfiler(readers, written("firefox", name)))
        return loaded[-1]

    yield load
    for each in loaded:
        each.close()


def call_tree(node: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Samples that ended in each node, by the names from the root."""
    for child in node.get("children", []):
        names = (*above, child["name"])
        if child["selfSamples"]:
            yield names, child["selfSamples"]
        yield from call_tree(child, names)


def test_the_firefox_profiler_shows_every_thread_of_every_process(firefox: Callable[[str], FirefoxProfiler]) -> None:
    threads = firefox("realistic").ask("thread", "list")["threads"]
    assert {(thread["processName"], thread["pid"], thread["name"], thread["tid"]) for thread in threads} == {
        ("gunicorn", "1201", "gunicorn", 1201),
        ("gunicorn", "1201", "ThreadPoolExec", 1209),
        ("celery", "1317", "celery", 1317),
        ("nginx", "803", "nginx", 803),
        ("python3", "4410", "python3", 4410),
    }
    (celery,) = (thread for thread in threads if thread["name"] == "celery")
    # It knows no CPU time before a thread's first sample.
    assert celery["cpuMs"] == pytest.approx((34 * 60 + 14) / 99 * 1000, rel=0.02)


def test_the_firefox_profiler_counts_every_sample_of_a_thread(firefox: Callable[[str], FirefoxProfiler]) -> None:
    profiler = firefox("realistic")
    total = 0
    for thread in profiler.ask("thread", "list")["threads"]:
        tree = profiler.ask("thread", "samples-top-down", "--thread", thread["threadHandle"])["regularCallTree"]
        total += tree["totalSamples"]
    assert total == realistic_profile().total


def test_the_firefox_profiler_tells_kinds_of_frames_apart(firefox: Callable[[str], FirefoxProfiler]) -> None:
    samples = firefox("realistic").ask("thread", "functions", "--thread", "t-0", "--limit", "0")
    libraries = {function["name"]: function.get("library") for function in samples["functions"]}
    assert libraries["PQexec"] == "libpq.so.5.15"
    assert libraries["basket"] is None


def test_hostile_names_come_out_of_the_firefox_profiler_as_they_were_written(
    firefox: Callable[[str], FirefoxProfiler],
) -> None:
    profile = hostile_profile()
    profiler = firefox("hostile")
    wanted = stacks_of(profile)
    for thread in profiler.ask("thread", "list")["threads"][:4]:
        found = profiler.ask("thread", "functions", "--thread", thread["threadHandle"], "--limit", "0")
        names = {function["name"] for function in found["functions"]}
        stacks = [names for pid, names in wanted if pid == int(thread["pid"])]
        assert names == {name for stack in stacks for name in stack}
