"""The C text of the programs: the ``*.bpf.c`` files as one, since bcc rewrites the use of maps in one file alone."""

from __future__ import annotations

from pathlib import Path

from pyflame_ebpf.errors import PyflameError

# Each uses what those before it define.
PARTS = ("maps.bpf.c", "processes.bpf.c", "python.bpf.c", "native.bpf.c", "send.bpf.c", "tick.bpf.c")


class LoadFailed(PyflameError):
    """The kernel or the compiler refused the BPF programs."""

    exit_code = 6


def bpf_directory() -> Path:
    """The directory of the C files: inside the installed package, or beside it in a checkout.

    Raises LoadFailed if there is neither.
    """
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "bpf", package.parent / "bpf"):
        if (directory / "sample.h").is_file():
            return directory
    raise LoadFailed("the BPF programs are missing from this installation", "Install pyflame-ebpf again.")


def program_text(directory: Path) -> bytes:
    """All parts in one text; the compiler's messages name each part's file and lines."""
    return b"".join(_line_directive(directory / part) + (directory / part).read_bytes() for part in PARTS)


def _line_directive(path: Path) -> bytes:
    name = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'#line 1 "{name}"\n'.encode()
