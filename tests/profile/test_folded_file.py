"""Folded stacks that this and other tools wrote, read into a profile."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.outputs.folded import write_folded
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.processes import closing_line
from pyflame_ebpf.profile import folded_file
from pyflame_ebpf.profile.file import UnusableProfileError
from pyflame_ebpf.profile.folded_file import load_folded
from pyflame_ebpf.profile.labels import spelled_back, visible
from pyflame_ebpf.profile.model import Frame, FrameKind, NativeOutcome, Outcome, Process, Profile, Stack, Thread
from tests.profiles import hostile_profile, profiles, realistic_profile

PYTHON, NATIVE, KERNEL = FrameKind.PYTHON, FrameKind.NATIVE, FrameKind.KERNEL

PERF = """\
nginx;_start;main;ngx_process_cycle;__libc_send;entry_SYSCALL_64_after_hwframe_[k];do_syscall_64_[k] 12
node;Builtins_JSEntry_[j];compute_[j];memcpy_[i] 3
python3;_start;py::handle:/srv/app.py;[unknown];[libssl.so.3] 4
(sd-pam);main 1
"""
PY_SPY = """\
process 7871:"/usr/bin/python3.11 busy.py";thread (7865): MainThread;<module> (busy.py:9);outer (busy.py:7) 25
process 7871:"/usr/bin/python3.11 busy.py";thread (7868);_run (threading.py:975);pthread_cond_wait (libc.so.6) 7
"""
AUSTIN = """\
# austin: 3.7.0
# interval: 10000
# mode: cpu

P7853;T0:7853;<frozen importlib._bootstrap>:_find_and_load:1178;/srv/busy.py:<module>:9 10081
P7853;T0:7855;/srv/busy.py:outer:7;/srv/busy.py:inner.<locals>.<genexpr>:3 14967
P7853;T0:7855;/srv/busy.py:outer:7;/srv/busy.py:inner.<locals>.<genexpr>:3 15033

# duration: 2020900
"""


def loaded(text: str, name: str = "stacks") -> Profile:
    return load_folded(io.BytesIO(text.encode("utf-8", "surrogateescape")), name)


def folded(profile: Profile, **options: Any) -> str:
    stream = io.StringIO()
    write_folded(profile, stream, OutputOptions(**options))
    return stream.getvalue()


def by_stack(profile: Profile) -> dict[Stack, int]:
    return {profile.frames_of(key.stack): count for key, count in profile.samples.items()}


@pytest.mark.parametrize("options", [{}, {"group_by": ("process", "thread")}, {"lines": True}], ids=str)
@pytest.mark.parametrize("profile", [realistic_profile(), hostile_profile()], ids=["realistic", "hostile"])
def test_what_this_profiler_wrote_is_written_again_the_same(profile: Profile, options: Any) -> None:
    text = folded(profile, **options)
    assert folded(loaded(text), **options) == text


@settings(deadline=None)
@given(profiles())
def test_no_sample_of_any_profile_is_lost_on_the_way(profile: Profile) -> None:
    if profile.total:
        assert loaded(folded(profile)).total == profile.total


def test_what_was_truncated_is_known_again() -> None:
    profile = realistic_profile()
    assert loaded(folded(profile)).outcomes() == profile.outcomes()


def test_gap_in_native_frames_is_known_again() -> None:
    text = "app (7);[native frames missing: no unwind data];f (a.py:1) 3\n"
    assert loaded(text).native_outcomes() == {NativeOutcome.NO_UNWIND_DATA: 3}


@given(st.text(alphabet=st.characters(), max_size=12))
def test_a_spelling_is_undone(text: str) -> None:
    assert spelled_back(visible(text)) == text


def test_perf_names_kernel_and_compiled_frames_by_their_suffixes() -> None:
    profile = loaded(PERF)
    assert [process.name for process in profile.processes] == ["nginx", "node", "python3", "(sd-pam)"]
    assert [process.is_python for process in profile.processes] == [False, False, True, False]
    assert list(by_stack(profile).items())[:3] == [
        (
            (
                Frame(NATIVE, "_start"),
                Frame(NATIVE, "main"),
                Frame(NATIVE, "ngx_process_cycle"),
                Frame(NATIVE, "__libc_send"),
                Frame(KERNEL, "entry_SYSCALL_64_after_hwframe"),
                Frame(KERNEL, "do_syscall_64"),
            ),
            12,
        ),
        (
            (
                Frame(NATIVE, "Builtins_JSEntry", "[jit]"),
                Frame(NATIVE, "compute", "[jit]"),
                Frame(NATIVE, "memcpy"),
            ),
            3,
        ),
        (
            (
                Frame(NATIVE, "_start"),
                Frame(PYTHON, "handle", "/srv/app.py"),
                Frame(FrameKind.MARK, "[unknown]"),
                Frame(NATIVE, "?", "libssl.so.3"),
            ),
            4,
        ),
    ]
    assert {key.kernel_mode for key in profile.samples} == {True, False}


def test_perf_with_pid_and_tid_tells_processes_and_threads_apart() -> None:
    profile = loaded("java-?/23921;run 2\njava-500/23922;run 1\nmy-app-7/7;main 4\n")
    assert [(process.name, process.pid) for process in profile.processes] == [("java", 0), ("java", 500), ("my-app", 7)]
    assert profile.threads == [Thread(23921, "java"), Thread(23922, "java"), Thread(7, "my-app")]


def test_a_hyphen_in_a_name_is_no_pid_where_other_processes_have_none() -> None:
    assert [process.name for process in loaded("worker-1;main 2\nbash;main 1\n").processes] == ["worker-1", "bash"]


def test_py_spy_names_processes_and_threads_when_asked() -> None:
    profile = loaded(PY_SPY)
    assert profile.processes == [Process(7871, "python3.11", "/usr/bin/python3.11 busy.py", "Python")]
    assert profile.threads == [Thread(7865, "MainThread"), Thread(7868, "")]
    assert by_stack(profile) == {
        (Frame(PYTHON, "<module>", "busy.py", 0, 9), Frame(PYTHON, "outer", "busy.py", 0, 7)): 25,
        (Frame(PYTHON, "_run", "threading.py", 0, 975), Frame(NATIVE, "pthread_cond_wait", "libc.so.6")): 7,
    }


def test_a_stack_that_starts_with_a_function_belongs_to_a_process_of_no_name() -> None:
    profile = loaded("<module> (busy.py:9);outer (busy.py:7) 5\n")
    assert profile.processes == [Process(0, "?", "", "Python")]
    assert folded(profile, lines=True) == "?;<module> (busy.py:9);outer (busy.py:7) 5\n"


def test_executing_lines_of_other_tools_are_told_apart_when_lines_are_asked_for() -> None:
    profile = loaded("f (a.py:3) 1\nf (a.py:4) 1\n")
    assert folded(profile) == "?;f (a.py) 2\n"
    assert folded(profile, lines=True) == "?;f (a.py:3) 1\n?;f (a.py:4) 1\n"


def test_austins_microseconds_become_samples_of_its_interval() -> None:
    profile = loaded(AUSTIN)
    assert (profile.recording.frequency, profile.recording.duration) == (100, 2.0209)
    assert profile.threads == [Thread(7853, ""), Thread(7855, "")]
    assert by_stack(profile) == {
        (
            Frame(PYTHON, "_find_and_load", "<frozen importlib._bootstrap>", 0, 1178),
            Frame(PYTHON, "<module>", "/srv/busy.py", 0, 9),
        ): 1,
        (
            Frame(PYTHON, "outer", "/srv/busy.py", 0, 7),
            Frame(PYTHON, "inner.<locals>.<genexpr>", "/srv/busy.py", 0, 3),
        ): 3,
    }


def test_what_dividing_by_the_interval_loses_goes_to_those_that_lost_most() -> None:
    lines = "".join(f"P1;T0:1;a.py:f{index}:1 {time}\n" for index, time in enumerate((900, 800, 700, 600)))
    counts = [(stack[0].name, count) for stack, count in by_stack(loaded(f"# interval: 1000\n{lines}")).items()]
    assert counts == [("f0", 1), ("f1", 1), ("f2", 1)]


@pytest.mark.parametrize(
    "line", ["P7;T8;a.py:f:3 500", "P7;T0x8;a.py:f:3 500", "Process 7;Thread 8;f (a.py:3) 500"], ids=str
)
def test_older_austins_name_threads_otherwise_and_give_no_interval(line: str) -> None:
    profile = loaded(line)
    assert (profile.recording.frequency, profile.total) == (1_000_000, 500)
    assert (profile.processes[0].pid, profile.threads) == (7, [Thread(8, "")])
    assert list(by_stack(profile)) == [(Frame(PYTHON, "f", "a.py", 0, 3),)]


def test_of_austins_full_metrics_the_time_that_was_not_idle_counts() -> None:
    text = "# mode: full\nP7;T0:8;a.py:f:3 500,0,12\nP7;T0:8;a.py:g:4 700,1,-4\n"
    assert [(stack[0].name, count) for stack, count in by_stack(loaded(text)).items()] == [("f", 500)]


def test_other_tools_stacks_without_rate_make_no_claim_of_cpu_time() -> None:
    assert closing_line(loaded(PERF)).endswith("0 lost")
    for each in OUTPUT_FORMATS.values():
        stream = io.BytesIO()
        each.write(loaded(PERF), stream, OutputOptions())
        assert not re.search(rb"\d s of CPU", stream.getvalue())
        assert stream.getvalue()


def test_whole_counts_may_be_written_as_fractions() -> None:
    assert loaded("a;b 3.0\na;c 4.\n").total == 7


def test_counts_of_the_same_stack_are_added() -> None:
    assert by_stack(loaded("a;b 3\na;b 4\n")) == {(Frame(NATIVE, "b"),): 7}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no stack in it"),
        ("\n# mode: cpu\n", "no stack in it"),
        ("text", "no count after a stack: 'text' in line 1"),
        ("a;b 3\n<svg> \x1b[31m\n", r"'\[31m|\\x1b\[31m' is not a whole number of samples in line 2"),
        ("a;b 3.5\n", "'3.5' is not a whole number"),
        ("a;b -3\n", "'-3' is not a whole number"),
        ("a;b 99999999999999999\n", "not a whole number"),
        (";; 3\n", "no frame before the count"),
        ("a;b 3 4\na;c 1 0\n", "two counts, as a comparison has"),
        ("# mode: memory\nP1;T0:1;a.py:f:1 400\n", "counts memory"),
        ("MOJ\x03", "Austin's binary format"),
        ("{\n", "no count after a stack"),
    ],
    ids=str,
)
def test_anything_else_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(UnusableProfileError, match=reason) as caught:
        loaded(text)
    assert caught.value.exit_code == 18
    assert "\x1b" not in caught.value.message


def test_a_blank_before_a_number_in_one_name_is_no_second_count() -> None:
    assert by_stack(loaded("a;thread 3 7\na;b 1\n")) == {(Frame(NATIVE, "thread 3"),): 7, (Frame(NATIVE, "b"),): 1}


@pytest.mark.parametrize(
    ("limit", "text", "reason"),
    [
        ("LINE_MAX", "a" * 20 + " 1\n", "longer than 10 bytes"),
        ("STACK_FRAMES_MAX", "".join(f"a;b;{index} 1\n" for index in range(9)), "more than 10 frames"),
        ("DISTINCT_MAX", "".join(f"a;{index} 1\n" for index in range(11)), "more than 10 names"),
        ("DISTINCT_MAX", "".join(f"a{';b' * index} 1\n" for index in range(11)), "more than 10 stacks"),
        ("COUNT_MAX", "a 9\na 9\n", "too large"),
    ],
)
def test_what_would_take_too_much_memory_is_refused(
    limit: str, text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded_file, limit, 10)
    with pytest.raises(UnusableProfileError, match=reason):
        loaded(text)


def test_a_name_counts_once_however_often_it_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded_file, "TEXTS_MAX", 10)
    assert by_stack(loaded("main;work 1\n" * 20)) == {(Frame(NATIVE, "work"),): 20}


@pytest.mark.parametrize("part", [" (", " (:", ":", " ((", "+0x", "-", "[", "_[k]", "py::", "P1", "thread ("])
@pytest.mark.parametrize("end", ["", ")", ":1)x", "]", "_[k]"])
def test_a_long_name_takes_time_in_proportion_to_its_length(part: str, end: str) -> None:
    began = time.process_time()
    loaded(f"{part * 40_000}{end} 1\ncomm;{part * 40_000}{end} 1\n")
    assert time.process_time() - began < 1


@settings(deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(
        st.sampled_from(["P1;", "T0:1;", "a (1)", ";", "_[k]", " ", "7", "\n", "a.py:f:2", "# interval: 3\n"])
    ).map(lambda parts: "".join(parts).encode())
)
def test_any_bytes_are_read_or_refused_but_never_crash(content: bytes) -> None:
    try:
        profile = load_folded(io.BytesIO(content), "noise")
    except UnusableProfileError as error:
        assert error.hint  # noqa: PT017 - either way is right
    else:
        assert {key.outcome for key in profile.samples} <= set(Outcome)
        folded(profile)
