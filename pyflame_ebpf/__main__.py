"""The command ``pyflame-ebpf``, also as ``python -m pyflame_ebpf``.

What stands here comes before everything else is imported: until then a signal ends the program without a word, a
standard stream that is closed becomes /dev/null, and root imports nothing from places that another user may choose.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import signal
import stat
import sys
from pathlib import Path
from types import FrameType
from typing import TextIO

_STREAMS = 3  # standard input, output and error


def main() -> None:
    """Runs the command line; ends the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    try:
        _open_standard_streams()
        _distrust_environment()
        from pyflame_ebpf.commands.cli import run  # noqa: PLC0415 - not before this process is in order

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        os._exit(130)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _leave_nothing_to_flush()
    sys.exit(code)


def _end(number: int, _frame: FrameType | None) -> None:
    """Ends the process at once: there is nothing yet to put in order, and an exception could get lost in an import."""
    os._exit(128 + number)


def _open_standard_streams() -> None:
    """Opens /dev/null for standard streams that are closed, and lets the others take any text.

    Otherwise the next files would get their numbers, and what libraries print to standard error would go there.
    """
    with contextlib.suppress(OSError):  # a root without /dev
        opened = os.open(os.devnull, os.O_RDWR)
        while opened < _STREAMS:  # the lowest number that is free
            os.set_inheritable(opened, True)
            opened = os.open(os.devnull, os.O_RDWR)
        os.close(opened)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:  # as good as closed
                setattr(sys, name, None)


def _leave_nothing_to_flush() -> None:
    """Drops what a standard stream did not take: the interpreter would try again at its end, and fail."""
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        _flush_or_drop(stream)


def _flush_or_drop(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _distrust_environment() -> None:
    """Lets root import nothing from PYTHONPATH, the working directory or a home that another user may write to.

    The installed command starts Python with -I, which knows none of them, and runs none of their code before this.
    """
    if os.geteuid() != 0 or sys.flags.isolated:
        return
    import site  # noqa: PLC0415 - the interpreter has imported it

    chosen = {*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path[:1], site.getusersitepackages()}
    sys.path[:] = [place for place in sys.path if place not in chosen or _is_roots(place)]


def _is_roots(place: str) -> bool:
    """Whether nobody but root decides what is in a directory."""
    try:
        ways = Path(place).absolute(), Path(place).resolve()
        above = {parent for way in ways for parent in way.parents}
        return _is_kept_by_root(os.stat(place or "."), 0) and all(  # noqa: PTH116
            _is_kept_by_root(parent.stat(), stat.S_ISVTX) for parent in above
        )
    except (OSError, RuntimeError):  # a loop of links
        return False


def _is_kept_by_root(status: os.stat_result, excuse: int) -> bool:
    """Whether a directory is root's and nobody else's to write, or has this bit (sticky), as /tmp has."""
    is_shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid == 0 and (not is_shared or bool(status.st_mode & excuse))


if __name__ == "__main__":
    main()
