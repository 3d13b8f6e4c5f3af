"""The source text of the functions that were sampled, hottest first, as far as the limits allow.

Pure: the function that reads files is an argument.  Text is taken only if it fits the samples: a file may have changed
since it was imported, and a program may give its code objects any file name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pyflame_ebpf.profile.model import FrameKind, Process, Profile

FILE_MAX = 1 << 20  # bytes of a file
LINE_MAX = 400  # characters of a line; what is longer ends in "…"
TEXT_MAX = 4 << 20  # characters of all lines
READ_MAX = 256 << 20  # bytes that the lines of all files take
_LINE_SIZE = 60  # bytes that a line takes besides its characters
FUNCTION_LINES_MAX = 400
_READINGS_MAX = 3  # of one file name, in different processes
_AROUND = 2  # lines shown before and after one whose function has no body of its own
_HEADER_LINES_MAX = 40  # decorators and what else may stand between a code object's first line and its "def"
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*(?:latin-1|iso-8859-1|iso-latin-1)\b", re.MULTILINE)
_DEFINITION = re.compile(r"\s*(?:async\s+def|def|class)\s+(\w+)")

ReadFile = Callable[[Process, str], bytes]  # as the process sees it; b"" where it cannot be had
Lines = dict[int, str]


@dataclass(slots=True)
class _Function:
    """The samples of one function: how many, in which lines, in which processes."""

    samples: int = 0
    lines: set[int] = field(default_factory=set)
    processes: Counter[int] = field(default_factory=Counter)


_Place = tuple[str, str, int]  # file, name, first line


def sampled_sources(profile: Profile, read: ReadFile) -> dict[str, Lines]:
    """The text of the sampled functions by file and line number, as far as it can be read."""
    functions = _sampled_functions(profile)
    texts = _Texts(profile, read, READ_MAX)
    sources: dict[str, Lines] = {}
    room = TEXT_MAX
    for place, function in sorted(functions.items(), key=lambda item: (-item[1].samples, item[0])):
        file, name, first_line = place
        known = sources.setdefault(file, {})
        for lines in texts.of(file, function.processes):
            if found := function_text(lines, name, first_line, function.lines):
                new = found.keys() - known.keys()
                room -= sum(len(found[number]) for number in new)
                known.update({number: found[number] for number in new} if room >= 0 else {})
                break
        if room < 0:
            break
    return {file: dict(sorted(lines.items())) for file, lines in sources.items() if lines}


@dataclass(slots=True)
class _Texts:
    """Files as lines.  A file is read in at most _READINGS_MAX of the processes that have it."""

    profile: Profile
    read: ReadFile
    room: int  # bytes
    kept: dict[str, dict[int, list[str]]] = field(default_factory=dict)

    def of(self, file: str, processes: Counter[int]) -> Iterator[list[str]]:
        """The contents of a file: as read before, then as the busiest of these processes see it."""
        kept = self.kept.setdefault(file, {})
        yield from list(kept.values())
        for process, _ in processes.most_common():
            if len(kept) >= _READINGS_MAX or self.room <= 0:
                return
            if process not in kept:
                content = self.read(self.profile.processes[process], file)
                lines = kept[process] = _split(content)
                self.room -= len(content) + _LINE_SIZE * len(lines)
                yield lines


def _sampled_functions(profile: Profile) -> dict[_Place, _Function]:
    through: dict[int, Counter[int]] = {}
    for key, count in profile.samples.items():
        through.setdefault(key.stack, Counter())[key.process] += count
    functions: dict[_Place, _Function] = {}
    for stack, processes in through.items():
        for place, lines in _places(profile, stack):
            function = functions.setdefault(place, _Function())
            function.samples += processes.total()
            function.processes.update(processes)
            function.lines |= lines
    return functions


def _places(profile: Profile, stack: int) -> Iterable[tuple[_Place, set[int]]]:
    """The Python functions of a stack, each once, with their executing lines."""
    places: dict[_Place, set[int]] = {}
    for frame in profile.frames_of(stack):
        if frame.kind is FrameKind.PYTHON and frame.first_line > 0 and frame.file and not frame.file.startswith("<"):
            lines = places.setdefault((frame.file, frame.name, frame.first_line), set())
            if frame.line > 0:
                lines.add(frame.line)
    return places.items()


def _split(content: bytes) -> list[str]:
    """The lines of a file; none if it is too large or is not text."""
    if len(content) > FILE_MAX or b"\0" in content:
        return []
    head = b"\n".join(re.split(rb"\r\n|\r|\n", content, maxsplit=2)[:2])
    encoding = "latin-1" if _COOKIE.search(head) else "utf-8"
    # As the compiler counts them: str.splitlines() would also split at form feeds and the like.
    return re.split(r"\r\n|\r|\n", content.removeprefix(b"\xef\xbb\xbf").decode(encoding, "replace"))


def function_text(lines: Sequence[str], name: str, first_line: int, executed: set[int]) -> Lines:
    """The lines of one function by number; none if the text does not fit the function."""
    if not 0 < first_line <= len(lines) or max(executed, default=1) > len(lines):
        return {}
    function = name.rpartition(".")[2]
    numbers: Iterator[int] | Iterable[int]
    if function.isidentifier():
        definition = _definition(lines, function, first_line)
        if not definition:
            return {}
        numbers = range(first_line, _end_of_block(lines, definition) + 1)
    else:  # a module, a lambda, a comprehension: no block that could be told by its indentation
        wanted = {first_line, *executed} if function != "<module>" else executed
        numbers = sorted({near for line in wanted for near in range(line - _AROUND, line + _AROUND + 1)})
    return {number: _shortened(lines[number - 1]) for number in numbers if 0 < number <= len(lines)}


def _definition(lines: Sequence[str], function: str, first_line: int) -> int:
    """The number of the line that defines a function of this name, 0 if there is none."""
    for number, line in enumerate(lines[first_line - 1 : first_line - 1 + _HEADER_LINES_MAX], first_line):
        found = _DEFINITION.match(line)
        if found:
            return number if found[1] == function else 0
    return 0


def _end_of_block(lines: Sequence[str], definition: int) -> int:
    """The last line of the block that a line defines, by indentation."""
    indentation = _indentation(lines[definition - 1])
    end = definition
    for number, line in enumerate(lines[definition : definition + FUNCTION_LINES_MAX], definition + 1):
        text = line.strip()
        if not text:
            continue
        # A bracket at the margin closes the parameters.
        if _indentation(line) <= indentation and text[0] not in ")]}#":
            break
        end = number
    return end


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _shortened(line: str) -> str:
    return line if len(line) <= LINE_MAX else f"{line[: LINE_MAX - 1]}…"
