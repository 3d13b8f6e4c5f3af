r"""Folded stacks that some tool wrote, as a Profile: one stack a line, ``frame;frame;frame count``, root first.

The format says nothing of processes, files and lines; what stands for them goes by the tool:

- this one: ``name (pid)``, perhaps ``name (tid)``, ``function (file:line)``, ``symbol (library)``, ``symbol_[k]``
- perf through FlameGraph's collapse scripts: ``comm``, ``comm-pid`` or ``comm-pid/tid``, then symbols, of which
  ``_[k]`` is the kernel's, ``_[j]`` a JIT compiler's and ``_[i]`` inlined; ``py::function:file`` with ``-X perf``
- py-spy's raw format: ``process pid:"command"`` and ``thread (tid): name`` where asked for, ``function (file:line)``
- Austin up to 3: ``P<pid>;T<tid>`` (once ``Process pid;Thread tid``), ``file:function:line``, and microseconds

Read line by line; memory is bounded by the distinct stacks, and those by limits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.file import UnusableProfileError
from pyflame_ebpf.profile.file_layout import SECONDS_MAX
from pyflame_ebpf.profile.folded_frames import OWNERS, AustinFrames, Frames, Owner, OwnFrames
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.labels import visible
from pyflame_ebpf.profile.model import (
    NATIVE_GAPS,
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    NumberedStack,
    Outcome,
    Process,
    Profile,
    Recording,
    SampleKey,
    Stack,
    Thread,
)
from pyflame_ebpf.profile.size_limits import STACK_FRAMES_MAX, TEXTS_MAX, check_size

LINE_MAX = 1 << 20  # bytes
COUNT_MAX = 1 << 53
DISTINCT_MAX = 1_000_000  # stacks, and names; each takes 500 bytes and more
_SHOWN = 60  # characters of a line that an error quotes
_MOJO = b"MOJ"  # Austin 4's binary format
_LINE = re.compile(r"(.*\S)\s+(\S+)")
_WHOLE = re.compile(r"(\d{1,16})(?:\.0*)?")
_FULL_METRICS = re.compile(r"(\d{1,16}),([01]),-?\d+")  # microseconds, whether idle, bytes
_METADATA = re.compile(r"# (\w+): (.*)")
_NAMELESS_PROCESS = "?"
_MICROSECONDS = 1_000_000


class _BadLineError(Exception):
    """A line is not one of folded stacks.  The text says what is wrong with it."""


@dataclass(slots=True)
class _Folded:
    """All lines of a file.

    ``counts`` has the samples of each stack, a tuple of numbers of ``names``.  ``remarks`` are Austin's.
    ``with_two_counts`` counts the lines that seem to have two counts.
    """

    names: Numbering[str] = field(default_factory=Numbering)
    counts: Counter[tuple[int, ...]] = field(default_factory=Counter)
    remarks: dict[str, str] = field(default_factory=dict)
    lines: int = 0
    with_two_counts: int = 0
    frames: int = 0
    name_characters: int = 0

    def add(self, line: str) -> None:
        """Add one line.  Raises _BadLineError."""
        if remark := _METADATA.fullmatch(line):
            self.remarks[remark[1]] = remark[2]
            return
        stack, count = _stack_and_count(line)
        self.lines += 1
        before = _LINE.fullmatch(stack)
        self.with_two_counts += bool(before and re.fullmatch(r"\d+(\.\d*)?", before[2]))
        if count:
            self._count(stack, count)

    def _count(self, stack: str, count: int) -> None:
        known = self.names.get
        names = stack.split(";")
        indices = tuple([index for name in names if (index := known(name)) is not None])
        if len(indices) < len(names):
            indices = tuple([self._index(name) for name in names if name])
        if not indices:
            raise _BadLineError(f"there is no frame before the count: {_quoted(stack)}")
        if indices not in self.counts:
            self.frames += len(indices)
        self.counts[indices] += count
        if len(self.counts) > DISTINCT_MAX:
            raise _BadLineError(f"it has more than {DISTINCT_MAX:,} stacks")
        if self.frames > STACK_FRAMES_MAX:
            raise _BadLineError(f"its stacks have more than {STACK_FRAMES_MAX:,} frames")
        if self.counts[indices] > COUNT_MAX:
            raise _BadLineError("its counts are too large")

    def _index(self, name: str) -> int:
        if name not in self.names:
            if len(self.names) >= DISTINCT_MAX:
                raise _BadLineError(f"it has more than {DISTINCT_MAX:,} names")
            self.name_characters += len(name)
            if self.name_characters > TEXTS_MAX:
                raise _BadLineError(f"its names take more than {TEXTS_MAX:,} characters")
        return self.names[name]


def load_folded(stream: BinaryIO, name: str) -> Profile:
    """Read folded stacks; ``name`` is what errors call the file.  Raises UnusableProfileError.

    Such a file tells neither time nor rate, so duration and frequency are 0, except in Austin's files.
    """
    folded = _Folded()
    number = 0
    try:
        for number, line in _lines(stream):  # noqa: B007 - the error says where
            folded.add(line)
        number = 0  # what is wrong from here on is no line's fault
        profile = _profile(folded)
        check_size(profile)
    except (_BadLineError, WrongContentError) as error:
        place = f" in line {number:,}" if number else ""
        raise UnusableProfileError(
            f"{name} is neither a saved profile nor folded stacks: {error}{place}.",
            "Give the directory of a recording, its profile.json.gz, or lines of 'frame;frame count'.",
        ) from error
    return profile


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank.  Raises _BadLineError."""
    number = 0
    while line := stream.readline(LINE_MAX + 1):
        number += 1
        if number == 1 and line.startswith(_MOJO):
            raise _BadLineError("it is in Austin's binary format, which 'mojo2austin' turns into text")
        if len(line) > LINE_MAX:
            raise _BadLineError(f"a line is longer than {LINE_MAX:,} bytes")
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        if text.strip():
            yield number, text


def _stack_and_count(line: str) -> tuple[str, int]:
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise _BadLineError(f"there is no count after a stack: {_quoted(line)}")
    stack, count = parts.groups()
    if whole := _WHOLE.fullmatch(count):
        return stack, int(whole[1])
    if metrics := _FULL_METRICS.fullmatch(count):
        return stack, 0 if metrics[2] == "1" else int(metrics[1])
    raise _BadLineError(f"{_quoted(count)} is not a whole number of samples")


def _quoted(text: str) -> str:
    return f"'{visible(text[:_SHOWN])}{'…' if len(text) > _SHOWN else ''}'"


def _profile(folded: _Folded) -> Profile:
    if not folded.lines:
        raise _BadLineError("there is no stack in it")
    if folded.with_two_counts == folded.lines:
        raise _BadLineError("its lines have two counts, as a comparison has; give each of the two by itself")
    if folded.remarks.get("mode") == "memory":
        raise _BadLineError("it counts memory, not time")
    names = folded.names.distinct
    roots = {names[stack[0]] for stack in folded.counts}
    frames, frequency = _tool(roots, folded)
    builder = _Builder(Profile(Recording(0.0, _duration(folded), frequency, 0)), frames, names, _owner_of(roots))
    for stack, count in folded.counts.items():
        builder.add(stack, count)
    return builder.finished()


def _tool(roots: set[str], folded: _Folded) -> tuple[Frames, int]:
    """How the tool that wrote the file spells frames, and its samples per second, 0 if unknown."""
    if all(AustinFrames.owner(root) for root in roots):
        return AustinFrames(), _as_samples(folded)
    return (OwnFrames() if all(OwnFrames.owner(root) for root in roots) else Frames()), 0


def _as_samples(folded: _Folded) -> int:
    """Turn Austin's microseconds into samples if it tells its interval.  Returns the samples per second."""
    interval = folded.remarks.get("interval", "")
    if not interval.isdecimal() or not 0 < int(interval) <= _MICROSECONDS:
        return _MICROSECONDS
    shares = [(stack, *divmod(time, int(interval))) for stack, time in folded.counts.items()]
    missing = round(folded.counts.total() / int(interval)) - sum(whole for _, whole, _ in shares)
    shares.sort(key=lambda share: -share[2])  # those that lose most by rounding down get what is missing
    folded.counts = Counter(
        {stack: samples for at, (stack, whole, _) in enumerate(shares) if (samples := whole + (at < missing))}
    )
    return max(1, round(_MICROSECONDS / int(interval)))


def _duration(folded: _Folded) -> float:
    """The seconds that Austin tells; 0 if it tells none, or more than a recording can have."""
    microseconds = folded.remarks.get("duration", "")
    seconds = int(microseconds) / _MICROSECONDS if re.fullmatch(r"[0-9]{1,16}", microseconds) else 0.0
    return seconds if seconds <= SECONDS_MAX else 0.0


def _owner_of(roots: set[str]) -> type[Owner]:
    """The first tool whose way of naming processes fits the first name of every stack."""
    return next(owner for owner in OWNERS if all(owner.fits(root) for root in roots))


class _Builder:
    """Builds a profile from stacks of names."""

    def __init__(self, profile: Profile, frames: Frames, names: list[str], owner: type[Owner]) -> None:
        self._profile = profile
        self._names = names
        self._named = [frames.frame(name) for name in names]
        self._numbers = [-1] * len(names)  # of the frames, once they are met
        self._owner = owner
        self._processes: Numbering[tuple[int, str, str]] = Numbering()
        self._threads: Numbering[tuple[int, str]] = Numbering()
        self._frames: Numbering[Frame] = Numbering()
        self._stacks: Numbering[NumberedStack] = Numbering()
        self._python: set[int] = set()

    def add(self, indices: tuple[int, ...], count: int) -> None:
        """Add a stack, a tuple of numbers of the names."""
        owner = self._owner.of([self._names[index] for index in indices[:2]])
        stack = tuple([self._named[index] for index in indices[owner.taken :]])
        process = self._processes[owner.pid, owner.name, owner.command]
        thread = self._threads[owner.tid, owner.thread]
        if any(frame.kind is FrameKind.PYTHON for frame in stack):
            self._python.add(process)
        in_kernel = bool(stack) and stack[-1].kind is FrameKind.KERNEL
        numbers = self._numbers
        frames = indices[owner.taken :]
        at = self._stacks[tuple([found if (found := numbers[index]) >= 0 else self._number(index) for index in frames])]
        key = SampleKey(0, process, thread, at, in_kernel, Gil.UNKNOWN, _outcome(stack), _native_outcome(stack))
        self._profile.samples[key] += count

    def _number(self, index: int) -> int:
        self._numbers[index] = number = self._frames[self._named[index]]
        return number

    def finished(self) -> Profile:
        """The profile of all stacks that were added."""
        for index, (pid, name, command) in enumerate(self._processes):
            interpreter = "Python" if index in self._python else ""
            self._profile.processes.append(Process(pid, name or _NAMELESS_PROCESS, command, interpreter))
        self._profile.threads += [Thread(tid, name) for tid, name in self._threads]
        self._profile.frames = self._frames.distinct
        self._profile.stacks = self._stacks.distinct
        return self._profile


_OUTCOME_OF_MARK = {f"[truncated: {outcome.value}]": outcome for outcome in Outcome if outcome.truncated} | {
    f"[{Outcome.STACK_LOST.value}]": Outcome.STACK_LOST
}
_NATIVE_OUTCOME_OF_MARK = {frame: outcome for outcome, frame in NATIVE_GAPS.items()}


def _outcome(stack: Stack) -> Outcome:
    for frame in stack:
        if frame.kind is FrameKind.MARK and frame.name in _OUTCOME_OF_MARK:
            return _OUTCOME_OF_MARK[frame.name]
    is_python = any(frame.kind is FrameKind.PYTHON for frame in stack)
    return Outcome.COMPLETE if is_python else Outcome.NOT_PYTHON


def _native_outcome(stack: Stack) -> NativeOutcome:
    marks = {frame for frame in stack if frame.kind is FrameKind.MARK}
    return next((outcome for frame, outcome in _NATIVE_OUTCOME_OF_MARK.items() if frame in marks), NativeOutcome.NONE)
