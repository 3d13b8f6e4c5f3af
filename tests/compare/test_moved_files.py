"""Which file of the earlier recording is which of the later one, where the ends of their names decide."""

from __future__ import annotations

import pytest

from pyflame_ebpf.compare.alignment import aligned
from pyflame_ebpf.profile.model import Process, Profile, Thread
from tests.profiles import ProfileWriter, framed_stacks, python, recording


def profile_of(*files: str, command: str = "python3 app.py", first_line: int = 1, line: int = 2) -> Profile:
    """A recording of one process, in which a function ``run`` of each file was sampled."""
    made = Profile(
        recording(), [Process(7, "python3", command, "CPython 3.12.4", scheduler_cpu=3.5)], [Thread(8, "main")]
    )
    for file in files:
        ProfileWriter(made).add(0, 0, (python("run", file, first_line, line),), 100)
    return made


def deep(directory: str, parts: int) -> str:
    """A file name that ends in ``parts`` parts, the first of which is ``directory``."""
    return "/".join([directory, *(f"d{number}" for number in range(parts - 2)), "views.py"])


def test_twelve_parts_of_a_name_tell_files_apart() -> None:
    before = profile_of("/old/" + deep("one", 12), "/old/" + deep("two", 12))
    after = profile_of("/new/" + deep("one", 12), "/new/" + deep("two", 12))
    assert aligned(before, after).moved == {
        "/old/" + deep("one", 12): "/new/" + deep("one", 12),
        "/old/" + deep("two", 12): "/new/" + deep("two", 12),
    }


def test_a_thirteenth_part_of_a_name_is_not_looked_at() -> None:
    before = profile_of("/old/" + deep("one", 13), "/old/" + deep("two", 13))
    after = profile_of("/new/" + deep("one", 13), "/new/" + deep("two", 13))
    assert aligned(before, after).moved == {}


def test_a_name_without_a_directory_is_the_end_of_another() -> None:
    assert aligned(profile_of("views.py"), profile_of("/srv/views.py")).moved == {"views.py": "/srv/views.py"}


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_a_name_that_every_package_has_is_no_evidence(name: str) -> None:
    assert aligned(profile_of(f"/x/{name}"), profile_of(f"/y/{name}")).moved == {}
    assert aligned(profile_of(f"/x/shop/{name}"), profile_of(f"/y/shop/{name}")).moved == {
        f"/x/shop/{name}": f"/y/shop/{name}"
    }


def test_a_file_becomes_the_one_that_agrees_in_more_parts_and_no_second_file_becomes_it() -> None:
    before = profile_of("/a/shop/views.py", "/b/views.py")
    assert aligned(before, profile_of("/c/shop/views.py")).moved == {"/a/shop/views.py": "/c/shop/views.py"}


def test_a_line_before_the_functions_first_stays_in_the_file() -> None:
    before, after = profile_of("/srv/app.py", first_line=10, line=5), profile_of("/srv/app.py", first_line=2, line=3)
    assert framed_stacks(aligned(before, after).before) == [(python("run", "/srv/app.py", 2, 1),)]


@pytest.mark.parametrize("other", ["ruby /srv/41/app.py", "/opt/41/python3 /srv/41/run.py"])
def test_commands_that_differ_in_more_than_directories_are_not_the_same(other: str) -> None:
    before, after = (
        profile_of("/srv/app.py", command=other),
        profile_of("/srv/app.py", command="python3 /srv/42/app.py"),
    )
    assert {process.command for process in aligned(before, after).before.processes} != {"python /srv/42/app.py"}


def test_processes_and_threads_of_both_lose_their_numbers() -> None:
    alike = aligned(profile_of("/srv/app.py"), profile_of("/srv/app.py"))
    for profile in (alike.before, alike.after):
        assert profile.processes == [Process(0, "python3", "python app.py", "CPython 3.12.4")]
        assert profile.threads == [Thread(0, "main")]
