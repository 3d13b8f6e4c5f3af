"""What is one and the same in two recordings, though it was edited, moved or restarted between them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from pyflame_ebpf.compare.alignment import aligned, command_of, side_by_side
from pyflame_ebpf.compare.comparison import Changes, compare
from pyflame_ebpf.profile.model import Process, Profile, Stack, Thread
from tests.profiles import ProfileWriter, framed_stacks, profiles, python, recording


def profile_of(
    *stacks: Stack, command: str = "python3 app.py", interpreter: str = "CPython 3.12.4", pid: int = 7
) -> Profile:
    made = Profile(recording(), [Process(pid, "python3", command, interpreter)], [Thread(pid, "python3")])
    for stack in stacks:
        ProfileWriter(made).add(0, 0, stack, 100)
    return made


def spelled(before: Profile, after: Profile) -> list[Stack]:
    return framed_stacks(aligned(before, after).before)


def subjects(changes: Changes) -> list[tuple[str, str, int]]:
    return [(row.subject.name, row.subject.file, row.subject.line) for row in changes.rows]


def test_a_function_that_an_edit_moved_is_the_same_and_so_are_its_lines() -> None:
    before = profile_of((python("foo", "/srv/app.py", 10, 12),))
    after = profile_of((python("foo", "/srv/app.py", 25, 27),))
    comparison = compare(before, after)
    assert subjects(comparison.functions) == [("foo", "/srv/app.py", 0)]
    assert subjects(comparison.lines) == [("foo", "/srv/app.py", 27)]


def test_functions_of_one_name_in_one_file_keep_their_own_lines() -> None:
    before = profile_of((python("<lambda>", "/srv/app.py", 10, 10),), (python("<lambda>", "/srv/app.py", 11, 11),))
    after = profile_of((python("<lambda>", "/srv/app.py", 25, 25),))
    assert {frame.line for stack in spelled(before, after) for frame in stack} == {10, 11}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/srv/releases/41/shop/views.py", "/srv/releases/42/shop/views.py"),
        ("/srv/releases/41/app.py", "/srv/releases/42/app.py"),
        ("/usr/lib/python3.11/threading.py", "/opt/python/lib/python3.12/threading.py"),
        ("/usr/lib/python3.11/json/__init__.py", "/usr/lib/python3.12/json/__init__.py"),
    ],
)
def test_a_file_that_moved_is_the_same(old: str, new: str) -> None:
    alike = aligned(profile_of((python("run", old, 1, 2),)), profile_of((python("run", new, 1, 2),)))
    assert alike.moved == {old: new}
    assert framed_stacks(alike.before) == framed_stacks(alike.after)


def test_a_file_is_not_taken_for_one_that_has_none_of_its_functions() -> None:
    old, new = profile_of((python("a", "/x/views.py", 1, 2),)), profile_of((python("b", "/y/views.py", 1, 2),))
    assert aligned(old, new).moved == {}


def test_a_file_is_not_taken_for_one_of_two_that_end_alike() -> None:
    old = profile_of((python("run", "/x/views.py", 1, 2),))
    new = profile_of((python("run", "/y/views.py", 1, 2),), (python("run", "/z/views.py", 1, 2),))
    assert aligned(old, new).moved == {}


def test_a_file_that_is_in_both_is_never_taken_for_another() -> None:
    both = python("run", "/srv/a/views.py", 1, 2)
    old = profile_of((both,))
    new = profile_of((both,), (python("run", "/srv/b/views.py", 1, 2),))
    assert aligned(old, new).moved == {}


@pytest.mark.parametrize(
    ("process", "command"),
    [
        (Process(1, "python3", "/usr/bin/python3.11 app.py", "CPython 3.11.2"), "python app.py"),
        (Process(1, "python3", "/opt/bin/python3.14t -m app", "CPython 3.14.0"), "python -m app"),
        (Process(1, "python3", "python3 app.py"), "python3 app.py"),  # no interpreter was found in it
        (Process(1, "nginx", "nginx: worker process"), "nginx: worker process"),
        (Process(1, "sh", "/bin/sh -c true"), "sh -c true"),
        (Process(1, "gone"), "gone"),
        (Process(1, "kworker/3:1"), "kworker"),
        (Process(1, "/"), "/"),
    ],
)
def test_a_process_is_known_by_what_it_runs(process: Process, command: str) -> None:
    assert command_of(process) == command


def test_processes_are_matched_by_command_and_not_by_pid() -> None:
    frame = python("run", "/srv/app.py", 1, 2)
    before = profile_of((frame,), pid=7, command="/usr/bin/python3 app.py")
    after = profile_of((frame,), pid=8, command="/opt/bin/python3.13 app.py", interpreter="CPython 3.13.0")
    assert subjects(compare(before, after).processes) == [("python app.py", "", 0)]


def test_commands_that_differ_in_directories_only_are_the_same() -> None:
    frame = python("run", "/srv/app.py", 1, 2)
    before = profile_of((frame,), command="python3 /srv/releases/41/app.py --workers 2")
    after = profile_of((frame,), command="python3 /srv/releases/42/app.py --workers 2")
    assert subjects(compare(before, after).processes) == [("python /srv/releases/42/app.py --workers 2", "", 0)]


def test_commands_that_differ_in_more_than_directories_are_two() -> None:
    frame = python("run", "/srv/app.py", 1, 2)
    before = profile_of((frame,), command="python3 /srv/41/mail.py --data /srv/41/x")
    after = profile_of((frame,), command="python3 /srv/42/shop.py --data /srv/42/x")
    assert len(compare(before, after).processes.rows) == 2


def test_aligned_processes_and_threads_have_no_numbers() -> None:
    frame = python("run", "/srv/app.py", 1, 2)
    alike = aligned(profile_of((frame,), pid=7), profile_of((frame,), pid=8))
    for side in (alike.before, alike.after):
        assert [(process.pid, process.command, process.scheduler_cpu) for process in side.processes] == [
            (0, "python app.py", None)
        ]
        assert side.threads == [Thread(0, "python3")]


def test_frames_that_become_alike_are_one_frame() -> None:
    before = profile_of((python("f", "/srv/app.py", 10, 3),), (python("f", "/srv/app.py", 10, 4),))
    alike = aligned(before, profile_of((python("f", "/srv/app.py", 1, 1),))).before
    assert alike.frames == [python("f", "/srv/app.py", 1, 1)]
    assert alike.stacks == [(0,), (0,)]


def test_side_by_side_both_have_the_same_lists_and_their_own_samples() -> None:
    run, other = python("run", "/srv/app.py", 1, 2), python("other", "/srv/app.py", 9, 9)
    alike = aligned(profile_of((run,), (run, other)), profile_of((other, run), command="python3 b.py"))
    before, after = side_by_side(alike.before, alike.after)
    assert before.frames == after.frames == [run, other]
    assert framed_stacks(before) == framed_stacks(after) == [(run,), (run, other), (other, run)]
    assert [(process.name, process.command) for process in before.processes] == [
        ("python app.py", "python app.py"),
        ("python b.py", "python b.py"),
    ]
    assert (after.processes, after.threads) == (before.processes, [Thread(0, "python3")])
    assert before.threads == after.threads
    found = [
        [(key.process, key.thread, key.stack, count) for key, count in side.samples.items()] for side in (before, after)
    ]
    assert found == [[(0, 0, 0, 100), (0, 0, 1, 100)], [(1, 0, 2, 100)]]


@settings(max_examples=40, deadline=None)
@given(profiles(), profiles())
def test_samples_are_neither_lost_nor_made(before: Profile, after: Profile) -> None:
    alike = aligned(before, after)
    assert (alike.before.samples, alike.after.samples) == (before.samples, after.samples)
    for profile, was in ((alike.before, before), (alike.after, after)):
        assert all(len(profile.frames_of(key.stack)) == len(was.frames_of(key.stack)) for key in profile.samples)
