"""C++ and Rust names as their authors wrote them, by LLVM's demangler (pycxxfilt).

A name of a hostile file can make any demangler use up the stack, the memory or the time: it works in a process of its
own, with little of each, and a name that it does not survive stays as it is.  Run as a program, this file is that
process: a name a line in, a name a line out.
"""

from __future__ import annotations

import contextlib
import re
import resource
import select
import signal
import subprocess
import sys
from typing import BinaryIO

_MANGLED_MAX = 4096  # characters
_NAME_MAX = 2048
_PATIENCE = 0.25  # seconds for one name; 20 µs are usual
_START_PATIENCE = 10.0
_DEATHS_MAX = 8
_MEMORY = 512 << 20  # bytes of address space
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}(?= \(|$)")
_RUST_LEGACY = re.compile(r"_ZN.*17h[0-9a-f]{16}E(\..*)?")
_RUST_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_RUST_LETTERS = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_LLVM_SUFFIX = re.compile(r" \(\.llvm\.[0-9A-F]+\)$")
_MANGLED = re.compile(r"_[ZR][!-~]+")  # printable ASCII, as the ABIs say
_LAST_ASCII, _FIRST_PRINTABLE = 0x10FFFF, 0x20


class Demangler:
    """Demangles names, each once; never raises, never takes long."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None
        self._known: dict[str, str] = {}
        self.deaths = 0  # of workers, by a name each

    def demangle(self, name: str) -> str:
        """A name as its author wrote it; as it is where it is not mangled, too long or too much for the demangler."""
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
        """Ends the worker."""
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
    """The worker's next line; TimeoutError, EOFError."""
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
    """Without what compilers add: hashes and escapes of Rust's older scheme, LLVM's numbers."""
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
    return chr(code) if _FIRST_PRINTABLE <= code <= _LAST_ASCII else match[0]


def _serve(names: BinaryIO, answers: BinaryIO) -> None:
    """The worker: answers each line, with an empty one where there is no answer."""
    try:
        from pycxxfilt import demangle  # noqa: PLC0415 - only the worker needs it

        known = True
    except ImportError:  # Python 3.10, for which there is none
        known = False
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers.write(b"ready\n")
    answers.flush()
    for line in names:
        name = ""
        if known:
            with contextlib.suppress(ValueError, TypeError, MemoryError, UnicodeError):
                name = demangle(line[:-1].decode()) or ""
        answers.write(name[:_NAME_MAX].replace("\n", " ").encode("utf-8", "replace") + b"\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
