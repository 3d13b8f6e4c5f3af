"""Every CPython on this machine that the tests can run a program in.

As a program it lists them, and fails when a release that must be there is not::

    python3 tests/interpreters.py --require 3.8 3.14
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

OLDEST = (3, 6)
CAP_SYS_CHROOT = 18  # include/uapi/linux/capability.h

# sysconfig's Py_ENABLE_SHARED is true of Debian's static binaries too: what is mapped decides.
PROBE = """
import sys
paths = [line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if line.count("/")]
libraries = [path for path in paths if "/libpython3." in path]
print("%d.%d" % sys.version_info[:2], len(libraries) > 0, libraries[0] if libraries else sys.executable)
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One installed CPython; its program is run by ``(*argv, script, …)``.

    ``root`` is the directory that its processes see as "/"; ``shared`` means libpython, ``stripped`` that the ELF file
    which holds the interpreter has no .symtab.
    """

    name: str
    version: tuple[int, int]
    argv: tuple[str, ...]
    root: str
    shared: bool
    stripped: bool

    def __str__(self) -> str:
        return self.name


def sid_root() -> Path:
    """Where scripts/testbed.sh puts its chroot unless told otherwise."""
    directory = os.environ.get("PYFLAME_TESTBED") or "~/.cache/pyflame-testbed"
    return Path(directory).expanduser() / "sid"


def has_capability(number: int) -> bool:
    """Whether this process holds a capability; being root is neither needed nor enough."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)


def has_symtab(image: Path) -> bool:
    """Whether an ELF file still has its .symtab."""
    with image.open("rb") as stream:
        return ELFFile(stream).get_section_by_name(".symtab") is not None


def probe(argv: tuple[str, ...], root: str) -> tuple[tuple[int, int], bool, bool] | None:
    """Run an interpreter to learn its (version, shared, stripped); None when it does not run."""
    try:
        run = subprocess.run([*argv, "-c", PROBE], capture_output=True, text=True, timeout=30, check=True)
        version, shared, image = run.stdout.rstrip("\n").split(" ", 2)
        inside = image if image.startswith(root) else root.rstrip("/") + image
        major, minor = version.split(".")
        return (int(major), int(minor)), shared == "True", not has_symtab(Path(inside).resolve())
    except (OSError, subprocess.SubprocessError, ValueError, ELFError):
        return None


def pyenv_candidates() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Interpreters that pyenv built."""
    versions = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    if not os.access(versions, os.R_OK):
        return
    for directory in versions.glob("3.*"):
        yield f"pyenv-{directory.name}", (str(directory / "bin/python"),), "/"


def system_candidates() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """The distribution's own interpreters."""
    for path in Path("/usr/bin").glob("python3.*"):
        if path.suffix[1:].isdigit() and not path.is_symlink():
            yield f"system-{path.name.removeprefix('python')}", (str(path),), "/"


def sid_candidates() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """The interpreters of the chroot, entered where this process may, else run on its libc from outside."""
    root = sid_root()
    if not os.access(root, os.X_OK):
        return
    for path in (root / "usr/bin").glob("python3.*"):
        if not path.suffix[1:].isdigit():
            continue
        name = f"sid-{path.name.removeprefix('python')}"
        if has_capability(CAP_SYS_CHROOT):
            yield name, ("chroot", str(root), f"/usr/bin/{path.name}"), str(root)
            continue
        loader = next((root / "lib64").glob("ld-linux-*.so.*"), None) or next((root / "lib").glob("ld-linux-*.so.*"))
        libraries = next((root / "usr/lib").glob("*-linux-gnu"))
        prefix = ("env", f"PYTHONHOME={root}/usr", str(loader), "--library-path", str(libraries))
        yield name, (*prefix, str(path)), "/"


@functools.cache
def discover() -> tuple[Interpreter, ...]:
    """Every interpreter that runs, oldest release first."""
    found = []
    for candidates in (pyenv_candidates, system_candidates, sid_candidates):
        for name, argv, root in candidates():
            facts = probe(argv, root)
            if facts is not None and facts[0] >= OLDEST:
                found.append(Interpreter(name, facts[0], argv, root, shared=facts[1], stripped=facts[2]))
    return tuple(sorted(found, key=lambda interpreter: (interpreter.version, interpreter.name)))


def main() -> int:
    """List what is here; 1 when a required release is not."""
    parser = argparse.ArgumentParser(description="list the interpreters that the tests will use")
    parser.add_argument("--require", nargs="*", default=[], metavar="3.N", help="releases that must be there")
    required = parser.parse_args().require
    for interpreter in discover():
        kind = "shared" if interpreter.shared else "static"
        print(f"{interpreter.name:16} {kind}{', stripped' * interpreter.stripped:10} {' '.join(interpreter.argv)}")
    missing = set(required) - {f"{major}.{minor}" for major, minor in (found.version for found in discover())}
    if missing:
        print(f"missing: CPython {', '.join(sorted(missing))}", file=sys.stderr)
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
