"""scripts/install.sh, run for real into a directory of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.root


@dataclass(frozen=True, slots=True)
class Installation:
    """Where one run of the script installs from and to."""

    checkout: Path
    prefix: Path
    bin: Path

    @property
    def command(self) -> Path:
        return self.bin / "pyflame-ebpf"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"PREFIX": str(self.prefix), "BIN": str(self.bin)}
        script = str(self.checkout / "scripts/install.sh")
        return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)

    def environments(self) -> set[str]:
        return {path.name for path in self.prefix.glob("venv.*")}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    checkout = tmp_path / "checkout"
    shutil.copytree(CHECKOUT, checkout, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache"))
    (tmp_path / "bin").mkdir()
    return Installation(checkout, tmp_path / "prefix", tmp_path / "bin")


@pytest.fixture
def installed(installation: Installation) -> Installation:
    run = installation.run()
    assert run.returncode == 0, run.stderr
    shutil.rmtree(installation.checkout / "pyflame_ebpf")  # what is installed must stand on its own
    return installation


def test_the_command_runs_from_any_directory(installed: Installation) -> None:
    run = subprocess.run([installed.command, "--version"], cwd="/", capture_output=True, text=True, check=True)
    assert "0." in run.stdout
    run = subprocess.run([installed.command, "--help"], cwd="/", capture_output=True, text=True, check=True)
    assert "record" in run.stdout


def test_the_command_runs_nothing_of_a_home_or_path_that_the_caller_chose(
    installed: Installation, tmp_path: Path
) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = [tmp_path / "home/.local/lib" / version / "site-packages", tmp_path / "path", tmp_path / "here"]
    for place in places:
        place.mkdir(parents=True)
        for module in ("usercustomize", "sitecustomize", "bcc", "typer"):
            (place / f"{module}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    environment = os.environ | {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(places[1])}
    for arguments in (["--version"], ["doctor", str(os.getpid())]):
        subprocess.run([installed.command, *arguments], env=environment, cwd=places[2], capture_output=True, check=True)
    assert not (tmp_path / "imported").exists()


def test_the_bpf_sources_are_inside_the_installed_package(installed: Installation) -> None:
    code = "import importlib.resources as r; print(r.files('pyflame_ebpf') / 'bpf')"
    python = installed.prefix / "current/bin/python"
    run = subprocess.run([python, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    inside = Path(run.stdout.strip())
    expected = {path.relative_to(CHECKOUT / "bpf") for path in (CHECKOUT / "bpf").rglob("*.[ch]")}
    assert inside.is_relative_to(installed.prefix)
    assert {path.relative_to(inside) for path in inside.rglob("*.[ch]")} == expected


def test_another_user_can_run_it(installed: Installation) -> None:
    modes = [path.stat().st_mode & 0o005 for path in (installed.prefix, installed.prefix / "current", installed.bin)]
    assert modes == [0o005, 0o005, 0o005]


def test_an_upgrade_keeps_the_previous_environment_for_recordings_that_go_on(installation: Installation) -> None:
    assert installation.run().returncode == 0
    first = installation.environments()
    assert installation.run().returncode == 0
    second = installation.environments()
    assert installation.run().returncode == 0
    assert len(first) == 1
    assert len(second) == 2
    assert len(installation.environments()) == 2
    assert not first & installation.environments()


def test_a_failed_upgrade_changes_nothing(installation: Installation) -> None:
    assert installation.run().returncode == 0
    before = installation.environments(), (installation.prefix / "current").readlink()
    (installation.checkout / "pyproject.toml").write_text("this is not TOML")
    run = installation.run()
    assert run.returncode == 1
    assert "what was installed before is unchanged" in run.stderr
    assert (installation.environments(), (installation.prefix / "current").readlink()) == before
    subprocess.run([installation.command, "--version"], capture_output=True, check=True)


def test_uninstalling_leaves_nothing(installed: Installation) -> None:
    assert installed.run("--uninstall").returncode == 0
    assert not installed.prefix.exists()
    assert list(installed.bin.iterdir()) == []


def test_uninstalling_keeps_what_it_did_not_install(installed: Installation) -> None:
    (installed.prefix / "notes.txt").write_text("mine")
    (installed.bin / "other").write_text("mine")
    run = installed.run("--uninstall")
    assert run.returncode == 1
    assert [path.name for path in installed.prefix.iterdir()] == ["notes.txt"]
    assert [path.name for path in installed.bin.iterdir()] == ["other"]


def test_somebody_elses_command_is_not_overwritten(installation: Installation) -> None:
    installation.command.write_text("mine")
    run = installation.run()
    assert run.returncode == 1
    assert "is not from this script" in run.stderr
    assert installation.command.read_text() == "mine"
    assert not installation.prefix.exists()


def test_without_root_it_says_how_to_be_root(installation: Installation) -> None:
    installation.checkout.parent.chmod(0o755)
    script = (installation.checkout / "scripts/install.sh").read_text()
    run = subprocess.run(["bash", "-s"], input=script, user=65534, cwd="/", capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "must run as root: sudo scripts/install.sh" in run.stderr
