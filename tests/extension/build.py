"""Compiles the tests' extension module to where the target programs find it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.interpreters import discover

SOURCE = Path(__file__).parent / "callbacks.c"
MODULE = Path(__file__).parent.parent / "targets" / "callbacks.abi3.so"
INCLUDE = "import sysconfig; print(sysconfig.get_paths()['include'])"
FLAGS = ("-shared", "-fPIC", "-O2", "-fomit-frame-pointer", "-Wall", "-Wextra", "-Werror")


def include_directory() -> Path:
    """A directory that holds a Python.h, of whichever release; FileNotFoundError."""
    directories = [Path(sysconfig.get_paths()["include"])]
    for interpreter in discover():
        if interpreter.root == "/":
            run = subprocess.run([*interpreter.argv, "-c", INCLUDE], capture_output=True, text=True, check=True)
            directories.append(Path(run.stdout.strip()))
    for directory in directories:
        if (directory / "Python.h").exists():
            return directory
    raise FileNotFoundError("no Python.h on this machine: install python3-dev")


def build_extension() -> Path:
    """Compile it unless it is newer than its source; gives the shared object, which ``import callbacks`` finds."""
    if not MODULE.exists() or MODULE.stat().st_mtime < SOURCE.stat().st_mtime:
        # Renamed into place, so that two test runs at once do not meet half a file.
        with tempfile.TemporaryDirectory(dir=MODULE.parent) as directory:
            built = Path(directory) / MODULE.name
            subprocess.run(["gcc", *FLAGS, f"-I{include_directory()}", str(SOURCE), "-o", str(built)], check=True)
            built.replace(MODULE)
    return MODULE


if __name__ == "__main__":
    sys.stdout.write(f"{build_extension()}\n")
