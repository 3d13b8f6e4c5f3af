"""The names of frames, processes and threads in every output: one spelling, which no hostile name can break.

Names come from the profiled processes, so a name may hold anything: separators, terminal escapes, text that runs
backwards.  ``visible`` makes all of that visible.  Each output adds what its own format needs.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from pyflame_ebpf.profile.model import Clock, Frame, FrameKind, Process, Recording, Thread

NAMELESS = "?"
NOT_PYTHON = "not Python"
_HEX_BYTE = 0x100
_HEX_WORD = 0x10000
# Module paths start below these directories, so their names say nothing about a module that lies directly in them.
_LIBRARY_DIRECTORY = re.compile(r"python\d+(\.\d+)?t?|python\d+\.zip|site-packages|dist-packages|lib-dynload")
_SUFFIX_PARTS_MAX = 12  # beyond so many directories in common the whole path is shown
_SPELLING = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_OFFSET_NAME = re.compile(r".+\+0x[0-9a-f]+")


class LabelKind(str, Enum):
    """What a label names: a kind of frame, or one of the three things that outputs put above the frames."""

    ALL = "all"
    PROCESS = "process"
    THREAD = "thread"
    PYTHON = "python"
    NATIVE = "native"
    KERNEL = "kernel"
    MARK = "mark"


@dataclass(frozen=True, slots=True)
class Label:
    """A printable text, the kind of thing it names, and the file or module of that thing ("" for none)."""

    text: str
    kind: LabelKind
    module: str = ""


def visible(text: str) -> str:
    r"""``text`` with every character that does not print as itself spelled ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``.

    Such are control, format (bidirectional overrides among them), surrogate, private and unassigned characters, and
    every space but the plain one.  A backslash is spelled ``\\``, so that the spelling can be undone.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(char if char.isprintable() and char != "\\" else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return "\\\\"
    if code < _HEX_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < _HEX_WORD else f"\\U{code:08x}"


def spelled_back(text: str) -> str:
    """The text before ``visible`` or the folded format spelled it."""
    return _SPELLING.sub(_unspelled, text) if "\\" in text else text


def _unspelled(found: re.Match[str]) -> str:
    digits = next(filter(None, found.groups()), "")
    code = int(digits, 16) if digits else ord("\\")
    return chr(code) if code <= sys.maxunicode else found[0]


def short_files(files: Iterable[str]) -> dict[str, str]:
    """Each file name without the leading directories that can be spared; no two short names are equal.

    The last directory and the base name stay (``json/decoder.py``, ``app/utils.py``).  The base name is enough for a
    module directly in a library directory such as ``python3.11`` or ``site-packages`` (``threading.py``).  More
    directories stay if another of ``files`` would otherwise read the same.
    """
    wanted = sorted(set(files))
    seen = Counter(suffix for file in wanted for suffix in _suffixes(file))
    return {
        file: next((suffix for suffix in _suffixes(file) if _says_enough(suffix, seen, file)), file) for file in wanted
    }


def _suffixes(file: str) -> Iterator[str]:
    """The file name's endings that begin at a directory, shortest first, the whole name last."""
    end = len(file)
    for _ in range(_SUFFIX_PARTS_MAX):
        end = file.rfind("/", 0, end)
        if end < 0:
            break
        if file[end + 1 :]:
            yield file[end + 1 :]
    yield file


def _says_enough(suffix: str, seen: Mapping[str, int], file: str) -> bool:
    if seen[suffix] > 1:
        return False
    if "/" in suffix or suffix == file:
        return True
    directory = file[: -len(suffix) - 1].rpartition("/")[2]
    return _LIBRARY_DIRECTORY.fullmatch(directory) is not None


def process_label(process: Process) -> Label:
    """``name (pid)``, without a PID where another tool did not write it."""
    return Label(_numbered(process.name, process.pid), LabelKind.PROCESS)


def thread_label(thread: Thread) -> Label:
    """``name (tid)``."""
    return Label(_numbered(thread.name, thread.tid), LabelKind.THREAD)


def _numbered(name: str, number: int) -> str:
    return f"{_name(name)} ({number})" if number else _name(name)


def command_label(process: Process) -> Label:
    """The command line, or the name if that is unknown: the same for all processes that run the same command."""
    return Label(_name(process.command or process.name), LabelKind.PROCESS)


def short_command(command: str) -> str:
    """The command line without the directory of its program."""
    program, blank, arguments = command.partition(" ")
    is_path = program.startswith(("/", "./", "../"))  # a kernel thread may be called kworker/3:1
    return (program.rpartition("/")[2] if is_path else program) + blank + arguments


def interpreter_label(process: Process) -> Label:
    """``CPython 3.11.2``."""
    return Label(visible(process.interpreter) or NOT_PYTHON, LabelKind.PROCESS)


def host_label(recording: Recording) -> Label:
    """The host's name."""
    return Label(_name(recording.host), LabelKind.PROCESS)


def time_name(clock: Clock) -> str:
    """The noun in ``3.5 s of CPU``, by clock."""
    return {Clock.CPU: "CPU", Clock.OFF_CPU: "waiting", Clock.WALL: "time"}[clock]


def frame_label(frame: Frame, files: Mapping[str, str], *, lines: bool) -> Label:
    """The label of a frame.  ``files`` is from ``short_files``; ``lines`` asks for the executing line."""
    if frame.kind is FrameKind.PYTHON:
        return _python_label(frame, files, frame.line if lines else frame.first_line)
    if frame.kind is FrameKind.KERNEL:
        module = f" [{visible(frame.file)}]" if frame.file else ""
        return Label(f"{_name(frame.name)}{module}_[k]", LabelKind.KERNEL, frame.file)
    if frame.kind is FrameKind.MARK:
        return Label(_bracketed(_name(frame.name)), LabelKind.MARK)
    return _native_label(frame)


def _python_label(frame: Frame, files: Mapping[str, str], line: int) -> Label:
    file = _name(files.get(frame.file, frame.file))
    place = f"{file}:{line}" if line > 0 else file
    return Label(f"{_name(frame.name)} ({place})", LabelKind.PYTHON, frame.file)


def _native_label(frame: Frame) -> Label:
    name = _name(frame.name)
    module = visible(frame.file.rpartition("/")[2])
    if not module:
        return Label(_unlike_other_kinds(name), LabelKind.NATIVE)
    if name.startswith(f"{module}+0x") and _OFFSET_NAME.fullmatch(name):
        return Label(name, LabelKind.NATIVE, module)
    return Label(f"{name} ({module})", LabelKind.NATIVE, module)


def _unlike_other_kinds(name: str) -> str:
    """A bare symbol that cannot pass for a mark or for a kernel frame."""
    if name.startswith("["):
        name = f"\\x5b{name[1:]}"
    return f"{name[:-3]}\\x5bk]" if name.endswith("_[k]") else name


def _bracketed(text: str) -> str:
    return text if text.startswith("[") and text.endswith("]") else f"[{text}]"


def _name(text: str) -> str:
    return visible(text) or NAMELESS
