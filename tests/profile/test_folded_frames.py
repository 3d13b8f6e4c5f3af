"""What single names in folded stacks mean, by the tool that wrote them."""

from __future__ import annotations

import pytest

from pyflame_ebpf.profile.folded_frames import (
    OWNERS,
    AustinFrames,
    AustinProcess,
    Frames,
    NamedProcess,
    Owner,
    OwnFrames,
    OwnProcess,
    PerfProcess,
    PySpyProcess,
)
from pyflame_ebpf.profile.model import Frame, FrameKind

PYTHON, NATIVE, KERNEL, MARK = FrameKind.PYTHON, FrameKind.NATIVE, FrameKind.KERNEL, FrameKind.MARK


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        # a suffix in brackets tells the kind
        ("do_syscall_64_[k]", Frame(KERNEL, "do_syscall_64")),
        ("nft_do_chain [nf_tables]_[k]", Frame(KERNEL, "nft_do_chain", "nf_tables")),
        ("a [b] [c]_[k]", Frame(KERNEL, "a [b]", "c")),
        ("[c]_[k]", Frame(KERNEL, "[c]")),
        ("a [b] c_[k]", Frame(KERNEL, "a [b] c")),
        ("compute_[j]", Frame(NATIVE, "compute", "[jit]")),
        ("memcpy_[i]", Frame(NATIVE, "memcpy")),
        ("memcpy_[0]", Frame(NATIVE, "memcpy")),
        ("f (a.py:3)_[i]", Frame(NATIVE, "f (a.py:3)")),
        ("a_[x]", Frame(NATIVE, "a_[x]")),
        ("a_[k]b", Frame(NATIVE, "a_[k]b")),
        ("_[k]", Frame(NATIVE, "_[k]")),
        # CPython's own perf support
        ("py::handle:/srv/app.py", Frame(PYTHON, "handle", "/srv/app.py")),
        ("py::a:b:/srv/app.py", Frame(PYTHON, "a:b", "/srv/app.py")),
        ("py::a:b:", Frame(NATIVE, "py::a:b:")),
        ("py::handle", Frame(NATIVE, "py::handle")),
        ("py::handle:", Frame(NATIVE, "py::handle:")),
        ("xpy::handle:/srv/app.py", Frame(NATIVE, "xpy::handle:/srv/app.py")),
        # function (file:line)
        ("f (a.py:3)", Frame(PYTHON, "f", "a.py", 0, 3)),
        ("f (c:a.py:3)", Frame(PYTHON, "f", "c:a.py", 0, 3)),
        ("f (g) (a.py:3)", Frame(PYTHON, "f (g)", "a.py", 0, 3)),
        (" (a.py:3)", Frame(PYTHON, "", "a.py", 0, 3)),
        ("f (a.py:123456789)", Frame(PYTHON, "f", "a.py", 0, 123_456_789)),
        ("f (a.py:1234567890)", Frame(NATIVE, "f", "a.py:1234567890")),
        ("f (a.py:x)", Frame(NATIVE, "f", "a.py:x")),
        ("f (a.py:3) x", Frame(NATIVE, "f (a.py:3) x")),
        ("f(a.py:3)", Frame(NATIVE, "f(a.py:3)")),
        # brackets around the whole
        ("[unknown]", Frame(MARK, "[unknown]")),
        ("[libssl.so.3]", Frame(NATIVE, "?", "libssl.so.3")),
        ("[open", Frame(NATIVE, "[open")),
        ("close]", Frame(NATIVE, "close]")),
        # a symbol with its file
        ("malloc (libc.so.6)", Frame(NATIVE, "malloc", "libc.so.6")),
        ("f (g) (libc.so.6)", Frame(NATIVE, "f (g)", "libc.so.6")),
        ("f (a (b))", Frame(NATIVE, "f (a (b))")),
        ("f (a.py)", Frame(PYTHON, "f", "a.py")),
        ("f (a.pyx)", Frame(PYTHON, "f", "a.pyx")),
        ("f (a.py.so)", Frame(NATIVE, "f", "a.py.so")),
        ("f (<string>)", Frame(PYTHON, "f", "<string>")),
        ("f (a<string>)", Frame(NATIVE, "f", "a<string>")),
        # no symbol, but a place in a file
        ("libz.so.1+0x12ab", Frame(NATIVE, "libz.so.1+0x12ab", "libz.so.1")),
        ("libz.so.1+0x12abz", Frame(NATIVE, "libz.so.1+0x12abz")),
        ("+0x12", Frame(NATIVE, "+0x12")),
        ("main", Frame(NATIVE, "main")),
        ("a\\x41", Frame(NATIVE, "a\\x41")),
    ],
)
def test_a_name_of_any_tool_is_a_frame(name: str, frame: Frame) -> None:
    assert Frames().frame(name) == frame


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("f (a.py:3)", Frame(PYTHON, "f", "a.py", 3, 3)),
        ("f\\x3b (a\\x20.py:3)", Frame(PYTHON, "f;", "a .py", 3, 3)),
        ("f\\x3b (a\\x20.py)", Frame(PYTHON, "f;", "a .py")),
        ("a\\x3b [b\\x20]_[k]", Frame(KERNEL, "a;", "b ")),
        ("malloc\\x20 (lib\\x3b)", Frame(NATIVE, "malloc ", "lib;")),
        ("main\\x20", Frame(NATIVE, "main ")),
        ("lib\\x3b+0x1f", Frame(NATIVE, "lib;+0x1f", "lib;")),
        ("[truncated: too\\x20deep]", Frame(MARK, "[truncated: too deep]")),
        ("[unknown]", Frame(MARK, "[unknown]")),
        ("f\\U0010ffff", Frame(NATIVE, "f\U0010ffff")),
        ("f\\U00110000", Frame(NATIVE, "f\\U00110000")),
        ("f\\Uffffffff (a.py:3)", Frame(PYTHON, "f\\Uffffffff", "a.py", 3, 3)),
    ],
)
def test_a_name_of_this_profiler_has_its_spelling_undone_and_the_functions_first_line(name: str, frame: Frame) -> None:
    assert OwnFrames().frame(name) == frame


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("/srv/a.py:f:3", Frame(PYTHON, "f", "/srv/a.py", 0, 3)),
        ("a.py:f:0", Frame(PYTHON, "f", "a.py", 0, 0)),
        ("a.py:f:1", Frame(PYTHON, "f", "a.py", 0, 1)),
        ("a.py:f:-1", Frame(PYTHON, "f", "a.py", 0, 0)),
        ("a.py::3", Frame(PYTHON, "", "a.py", 0, 3)),
        ("c:a.py:f:3", Frame(PYTHON, "f", "c:a.py", 0, 3)),
        ("a.py:f:123456789", Frame(PYTHON, "f", "a.py", 0, 123_456_789)),
        ("a.py:f:1234567890", Frame(NATIVE, "a.py:f:1234567890")),
        ("a.py:f:3x", Frame(NATIVE, "a.py:f:3x")),
        ("f (a.py:3)", Frame(PYTHON, "f", "a.py", 0, 3)),
        ("malloc_[k]", Frame(KERNEL, "malloc")),
    ],
)
def test_a_name_of_austin_is_file_function_and_line(name: str, frame: Frame) -> None:
    assert AustinFrames().frame(name) == frame


def test_each_tool_knows_its_own_processes() -> None:
    assert [OwnFrames.owner(root) for root in ("app (7)", "P7")] == [True, False]
    assert [AustinFrames.owner(root) for root in ("app (7)", "P7")] == [False, True]


@pytest.mark.parametrize(
    ("owner", "fitting", "other"),
    [
        (OwnProcess, ["app (7)", " (7)", "a (b) (123456789)"], ["app (1234567890)", "app (7) x", "app (7", "app(7)"]),
        (AustinProcess, ["P7", "Process 7", "P123456789"], ["P", "P1234567890", "P7x", "xP7", "Process7"]),
        (
            PySpyProcess,
            ["process 7", 'process 7:"a b"', 'process 7:""', "thread (7)", "thread (7): a"],
            [
                "process 7x",
                'process 7:"a"x',
                "process 7:a",
                "process 1234567890",
                "thread (7)x",
                "thread 7",
                "xthread (7)",
            ],
        ),
        (
            PerfProcess,
            ["a-7", "a-?", "a-7/8", "a-?/8", "a-7/?", "-7", "a-b-7"],
            ["a-", "a-7/", "a-7x", "a", "a-1234567890"],
        ),
        (
            NamedProcess,
            ["main", "(sd-pam)", "a(b)", " (b)", "a (b", "f_[k]x", "xpy::f"],
            ["f (a)", "a (b)c)", "do_syscall_64_[k]", "py::f:a"],
        ),
        (Owner, ["", "main", "do_syscall_64_[k]"], []),
    ],
)
def test_an_owner_is_known_by_the_first_name(owner: type[Owner], fitting: list[str], other: list[str]) -> None:
    assert [root for root in fitting if not owner.fits(root)] == []
    assert [root for root in other if owner.fits(root)] == []


@pytest.mark.parametrize(
    ("kind", "names", "owner"),
    [
        (OwnProcess, ["app (7)", "pool (8)"], Owner(7, "app", "", 8, "pool", 2)),
        (OwnProcess, ["app\\x3b (7)", "pool\\x20 (8)"], Owner(7, "app;", "", 8, "pool ", 2)),
        (OwnProcess, ["app (7)", "f (a.py:3)"], Owner(7, "app", taken=1)),
        (OwnProcess, ["app (7)"], Owner(7, "app", taken=1)),
        (OwnProcess, ["app (7)", "pool (8) x"], Owner(7, "app", taken=1)),
        (OwnProcess, ["app (7)", "x\npool (8)"], Owner(7, "app", taken=1)),
        (OwnProcess, ["app"], Owner()),
        (OwnProcess, ["app (7) x"], Owner()),
        (OwnProcess, ["x\napp (7)"], Owner()),
        (AustinProcess, ["P7", "T0:8"], Owner(7, tid=8, taken=2)),
        (AustinProcess, ["P7", "T8"], Owner(7, tid=8, taken=2)),
        (AustinProcess, ["P7", "T0x10"], Owner(7, tid=16, taken=2)),
        (AustinProcess, ["P7", "T1:0x10"], Owner(7, tid=16, taken=2)),
        (AustinProcess, ["P7", "Tff"], Owner(7, tid=255, taken=2)),
        (AustinProcess, ["P7", "T" + "f" * 16], Owner(7, tid=(1 << 64) - 1, taken=2)),
        (AustinProcess, ["P7", "T" + "f" * 17], Owner(7, taken=1)),
        (AustinProcess, ["Process 7", "Thread 10"], Owner(7, tid=10, taken=2)),
        (AustinProcess, ["P7", "a.py:f:3"], Owner(7, taken=1)),
        (AustinProcess, ["P7"], Owner(7, taken=1)),
        (AustinProcess, ["P7", "T8 x"], Owner(7, taken=1)),
        (AustinProcess, ["P7", "xT8"], Owner(7, taken=1)),
        (AustinProcess, ["P7x"], Owner(0, taken=1)),
        (AustinProcess, ["xP7"], Owner(0, taken=1)),
        (
            PySpyProcess,
            ['process 7:"/usr/bin/python3.11 a.py /b"', "thread (8): Main"],
            Owner(7, "python3.11", "/usr/bin/python3.11 a.py /b", 8, "Main", 2),
        ),
        (PySpyProcess, ['process 7:"python3 a.py"', "thread (8)"], Owner(7, "python3", "python3 a.py", 8, "", 2)),
        (PySpyProcess, ["process 7", "f (a.py:3)"], Owner(7, taken=1)),
        (PySpyProcess, ['process 7:"python3"'], Owner(7, "python3", "python3", taken=1)),
        (PySpyProcess, ["thread (8): Main", "thread (9): f"], Owner(0, "", "", 8, "Main", 1)),
        (PySpyProcess, ["thread (8)"], Owner(0, "", "", 8, "", 1)),
        (PySpyProcess, ["process 7", "thread (8)x"], Owner(7, taken=1)),
        (PySpyProcess, ["process 7", "xthread (8)"], Owner(7, taken=1)),
        (PySpyProcess, ["process 7x"], Owner(0, taken=1)),
        (PySpyProcess, ["xprocess 7"], Owner(0, taken=1)),
        (PerfProcess, ["java-7x"], Owner()),
        (PerfProcess, ["x\njava-7"], Owner()),
        (PerfProcess, ["java-7", "run"], Owner(7, "java", taken=1)),
        (PerfProcess, ["java-7/8", "run"], Owner(7, "java", "", 8, "java", 1)),
        (PerfProcess, ["java-?/8"], Owner(0, "java", "", 8, "java", 1)),
        (PerfProcess, ["java-7/?"], Owner(7, "java", taken=1)),
        (PerfProcess, ["my-app-7"], Owner(7, "my-app", taken=1)),
        (PerfProcess, ["java"], Owner()),
        (NamedProcess, ["main", "run"], Owner(name="main", taken=1)),
        (Owner, ["f (a.py:3)"], Owner()),
    ],
)
def test_an_owner_is_made_of_the_first_names(kind: type[Owner], names: list[str], owner: Owner) -> None:
    made = kind.of(names)
    assert (made.pid, made.name, made.command, made.tid, made.thread, made.taken) == (
        owner.pid,
        owner.name,
        owner.command,
        owner.tid,
        owner.thread,
        owner.taken,
    )


def test_an_owner_is_unknown_and_takes_no_name_unless_it_is_told() -> None:
    owner = Owner()
    assert (owner.pid, owner.name, owner.command, owner.tid, owner.thread, owner.taken) == (0, "", "", 0, "", 0)


def test_the_most_telling_way_of_naming_processes_is_tried_first_and_one_fits_always() -> None:
    assert (OwnProcess, AustinProcess, PySpyProcess, PerfProcess, NamedProcess, Owner) == OWNERS
