"""What a saved profile's numbers stand for, and the bounds that its reader checks."""

from __future__ import annotations

import gzip
import io
import json
from enum import Enum

import pytest

from pyflame_ebpf.profile import file_reader
from pyflame_ebpf.profile.columns import WrongContentError, indices_into
from pyflame_ebpf.profile.file import UnusableProfileError, load_profile, save_profile
from pyflame_ebpf.profile.file_layout import CLOCKS, GILS, KINDS, NATIVE_OUTCOMES, OUTCOMES
from pyflame_ebpf.profile.model import NativeOutcome, Outcome, Process, Profile, Stack, Thread
from tests.profiles import ProfileWriter, python, recording

A, B, C = (python(name, "/srv/app.py", 1, 2) for name in "abc")


def profile_of(*stacks: Stack) -> Profile:
    """A recording with one sample of each stack."""
    made = Profile(recording(), [Process(1, "web")], [Thread(1, "main")])
    writer = ProfileWriter(made)
    for stack in stacks:
        writer.add(0, 0, stack, 1)
    return made


def saved(profile: Profile) -> bytes:
    stream = io.BytesIO()
    save_profile(profile, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("choices", "texts"),
    [
        (KINDS, ["python", "native", "kernel", "mark"]),
        (GILS, ["held", "not held", "unknown"]),
        (CLOCKS, ["cpu", "off-cpu", "wall"]),
        (
            OUTCOMES,
            [
                "complete",
                "not Python",
                "process not identified yet",
                "thread state not found",
                "thread state unreadable",
                "frame unreadable",
                "code object unreadable",
                "too deep",
                "stack lost",
            ],
        ),
        (
            NATIVE_OUTCOMES,
            [
                "complete",
                "no native frames",
                "mapping not known yet",
                "unwind rows not there yet",
                "no unwind data",
                "unwind rule not supported",
                "stack unreadable",
                "stack does not advance",
                "too deep",
            ],
        ),
    ],
)
def test_the_numbers_of_old_files_stand_for_the_same_kinds(choices: list[Enum], texts: list[str]) -> None:
    assert [choice.value for choice in choices] == texts


def test_a_file_says_what_it_is() -> None:
    content = json.loads(gzip.decompress(saved(profile_of((A,)))))
    assert (content["format"], content["version"]) == ("pyflame-ebpf profile", 3)


# Five frames: a; a → b; a → c; none.
STACKS: tuple[Stack, ...] = ((A,), (A, B), (A, C), ())


def test_a_file_with_as_many_frames_as_are_allowed_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "STACK_FRAMES_MAX", 5)
    assert load_profile(io.BytesIO(saved(profile_of(*STACKS)))) == profile_of(*STACKS)


def test_a_file_with_one_frame_more_than_are_allowed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "STACK_FRAMES_MAX", 4)
    with pytest.raises(UnusableProfileError, match="more than 4 frames"):
        load_profile(io.BytesIO(saved(profile_of(*STACKS))))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_the_index_that_is_wrong_is_told(wrong: int) -> None:
    assert indices_into(3)([0, 2]) == [0, 2]
    with pytest.raises(WrongContentError, match=f"it refers to entry {wrong} of a list of 3"):
        indices_into(3)([0, 2, wrong])


def test_samples_are_added_by_outcome() -> None:
    profile = profile_of()
    writer = ProfileWriter(profile)
    writer.add(0, 0, (A,), 1, outcome=Outcome.TOO_DEEP, native=NativeOutcome.TOO_DEEP)
    writer.add(0, 0, (B,), 2, outcome=Outcome.TOO_DEEP)
    writer.add(0, 0, (C,), 4)
    assert profile.outcomes() == {Outcome.TOO_DEEP: 3, Outcome.COMPLETE: 4}
    assert profile.native_outcomes() == {NativeOutcome.TOO_DEEP: 1, NativeOutcome.NONE: 6}
