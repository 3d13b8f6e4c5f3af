"""How the command starts: odd standard streams, signals while modules are imported, what root imports from where."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyflame_ebpf.__main__ import _is_roots
from tests.command_line import PYFLAME, environment, pyflame

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "2</dev/null"]


def run_with(streams: str, arguments: str) -> subprocess.CompletedProcess[str]:
    return pyflame(*arguments.split(), prefix=("sh", "-c", f'exec "$@" {streams}', "sh"))


@pytest.mark.parametrize("streams", CLOSED)
@pytest.mark.parametrize(("arguments", "code"), [("report /nonexistent", 18), ("top", 2), (f"doctor {1 << 31}", 10)])
def test_closed_standard_streams_change_no_exit_code(streams: str, arguments: str, code: int) -> None:
    ended = run_with(streams, arguments)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr


def test_messages_do_not_go_to_standard_output_when_standard_error_is_closed() -> None:
    assert run_with("2>&-", "report /nonexistent").stdout == ""


def test_files_never_get_the_numbers_of_closed_standard_streams(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pyflame_ebpf.__main__ import _open_standard_streams; _open_standard_streams();"
        f"open({str(tmp_path / 'numbers')!r}, 'w').write(str([os.readlink(f'/proc/self/fd/{{n}}') for n in range(3)]))"
    )
    command = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program)
    subprocess.run(command, check=True, env=environment())
    assert (tmp_path / "numbers").read_text() == str(["/dev/null"] * 3)


@pytest.mark.parametrize("changes", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_an_ascii_terminal_takes_every_name(changes: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "stacks").write_text("pr\xfcfen \u2603;\U0001f525 3\n")
    ended = pyflame("report", tmp_path / "stacks", env=environment(**changes))
    assert ended.returncode == 0
    assert "3 samples" in ended.stdout
    refused = pyflame("report", tmp_path / "\u2603", env=environment(**changes))
    assert refused.returncode == 18


@pytest.mark.parametrize("pid", [1 << 22, 1 << 31, 1 << 32, 99999999999999999999])
def test_a_number_that_no_process_can_have_is_of_no_process(pid: int) -> None:
    ended = pyflame("doctor", str(pid))
    assert ended.returncode == 10
    assert f"process {pid} does not exist" in ended.stderr


@pytest.mark.parametrize("module", ["typer", "pyflame_ebpf.commands.cli", "pyflame_ebpf.commands.report", "re"])
def test_ctrl_c_while_modules_are_imported_is_quiet(module: str, tmp_path: Path) -> None:
    program = f"""
import builtins, os, signal, sys
before = builtins.__import__
def interrupted(name, *rest, **options):
    if name == {module!r} and sys._getframe(1).f_globals["__name__"].startswith("pyflame_ebpf"):
        os.kill(os.getpid(), signal.SIGINT)
    return before(name, *rest, **options)
from pyflame_ebpf.__main__ import main
builtins.__import__ = interrupted
main()
"""
    ended = pyflame("report", tmp_path, command=(sys.executable, "-c", program))
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_ctrl_c_at_any_moment_of_the_start_is_quiet() -> None:
    for step in range(5):
        with subprocess.Popen(
            [*PYFLAME, "report", "/nonexistent"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            _wait_until_handled(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(step * 0.06)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate()
            assert process.returncode in {130, 18, -signal.SIGINT}
            assert b"Traceback" not in said
            assert b"Aborted" not in said


def _wait_until_handled(process: subprocess.Popen[bytes]) -> None:
    """Return once the command has begun, after the interpreter's own start, or has ended."""
    while process.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{process.pid}/status").read_bytes().split(b"\n")
            caught = next(line for line in status if line.startswith(b"SigCgt"))
            is_caught = int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1
            if is_caught and b"/_ctypes." in Path(f"/proc/{process.pid}/maps").read_bytes():
                return


# ---- what root imports ----


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory that everybody may write to, whose modules leave a trace where they are imported."""
    place = tmp_path / "hostile"
    site = place / f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    site.mkdir(parents=True)
    for folder in (place, site):
        for module in ("bcc", "typer", "rich", "google", "elftools", "pycxxfilt", "json"):
            (folder / f"{module}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write(__file__)\n")
    for each in (place, *place.rglob("*")):
        each.chmod(0o777)
    return place


@pytest.mark.root
@pytest.mark.parametrize("how", ["PYTHONPATH", "HOME", "working directory"])
def test_root_imports_nothing_that_another_user_can_write(how: str, hostile: Path) -> None:
    env = environment(**({} if how == "working directory" else {how: str(hostile)}))
    pyflame("doctor", str(os.getpid()), env=env, cwd=hostile if how == "working directory" else None)
    ended = pyflame("--version", env=env, cwd=hostile if how == "working directory" else None)
    assert ended.returncode == 0, ended.stderr
    assert not (hostile.parent / "imported").exists()


@pytest.mark.root
def test_a_place_is_root_s_if_nobody_else_can_change_it_or_the_way_to_it(tmp_path: Path) -> None:
    kept, shared = tmp_path / "kept", tmp_path / "shared"
    (kept / "inner").mkdir(parents=True, mode=0o755)
    (shared / "inner").mkdir(parents=True, mode=0o755)
    shared.chmod(0o777)
    (shared / "link").symlink_to(kept)
    (kept / "link").symlink_to(shared / "inner")
    os.chown(theirs := kept / "inner", 65534, 65534)
    answers = [_is_roots(str(place)) for place in (kept, shared, shared / "inner", shared / "link", kept / "link")]
    assert answers == [True, False, False, False, False]
    assert not _is_roots(str(theirs))
    assert not _is_roots(str(tmp_path / "missing"))
