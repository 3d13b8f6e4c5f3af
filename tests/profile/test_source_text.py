"""Which source text a profile takes along."""

from collections import Counter
from typing import Any

import pytest

from pyflame_ebpf.profile import source_text
from pyflame_ebpf.profile.model import Gil, Outcome, Process, Profile, SampleKey, Stack, Thread
from pyflame_ebpf.profile.source_text import function_text, sampled_sources
from tests.profiles import native, profile_with, python, recording

TEXT = """\
import functools

@functools.cache
@named(
    "f",
)
def f(
    a,
):
    if a:

        return 1
# a remark at the margin
    return 2

class C:
    async def g(self):
        await h()

    def last(self): return 1

total = sum(x for x in range(9))
print(total)
"""
MODULE = TEXT.split("\n")


@pytest.mark.parametrize(
    ("name", "first_line", "executed", "numbers"),
    [
        ("f", 3, {12}, [*range(3, 15)]),
        ("f", 3, set(), [*range(3, 15)]),
        ("C.g", 17, {18}, [17, 18]),
        ("C.last", 20, {20}, [20]),
        ("C", 16, {17}, [*range(16, 21)]),
        ("<module>", 1, {22}, [20, 21, 22, 23, 24]),
        ("<genexpr>", 22, {22}, [20, 21, 22, 23, 24]),
        ("C.g.<locals>.<lambda>", 18, {18}, [16, 17, 18, 19, 20]),
    ],
)
def test_a_function_is_taken_from_its_decorators_to_its_last_line(
    name: str, first_line: int, executed: set[int], numbers: Any
) -> None:
    found = function_text(MODULE, name, first_line, executed)
    assert list(found) == numbers
    assert all(found[number] == MODULE[number - 1] for number in numbers)


@pytest.mark.parametrize(
    ("name", "first_line", "executed"),
    [("renamed", 3, {12}), ("f", 1, {90}), ("f", 99, {99}), ("f", 0, {1}), ("f", 16, {16}), ("<module>", 1, {99})],
)
def test_text_that_is_not_that_of_the_function_is_left_out(name: str, first_line: int, executed: set[int]) -> None:
    assert function_text(MODULE, name, first_line, executed) == {}


def profile_of(*stacks: Stack, processes: int = 1) -> Profile:
    profile = profile_with(
        recording(), [Process(1 + index, "app") for index in range(processes)], [Thread(1, "t")], list(stacks)
    )
    for index in range(len(stacks)):
        for process in range(processes):
            key = SampleKey(0, process, 0, index, kernel_mode=False, gil=Gil.HELD, outcome=Outcome.COMPLETE)
            profile.samples[key] = index + 1 + process
    return profile


def test_only_functions_that_were_sampled_are_taken() -> None:
    profile = profile_of(
        (python("f", "/a.py", 1, 2), native("memcpy", "/lib/libc.so"), python("eval", "<string>", 1, 1))
    )
    asked = []

    def read(process: Process, file: str) -> bytes:
        asked.append((process.pid, file))
        return b"def f():\n    return 1\ndef g():\n    return 2\n"

    assert sampled_sources(profile, read) == {"/a.py": {1: "def f():", 2: "    return 1"}}
    assert asked == [(1, "/a.py")]


def test_a_process_whose_file_is_gone_or_another_leaves_it_to_the_next() -> None:
    contents = {4: b"", 3: b"def other(): pass\n", 2: b"def f():\n  return 1\n"}
    profile = profile_of((python("f", "a.py", 1, 1),), processes=4)
    found = sampled_sources(profile, lambda process, _: contents[process.pid])
    assert found == {"a.py": {1: "def f():", 2: "  return 1"}}


def test_a_file_is_read_once_for_all_its_functions() -> None:
    stacks = [(python("f", "a.py", 1, 1),), (python("g", "a.py", 2, 2),)]
    reads: Counter[str] = Counter()

    def read(process: Process, file: str) -> bytes:
        reads[file] += 1
        return b"def f(): pass\ndef g(): pass\n"

    assert len(sampled_sources(profile_of(*stacks, processes=9), read)["a.py"]) == 2
    assert reads == {"a.py": 1}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("def f(): 'é'".encode(), "def f(): 'é'"),
        ("\ufeffdef f(): 'é'".encode(), "def f(): 'é'"),
        ("def f(): 'é' # coding: latin-1".encode("latin-1"), "def f(): 'é' # coding: latin-1"),
        (b"def f(): '\xff'", "def f(): '\ufffd'"),
        (b"def f(): '\x0c\x1c'", "def f(): '\x0c\x1c'"),
        (b"def f():\r\n", "def f():"),
        (b"def f(): '\xe9'\r# -*- coding: iso-8859-1\r", "def f(): '\xe9'"),
        ("def f(): '\u2028\x85'\r".encode(), "def f(): '\u2028\x85'"),
    ],
    ids=str,
)
def test_text_is_decoded_as_the_compiler_does_or_with_marks(content: Any, text: str) -> None:
    if b"latin" in content:
        content = content.replace(b" # coding", b"\n# -*- coding")
        text = text.partition(" #")[0]
    assert sampled_sources(profile_of((python("f", "a.py", 1, 1),)), lambda *_: content)["a.py"][1] == text


@pytest.mark.parametrize(
    "content", [b"def f(): pass\n" + b"#" * (1 << 20), b"def f():\0 pass"], ids=["large", "binary"]
)
def test_what_is_too_large_or_no_text_is_left_out(content: bytes) -> None:
    assert sampled_sources(profile_of((python("f", "a.py", 1, 1),)), lambda *_: content) == {}


def test_long_lines_are_cut() -> None:
    (line,) = function_text(["def f(): " + "x" * 1000], "f", 1, {1}).values()
    assert len(line) == 400
    assert line.endswith("x…")


def test_the_hottest_functions_have_the_room_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_text, "TEXT_MAX", 20)
    stacks = [(python("cold", "c.py", 1, 1),), (python("warm", "w.py", 1, 1),), (python("hot", "h.py", 1, 1),)]
    contents = {name[0] + ".py": f"def {name}(): pass\n".encode() for name in ("cold", "warm", "hot")}
    assert set(sampled_sources(profile_of(*stacks), lambda _, file: contents[file])) == {"h.py"}


def test_files_of_many_short_lines_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_text, "READ_MAX", 5000)
    stacks = [(python("f", f"{name}.py", 1, 1),) for name in "abc"]
    reads = []

    def read(_process: Process, file: str) -> bytes:
        reads.append(file)
        return b"def f(): pass\n" + b"1\n" * 50

    sampled_sources(profile_of(*stacks), read)
    assert len(reads) == 2
