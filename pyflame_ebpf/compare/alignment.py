"""Two recordings spelled alike: one function, line or process has one name in both, that of the later recording.

Between two recordings a program is edited, moved and restarted.  So a function is known by its kind, name and file, not
by its first line.  A line is counted from the first line of its function.  A file of one recording only is taken for a
file of the other only if the ends of both names agree.  A process is known by its command, not by its PID.  Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import Frame, NumberedStack, Process, Profile, SampleKey, Thread

_PYTHON_DIRECTORY = re.compile(r"python\d+(?:\.\d+)?t?")
_PYTHON_PROGRAM = re.compile(r"python(?:\d+(?:\.\d+)?t?)?")
_PARTS_MAX = 12  # directories of a file name that are looked at
_IN_EVERY_PACKAGE = ("__init__.py", "__main__.py")  # names that tell nothing without their directory


@dataclass(frozen=True, slots=True)
class Aligned:
    """Both recordings in one spelling.  ``moved`` maps earlier names of files to later ones."""

    before: Profile
    after: Profile
    moved: dict[str, str]


def aligned(before: Profile, after: Profile) -> Aligned:
    """Spell ``before`` as ``after`` does.  Processes and threads of both lose their numbers."""
    moved = _moved_files(_names_by_file(before), _names_by_file(after))
    return Aligned(
        _without_numbers(_respelled(before, after, moved), _commands(before, after)), _without_numbers(after, {}), moved
    )


# Files


def _names_by_file(profile: Profile) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for frame in _sampled_frames(profile):
        found.setdefault(frame.file, set()).add(frame.name)
    return found


def _sampled_frames(profile: Profile) -> list[Frame]:
    """Each frame of the sampled stacks once, in the order in which the stacks have them."""
    sampled = {key.stack for key in profile.samples}
    numbers = dict.fromkeys(chain.from_iterable(profile.stacks[index] for index in sampled))
    return [profile.frames[number] for number in numbers]


def _moved_files(before: Mapping[str, AbstractSet[str]], after: Mapping[str, AbstractSet[str]]) -> dict[str, str]:
    """Files of ``before`` only, each with the file of ``after`` only that ends alike and has a function in common."""
    moved: dict[str, str] = {}
    taken: set[str] = set()
    for parts in range(_PARTS_MAX, 0, -1):
        gone = [file for file in before if file not in after and file not in moved]
        come = [file for file in after if file not in before and file not in taken]
        pairs = _pairs(gone, come, lambda file, parts=parts: _ending(file, parts))  # type: ignore[misc]
        moved.update((old, new) for old, new in pairs if before[old] & after[new])
        taken.update(moved.values())
    return moved


def _ending(file: str, parts: int) -> tuple[str, ...] | None:
    """The last parts of a file name.  None if the name has fewer parts, or if the ending tells too little."""
    names = file.split("/")
    if len(names) < parts or (parts == 1 and names[-1] in _IN_EVERY_PACKAGE):
        return None
    return tuple(_PYTHON_DIRECTORY.sub("python", name) for name in names[-parts:])


def _pairs(
    gone: Iterable[str], come: Iterable[str], key_of: Callable[[str], Hashable | None]
) -> Iterator[tuple[str, str]]:
    """Pairs (gone, come) with the same key, for keys that exactly one text of each side has."""
    old, new = _by_key(gone, key_of), _by_key(come, key_of)
    for key, texts in old.items():
        if len(texts) == 1 and len(new.get(key, ())) == 1:
            yield texts[0], new[key][0]


def _by_key(texts: Iterable[str], key_of: Callable[[str], Hashable | None]) -> dict[Hashable, list[str]]:
    found: dict[Hashable, list[str]] = {}
    for text in texts:
        key = key_of(text)
        if key is not None:
            found.setdefault(key, []).append(text)
    return found


# Frames

_Function = tuple[str, str, str]


@dataclass(slots=True)
class _Speller:
    """Frames of the earlier recording as the later one would spell them."""

    moved: Mapping[str, str]
    first_before: dict[_Function, set[int]]
    first_after: dict[_Function, set[int]]

    def spelled(self, frame: Frame) -> Frame:
        """The frame in the later one's spelling."""
        file = self.moved.get(frame.file, frame.file)
        function = (frame.kind.value, frame.name, file)
        first = self._first_line(function)
        line = frame.line
        if first and frame.first_line and line:
            line = max(1, line + first - frame.first_line)
        return replace(frame, file=file, line=line, first_line=first or frame.first_line)

    def _first_line(self, function: _Function) -> int:
        """The first line in the later recording; 0 if it lacks the function, or if either has several of that name."""
        first = self.first_after.get(function, set())
        return next(iter(first)) if len(first) == len(self.first_before[function]) == 1 else 0


def _respelled(before: Profile, after: Profile, moved: Mapping[str, str]) -> Profile:
    speller = _Speller(moved, _first_lines(before, moved), _first_lines(after, {}))
    sampled = {key.stack for key in before.samples}
    stacks = [stack if index in sampled else () for index, stack in enumerate(before.stacks)]
    frames: Numbering[Frame] = Numbering()  # two frames may be spelled alike
    numbers = {number: frames[speller.spelled(before.frames[number])] for number in set(chain.from_iterable(stacks))}
    return replace(before, frames=frames.distinct, stacks=renumbered(stacks, numbers))


def _first_lines(profile: Profile, moved: Mapping[str, str]) -> dict[_Function, set[int]]:
    found: dict[_Function, set[int]] = {}
    for frame in _sampled_frames(profile):
        function = (frame.kind.value, frame.name, moved.get(frame.file, frame.file))
        found.setdefault(function, set()).add(frame.first_line)
    return found


# Processes


def command_of(process: Process) -> str:
    """What a process runs, whichever interpreter runs it: ``python app.py``.

    The program loses its directory, an interpreter its version too, threads of the kernel the numbers of their CPUs.
    """
    if not process.command:
        return process.name.partition("/")[0] or process.name
    program, blank, arguments = process.command.partition(" ")
    name = program.rpartition("/")[2] or program
    if process.is_python and _PYTHON_PROGRAM.fullmatch(name):
        name = "python"
    return name + blank + arguments


def _commands(before: Profile, after: Profile) -> dict[str, str]:
    """Commands of the earlier recording only, each with the later one that differs in directories alone."""
    old, new = _sampled_commands(before), _sampled_commands(after)
    return dict(_pairs(sorted(old - new), sorted(new - old), _without_directories))


def _sampled_commands(profile: Profile) -> set[str]:
    return {command_of(profile.processes[index]) for index in {key.process for key in profile.samples}}


def _without_directories(command: str) -> tuple[str, ...]:
    return tuple(word.rpartition("/")[2] for word in command.split(" "))


def _without_numbers(profile: Profile, commands: Mapping[str, str]) -> Profile:
    processes = []
    for process in profile.processes:
        command = command_of(process)
        processes.append(replace(process, pid=0, command=commands.get(command, command), scheduler_cpu=None))
    return replace(profile, processes=processes, threads=[Thread(0, thread.name) for thread in profile.threads])


# Both in one


def renumbered(stacks: Iterable[NumberedStack], numbers: Mapping[int, int] | Sequence[int]) -> list[NumberedStack]:
    """Stacks by other numbers of their frames; ``numbers`` has the new number of each old one."""
    return [tuple([numbers[number] for number in stack]) for stack in stacks]


def side_by_side(before: Profile, after: Profile) -> tuple[Profile, Profile]:
    """Aligned recordings with the same lists of processes, threads, frames and stacks, each with its own samples.

    Processes that run the same command are one process, which is called by its command.
    """
    processes = {each.command: replace(each, name=each.command) for side in (before, after) for each in side.processes}
    threads = {each.name: each for side in (before, after) for each in side.threads}
    frames = Numbering(before.frames)
    numbers_after = [frames[frame] for frame in after.frames]
    lists: dict[str, Any] = {
        "processes": list(processes.values()),
        "threads": list(threads.values()),
        "frames": frames.distinct,
        "stacks": [*before.stacks, *renumbered(after.stacks, numbers_after)],
    }
    process_at, thread_at = Numbering(processes), Numbering(threads)
    sides = []
    for side, stacks_at in ((before, 0), (after, len(before.stacks))):
        samples: Counter[SampleKey] = Counter()
        for key, count in side.samples.items():
            process = process_at[side.processes[key.process].command]
            thread = thread_at[side.threads[key.thread].name]
            samples[key._replace(process=process, thread=thread, stack=key.stack + stacks_at)] += count
        sides.append(replace(side, **lists, samples=samples))
    return sides[0], sides[1]
