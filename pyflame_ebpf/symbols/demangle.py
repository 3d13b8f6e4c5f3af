"""C++ and Rust names as their authors wrote them, by LLVM's demangler (pycxxfilt).

A name from a hostile file can make any demangler use up its stack, memory or time.  So the demangler works in a process
of its own, the worker, with little of each and without any right, and a name that kills the worker stays mangled.  Run
as a program, this file is the worker: it reads one name a line and writes one name a line.
"""

from __future__ import annotations

import contextlib
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_MANGLED_MAX = 4096  # characters
_NAME_MAX = 2048  # characters
_PATIENCE = 0.25  # seconds for one name; 20 µs are usual
_START_PATIENCE = 10.0  # seconds
_DEATHS_MAX = 8  # workers; then names stay mangled
_MEMORY = 512 << 20  # bytes of address space
_CPU = 60  # seconds of CPU time: three million names
_PIPES = 3  # descriptors from 0 on
_CHECKOUT = str(Path(__file__).resolve().parents[2])  # where the package is: the worker imports it from nowhere else
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}(?= \(|$)")
_RUST_LEGACY = re.compile(r"_ZN.*17h[0-9a-f]{16}E(\..*)?")
_RUST_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_RUST_LETTERS = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_LLVM_SUFFIX = re.compile(r" \(\.llvm\.[0-9A-F]+\)$")
_MANGLED = re.compile(r"_[ZR][!-~]+")  # the ABIs allow printable ASCII
_FIRST_PRINTABLE, _LAST_CHARACTER = 0x20, 0x10FFFF


class Demangler:
    """Demangles names, each once.  Never raises, and takes at most 0.25 seconds for a name once the worker runs."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None
        self._known: dict[str, str] = {}
        self.deaths = 0  # workers that a name killed

    def demangle(self, name: str) -> str:
        """The name as its author wrote it; unchanged if it is not mangled, too long or too much for the demangler."""
        if len(name) > _MANGLED_MAX or not _MANGLED.fullmatch(name):
            return name
        if name not in self._known:
            self._known[name] = _polished(name, self._ask(name)) or name
        return self._known[name]

    def _ask(self, name: str) -> str:
        if self.deaths >= _DEATHS_MAX:
            return ""
        try:
            worker = self._worker = self._worker or _start()
            return _answer(worker, name)
        except (OSError, TimeoutError, EOFError):
            self.deaths += 1
            self.close()
            return ""

    def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            with contextlib.suppress(OSError):
                worker.communicate()


def _start() -> subprocess.Popen[bytes]:
    # -I: nothing of the environment or the current directory decides what is run.
    worker = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        env={},
        start_new_session=True,  # Ctrl-C ends the recording; its names are wanted after that
    )
    try:
        _line(worker, _START_PATIENCE)
    except (OSError, TimeoutError, EOFError):
        worker.kill()
        worker.communicate()
        raise
    return worker


def _answer(worker: subprocess.Popen[bytes], name: str) -> str:
    if worker.stdin is None:
        raise EOFError
    worker.stdin.write(name.encode() + b"\n")
    return _line(worker, _PATIENCE)


def _line(worker: subprocess.Popen[bytes], patience: float) -> str:
    """The worker's next line.  Raises TimeoutError, EOFError and OSError."""
    if worker.stdout is None:
        raise EOFError
    line = b""
    readable = select.poll()  # select() takes no descriptor from 1024 on, and a recording has many files open
    readable.register(worker.stdout, select.POLLIN)
    while not line.endswith(b"\n"):
        if not readable.poll(patience * 1000):
            raise TimeoutError
        part = worker.stdout.read(1 << 16)
        if not part:
            raise EOFError
        line += part
    return line[:-1].decode("utf-8", "replace")


def _polished(mangled: str, name: str) -> str:
    """The name without compilers' additions: hashes and escapes of Rust's older scheme, numbers of LLVM."""
    name = _LLVM_SUFFIX.sub("", name)
    if not _RUST_LEGACY.fullmatch(mangled):
        return name
    name = _RUST_HASH.sub("", name)
    return _RUST_ESCAPE.sub(_unescaped, name.replace("_$", "$")).replace("..", "::")


def _unescaped(match: re.Match[str]) -> str:
    letters = match[1]
    if letters in _RUST_LETTERS:
        return _RUST_LETTERS[letters]
    code = int(letters[1:], 16)
    return chr(code) if _FIRST_PRINTABLE <= code <= _LAST_CHARACTER else match[0]


def _library() -> Callable[[str], str | None]:
    """LLVM's demangler; one that knows no name on Python 3.10, for which there is none."""
    try:
        from pycxxfilt import demangle  # noqa: PLC0415 - only the worker needs it
    except ImportError:
        return lambda _name: None
    demangle("_Z1fv")  # so that what it needs is loaded
    return demangle


def _serve(demangle: Callable[[str], str | None], names: BinaryIO, answers: BinaryIO) -> None:
    """Answer each name with a line, empty if the name cannot be demangled."""
    answers.write(b"ready\n")
    answers.flush()
    for line in names:
        name = ""
        with contextlib.suppress(ValueError, TypeError, MemoryError, UnicodeError):
            name = demangle(line[:-1].decode()) or ""
        answers.write(name[:_NAME_MAX].replace("\n", " ").encode("utf-8", "replace") + b"\n")
        answers.flush()


def _work() -> None:
    """Be the worker: load the demangler, give up every right, and answer."""
    sys.path.insert(0, _CHECKOUT)
    from pyflame_ebpf.host.confinement import compute_only  # noqa: PLC0415 - only the worker needs it

    demangle = _library()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    compute_only(memory=_MEMORY, cpu=_CPU, descriptors=_PIPES)
    _serve(demangle, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    _work()
