"""The meaning of names in folded stacks, by the tool that wrote them: frames, and their processes and threads.

Pure.  A name that follows no convention is a native symbol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from pyflame_ebpf.profile.labels import spelled_back
from pyflame_ebpf.profile.model import Frame, FrameKind

JIT = "[jit]"  # as native_symbols calls the file of code that a JIT compiler made
_MODULE_OFFSET = re.compile(r"(.+)\+0x[0-9a-f]+")
_SUFFIX = re.compile(r"(.+)_\[([kji0-9])\]")
_LINE_NUMBER = re.compile(r"(\d{1,9})\)")
_FILE = re.compile(r"(.*) \(([^()]*)\)")
_KERNEL_MODULE = re.compile(r"(.*) \[([^\[\]]*)\]")
_PERF_PYTHON = re.compile(r"py::(.*):([^:]+)")
_AUSTIN_PLACE = re.compile(r"(.*?):([^:]*):(-?\d{1,9})")


def _place(name: str) -> tuple[str, str, int] | None:
    """Function, file and line of ``function (file:line)``, None for another name.

    A regular expression would take time in proportion to the square of a long name's length.
    """
    before, _, last = name.rpartition(":")
    function, found, file = before.rpartition(" (")
    number = _LINE_NUMBER.fullmatch(last)
    return (function, file, int(number[1])) if found and number else None


class Frames:
    """Names as most tools write them: perf through the collapse scripts, py-spy, bcc's tools."""

    lines_are_first = False  # whether the number after a file is the function's line rather than the executing one

    def frame(self, name: str) -> Frame:
        """The frame of a name."""
        if suffix := _SUFFIX.fullmatch(name):
            return self._of_kind(suffix[1], suffix[2])
        if python := _PERF_PYTHON.fullmatch(name):
            return Frame(FrameKind.PYTHON, python[1], python[2])
        if place := _place(name):
            return self._python(*place)
        if name.startswith("[") and name.endswith("]"):
            return self._bracketed(name)
        return self._with_file(name)

    def _text(self, text: str) -> str:
        return text

    def _of_kind(self, name: str, kind: str) -> Frame:
        if kind != "k":
            return Frame(FrameKind.NATIVE, name, JIT if kind == "j" else "")
        module = _KERNEL_MODULE.fullmatch(name)
        name, file = module.groups() if module else (name, "")
        return Frame(FrameKind.KERNEL, self._text(name), self._text(file))

    def _python(self, name: str, file: str, line: int) -> Frame:
        first_line = line if self.lines_are_first else 0
        return Frame(FrameKind.PYTHON, self._text(name), self._text(file), first_line, line)

    def _bracketed(self, name: str) -> Frame:
        """A file without symbols in perf's spelling, or "[unknown]" for nothing known at all."""
        if name == "[unknown]":
            return Frame(FrameKind.MARK, name)
        return Frame(FrameKind.NATIVE, "?", name[1:-1])

    def _with_file(self, name: str) -> Frame:
        found = _FILE.fullmatch(name)
        if found is None:
            offset = _MODULE_OFFSET.fullmatch(name)
            return Frame(FrameKind.NATIVE, self._text(name), self._text(offset[1]) if offset else "")
        if found[2].endswith((".py", ".pyx")) or found[2].startswith("<"):
            return self._python(found[1], found[2], 0)
        return Frame(FrameKind.NATIVE, self._text(found[1]), self._text(found[2]))


class OwnFrames(Frames):
    """Names as this profiler writes them.  The spelling of unprintable characters is undone."""

    lines_are_first = True

    @staticmethod
    def owner(root: str) -> bool:
        """True if a stack's first name is a process as this profiler writes it."""
        return OwnProcess.fits(root)

    def _text(self, text: str) -> str:
        return spelled_back(text)

    def _bracketed(self, name: str) -> Frame:
        return Frame(FrameKind.MARK, spelled_back(name))


class AustinFrames(Frames):
    """Names as Austin writes them."""

    @staticmethod
    def owner(root: str) -> bool:
        """True if a stack's first name is a process as Austin writes it."""
        return AustinProcess.fits(root)

    def frame(self, name: str) -> Frame:
        """The frame of a name."""
        place = _AUSTIN_PLACE.fullmatch(name)
        if place is None:
            return super().frame(name)
        return Frame(FrameKind.PYTHON, place[2], place[1], 0, max(0, int(place[3])))


@dataclass(frozen=True, slots=True)
class Owner:
    """The process and thread of a stack; ``taken`` of its names say so and are no frames.

    This class itself is for stacks whose names say nothing of it.
    """

    pid: int = 0
    name: str = ""
    command: str = ""
    tid: int = 0
    thread: str = ""
    taken: int = 0

    @classmethod
    def fits(cls, root: str) -> bool:
        """True if a stack's first name is of this kind."""
        del root
        return True

    @classmethod
    def of(cls, names: list[str]) -> Owner:
        """The owner of a stack by its first two names."""
        del names
        return cls()


class _OwnerByPattern(Owner):
    __slots__ = ()
    process: ClassVar[re.Pattern[str]]

    @classmethod
    def fits(cls, root: str) -> bool:
        """True if a stack's first name is of this kind."""
        return cls.process.fullmatch(root) is not None


class OwnProcess(_OwnerByPattern):
    """``name (pid)``, and perhaps ``name (tid)`` after it."""

    __slots__ = ()
    process = re.compile(r"(.*) \((\d{1,9})\)")

    @classmethod
    def of(cls, names: list[str]) -> Owner:
        """The owner of a stack by its first two names."""
        process, thread = cls.process.fullmatch(names[0]), cls.process.fullmatch("".join(names[1:]))
        if process is None:
            return Owner()
        name = spelled_back(process[1])
        if thread is None:
            return Owner(int(process[2]), name, taken=1)
        return Owner(int(process[2]), name, "", int(thread[2]), spelled_back(thread[1]), 2)


class AustinProcess(_OwnerByPattern):
    """``P<pid>;T<interpreter>:<tid>``; version 2 has no interpreter, version 1 spells both words out."""

    __slots__ = ()
    process = re.compile(r"(?:P|Process )(\d{1,9})")
    _thread = re.compile(r"(?:T|Thread )(?:\d+:)?(?:0x)?([0-9a-f]{1,16})")

    @classmethod
    def of(cls, names: list[str]) -> Owner:
        """The owner of a stack by its first two names."""
        process, thread = cls.process.fullmatch(names[0]), cls._thread.fullmatch("".join(names[1:]))
        pid = int(process[1]) if process else 0
        if thread is None:
            return Owner(pid, taken=1)
        is_hexadecimal = "x" in names[1] or not thread[1].isdecimal()
        return Owner(pid, tid=int(thread[1], 16 if is_hexadecimal else 10), taken=2)


class PySpyProcess(_OwnerByPattern):
    """``process pid:"command"``, ``thread (tid): name``, or both."""

    __slots__ = ()
    process = re.compile(r'process (\d{1,9})(?::"(.*)")?|thread \((\d{1,9})\)(?:: .*)?')
    _thread = re.compile(r"thread \((\d{1,9})\)(?:: (.*))?")

    @classmethod
    def of(cls, names: list[str]) -> Owner:
        """The owner of a stack by its first two names."""
        process = cls.process.fullmatch(names[0])
        pid, command = process.groups("")[:2] if process else ("", "")
        thread = cls._thread.fullmatch("".join(names[1:]) if pid else names[0])
        program = command.partition(" ")[0].rpartition("/")[2]
        if thread is None:
            return Owner(int(pid or 0), program, command, taken=1)
        return Owner(int(pid or 0), program, command, int(thread[1]), thread[2] or "", 2 if pid else 1)


class PerfProcess(_OwnerByPattern):
    """``comm-pid`` or ``comm-pid/tid``; ``?`` stands for a number that perf does not know."""

    __slots__ = ()
    process = re.compile(r"(.*)-(\d{1,9}|\?)(?:/(\d{1,9}|\?))?")

    @classmethod
    def of(cls, names: list[str]) -> Owner:
        """The owner of a stack by its first two names."""
        process = cls.process.fullmatch(names[0])
        if process is None:
            return Owner()
        pid, tid = (int(number) if number and number != "?" else 0 for number in process.groups()[1:])
        return Owner(pid, process[1], tid=tid, thread=process[1] if tid else "", taken=1)


class NamedProcess(Owner):
    """A bare ``comm``: a name without a file that is no kernel function."""

    __slots__ = ()

    @classmethod
    def fits(cls, root: str) -> bool:
        """True if a stack's first name is of this kind."""
        has_file = root.endswith(")") and " (" in root[1:]
        return not (has_file or root.endswith("_[k]") or root.startswith("py::"))

    @classmethod
    def of(cls, names: list[str]) -> Owner:
        """The owner of a stack by its first two names."""
        return Owner(name=names[0], taken=1)


OWNERS: tuple[type[Owner], ...] = (OwnProcess, AustinProcess, PySpyProcess, PerfProcess, NamedProcess, Owner)
