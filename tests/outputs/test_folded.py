"""Labels and folded stacks."""

import io
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.outputs.folded import folded_name, write_folded
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile.labels import frame_label, short_files, visible
from pyflame_ebpf.profile.model import (
    NATIVE_GAPS,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    SampleKey,
    Stack,
    Thread,
)
from tests.profiles import (
    HOSTILE_NAMES,
    hostile_profile,
    kernel,
    mark,
    native,
    profile_with,
    profiles,
    python,
    realistic_profile,
    recording,
)

FILES = st.lists(st.sampled_from(["", "a", "b", "a.py", "__init__.py", "python3.11", "site-packages"]), min_size=1).map(
    "/".join
)


def folded(profile: Profile, **options: Any) -> str:
    stream = io.StringIO()
    write_folded(profile, stream, OutputOptions(**options))
    return stream.getvalue()


def parsed(text: str) -> dict[str, int]:
    """Read as flamegraph.pl does, differential form refused."""
    lines = {}
    for line in text.removesuffix("\n").split("\n") if text else []:
        ((stack, count),) = re.findall(r"\A(.*)\s+?(\d+(?:\.\d*)?)\Z", line)
        assert not re.fullmatch(r"(.*)\s+?(\d+(?:\.\d*)?)", stack)
        assert stack not in lines
        lines[stack] = int(count)
    return lines


def one_sample(*stacks: Stack) -> Profile:
    keys = [SampleKey(0, 0, 0, index, False, Gil.HELD, Outcome.COMPLETE) for index in range(len(stacks))]
    return profile_with(recording(), [Process(7, "app")], [Thread(8, "pool")], list(stacks), Counter(keys))


STACK = (
    native("main", "/usr/bin/python3.11"),
    python("C.f", "/srv/app/c.py", 3, 5),
    python("g", "/usr/lib/python3.11/json/decoder.py", 9, 12),
    native("libz.so.1+0x1f", "/lib/libz.so.1"),
    kernel("do_syscall_64"),
)


def test_a_line_names_process_and_frames_from_the_root() -> None:
    assert (
        folded(one_sample(STACK))
        == "app (7);main (python3.11);C.f (app/c.py:3);g (json/decoder.py:9);libz.so.1+0x1f;do_syscall_64_[k] 1\n"
    )


def test_lines_threads_and_no_kernel_change_the_labels_only() -> None:
    assert (
        folded(one_sample(STACK), lines=True, group_by=("process", "thread"), kernel=False)
        == "app (7);pool (8);main (python3.11);C.f (app/c.py:5);g (json/decoder.py:12);libz.so.1+0x1f 1\n"
    )


MIXED = (
    native("_start", "/usr/bin/python"),
    native("_PyEval_EvalFrameDefault", "/usr/bin/python", plumbing=True),
    python("f", "/srv/app/c.py", 3, 5),
    native("loop", "/usr/bin/python", plumbing=True),
    native("scan", "/usr/lib/_json.so"),
    kernel("tick"),
)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "_start (python);f (app/c.py:3);scan (_json.so);tick_[k]"),
        ({"native": False}, "f (app/c.py:3);tick_[k]"),
        ({"native": False, "all_frames": True}, "f (app/c.py:3);tick_[k]"),
        ({"python_only": True}, "f (app/c.py:3)"),
        ({"python_only": True, "all_frames": True}, "f (app/c.py:3)"),
        (
            {"all_frames": True},
            "_start (python);_PyEval_EvalFrameDefault (python);f (app/c.py:3);loop (python);scan (_json.so);tick_[k]",
        ),
    ],
    ids=str,
)
def test_native_and_plumbing_frames_are_shown_as_asked_for(options: Any, line: str) -> None:
    assert folded(one_sample(MIXED), **options) == f"app (7);{line} 1\n"


def test_gap_in_native_frames_is_said_where_they_are_shown() -> None:
    stack = (NATIVE_GAPS[NativeOutcome.PAGE_MISS], *MIXED[2:])
    assert folded(one_sample(stack)).startswith("app (7);[native frames missing: unwind rows not there yet];f (")
    assert folded(one_sample(stack), native=False) == "app (7);f (app/c.py:3);tick_[k] 1\n"
    assert folded(one_sample(stack), python_only=True) == "app (7);f (app/c.py:3) 1\n"


def test_gap_in_python_frames_is_said_whatever_is_shown() -> None:
    stack = (mark("[truncated: too deep]"), *MIXED[2:])
    assert folded(one_sample(stack), python_only=True) == "app (7);[truncated: too deep];f (app/c.py:3) 1\n"


def test_stack_of_which_nothing_is_shown_still_counts() -> None:
    assert folded(one_sample(MIXED[:2]), python_only=True) == "app (7) 1\n"


def test_a_mark_stays_as_it_is() -> None:
    assert folded(one_sample((mark("[truncated: too deep]"),))) == "app (7);[truncated: too deep] 1\n"


def test_stack_of_which_nothing_is_shown_has_a_name_when_it_is_grouped_by_nothing() -> None:
    assert folded(one_sample(MIXED[:2]), python_only=True, group_by=()) == "[no frame is shown] 1\n"


@pytest.mark.parametrize(
    ("group_by", "owners"),
    [
        ((), ""),
        (("host",), "web-1;"),
        (("interpreter",), "CPython 3.12.4;"),
        (("command",), "app --port\\xa080;"),
        (("process",), "app (7);"),
        (("thread",), "pool (8);"),
        (("command", "thread"), "app --port\\xa080;pool (8);"),
        (("thread", "process"), "pool (8);app (7);"),
    ],
    ids=str,
)
def test_stacks_are_grouped_by_what_is_asked_for_in_that_order(group_by: tuple[str, ...], owners: str) -> None:
    profile = one_sample((python("f", "a.py", 1, 1),))
    profile.processes = [Process(7, "app", "app --port\xa080", "CPython 3.12.4")]
    assert folded(profile, group_by=group_by) == f"{owners}f (a.py:1) 1\n"


def test_processes_of_one_command_are_summed_when_grouped_by_it() -> None:
    keys = [SampleKey(0, process, 0, 0, False, Gil.HELD, Outcome.COMPLETE) for process in (0, 1)]
    processes = [Process(7, "app", "app"), Process(9, "app", "app")]
    profile = profile_with(recording(), processes, [Thread(8, "pool")], [(python("f", "a.py", 1, 1),)], Counter(keys))
    assert folded(profile, group_by=("command",)) == "app;f (a.py:1) 2\n"


def test_what_has_no_interpreter_is_grouped_as_not_python() -> None:
    assert folded(one_sample((native("main"),)), group_by=("interpreter",)) == "not Python;main 1\n"


def test_stacks_that_read_the_same_are_merged() -> None:
    stacks = [(python("f", "a.py", 1, line),) for line in (2, 3)]
    assert folded(one_sample(*stacks)) == "app (7);f (a.py:1) 2\n"


def test_lines_are_sorted() -> None:
    lines = folded(realistic_profile()).splitlines()
    assert lines == sorted(lines, key=lambda line: line.rpartition(" ")[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"group_by": ()},
        {"group_by": ("host", "interpreter", "command", "process", "thread")},
        *({name: name != "kernel"} for name in ("lines", "kernel", "python_only", "all_frames")),
    ],
    ids=str,
)
def test_the_counts_add_up_to_all_samples(options: Any) -> None:
    profile = realistic_profile()
    assert sum(parsed(folded(profile, **options)).values()) == profile.total


def test_no_hostile_name_breaks_the_format() -> None:
    profile = hostile_profile()
    text = folded(profile, group_by=("process", "thread"))
    assert text.replace("\n", "").isprintable()
    lines = parsed(text)
    assert sum(lines.values()) == profile.total
    depths = {len(stack.split(";")) for stack in lines}
    assert depths == {3, 8}


@settings(deadline=None)
@given(profiles())
def test_any_profile_reads_back_with_all_its_samples(profile: Profile) -> None:
    assert sum(parsed(folded(profile)).values()) == profile.total


def unescaped(text: str) -> str:
    text = text.replace(r"\\", "\\x5c")
    return re.sub(r"\\(?:x(..)|u(....)|U(.{8}))", lambda found: chr(int(next(filter(None, found.groups())), 16)), text)


@given(st.text(alphabet=st.characters(), max_size=12) | st.sampled_from(HOSTILE_NAMES))
def test_what_is_made_visible_can_be_undone(text: str) -> None:
    assert visible(text).isprintable()
    assert unescaped(visible(text)) == text
    assert unescaped(folded_name(visible(text))) == text


@pytest.mark.parametrize("name", ["[truncated: too deep]", "spoofed_[k]", "[x]_[k]"])
def test_a_native_symbol_cannot_pass_for_a_mark_or_a_kernel_frame(name: str) -> None:
    text = frame_label(native(name), {}, lines=False).text
    assert not text.startswith("[")
    assert not text.endswith("_[k]")


def test_files_keep_their_directory_and_lose_the_rest() -> None:
    assert short_files(["/usr/lib/python3.11/json/decoder.py", "/srv/app/utils.py", "/srv/app/__init__.py"]) == {
        "/usr/lib/python3.11/json/decoder.py": "json/decoder.py",
        "/srv/app/utils.py": "app/utils.py",
        "/srv/app/__init__.py": "app/__init__.py",
    }


def test_a_module_directly_in_a_library_directory_is_its_base_name() -> None:
    assert short_files(["/usr/lib/python3.11/threading.py", "/v/site-packages/six.py"]) == {
        "/usr/lib/python3.11/threading.py": "threading.py",
        "/v/site-packages/six.py": "six.py",
    }


def test_files_that_would_read_the_same_keep_more() -> None:
    assert short_files(["/usr/lib/python3.11/json/decoder.py", "/usr/lib/python3.12/json/decoder.py"]) == {
        "/usr/lib/python3.11/json/decoder.py": "python3.11/json/decoder.py",
        "/usr/lib/python3.12/json/decoder.py": "python3.12/json/decoder.py",
    }


def test_names_without_a_directory_stay() -> None:
    names = ["<string>", "<frozen importlib._bootstrap>", "app.py", "/app.py"]
    assert short_files(names) == {name: name for name in names}


@given(st.lists(FILES))
def test_short_files_are_endings_and_tell_all_files_apart(files: list[str]) -> None:
    short = short_files(files)
    assert all(file.endswith(name) for file, name in short.items())
    assert len(set(short.values())) == len(set(files))
