"""What a profile may name and count: products that outputs would spell out are refused before they begin."""

from __future__ import annotations

import io
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from pyflame_ebpf.profile import size_limits
from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.file import UnusableProfileError, load_profile, save_profile
from pyflame_ebpf.profile.folded_file import load_folded
from pyflame_ebpf.profile.model import Frame, FrameKind, Gil, Outcome, Process, Profile, SampleKey, Thread
from pyflame_ebpf.profile.size_limits import check_size, check_texts
from tests.altered_profiles import altered, document, packed
from tests.profiles import realistic_profile, recording, wide_profile


def profile_of(*, stacks: int = 1, depth: int = 1, threads: int = 1, seconds: int = 1, name: str = "f") -> Profile:
    """Each stack in each thread in each second."""
    frame = Frame(FrameKind.NATIVE, name)
    made = Profile(recording(), [Process(1, "web")], [Thread(each, "t") for each in range(threads)], [frame])
    made.stacks = [(0,) * depth] * stacks
    made.samples = Counter(
        SampleKey(second, 0, thread, stack, False, Gil.UNKNOWN, Outcome.NOT_PYTHON)
        for second in range(seconds)
        for thread in range(threads)
        for stack in range(stacks)
    )
    return made


@pytest.mark.parametrize(
    ("limit", "within", "beyond", "reason"),
    [
        (("STACK_FRAMES_MAX", 20), {"stacks": 4, "depth": 5}, {"stacks": 3, "depth": 7}, "more than 20 frames"),
        (("THREAD_FRAMES_MAX", 20), {"threads": 4, "depth": 5}, {"threads": 3, "depth": 7}, "20 frames in its threads"),
        (("THREAD_FRAMES_MAX", 20), {"seconds": 50, "depth": 5}, {"threads": 21}, "20 frames in its threads"),
        (("SECOND_FRAMES_MAX", 20), {"seconds": 4, "depth": 5}, {"seconds": 3, "depth": 7}, "20 frames in its samples"),
        (("CHARACTERS_MAX", 400), {"depth": 6}, {"depth": 7}, "400 characters in its stacks"),
        (("CHARACTERS_MAX", 400), {"name": "f" * 300}, {"name": "f" * 350}, "400 characters in its stacks"),
        (("CHARACTERS_MAX", 400), {"name": "é" * 20}, {"name": "é" * 30}, "400 characters in its stacks"),
        (("SAMPLES_MAX", 20), {"seconds": 20}, {"seconds": 21}, "its samples are more than 20"),
    ],
)
def test_the_parts_of_a_profile_count_as_often_as_outputs_spell_them_out(
    limit: tuple[str, int], within: dict[str, Any], beyond: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_limits, *limit)
    check_size(profile_of(**within))
    with pytest.raises(WrongContentError, match=reason):
        check_size(profile_of(**beyond))


def test_processes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "PROCESSES_MAX", 3)
    check_size(replace(realistic_profile(), processes=realistic_profile().processes[:3], samples=Counter()))
    with pytest.raises(WrongContentError, match="more than 3 processes"):
        check_size(realistic_profile())


def test_texts_are_limited_each_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "TEXT_MAX", 10)
    monkeypatch.setattr(size_limits, "TEXTS_MAX", 15)
    check_texts(["a" * 10, "b" * 5])
    with pytest.raises(WrongContentError, match="a text has more than 10 characters"):
        check_texts(["a" * 11])
    with pytest.raises(WrongContentError, match="its texts have more than 15 characters"):
        check_texts(["a" * 10, "b" * 6])


@pytest.mark.parametrize("place", [("texts", 0), ("recording", "host"), ("sources", "text", 0)])
def test_every_text_of_a_file_is_counted(place: tuple[str | int, ...]) -> None:
    content = altered(document(realistic_profile()), place, "a" * ((1 << 20) + 1))
    with pytest.raises(UnusableProfileError, match="a text has more than 1,048,576 characters"):
        load_profile(io.BytesIO(packed(content)))


def test_folded_stacks_have_the_limits_of_saved_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "CHARACTERS_MAX", 500)
    with pytest.raises(UnusableProfileError, match=r"500 characters in its stacks\.$"):
        load_folded(io.BytesIO(b"".join(b"main;work%d 1\n" % index for index in range(9))), "stacks")


def test_a_stack_of_a_million_frames_is_read_from_folded_stacks_only_if_its_line_is_short() -> None:
    with pytest.raises(UnusableProfileError, match="a line is longer"):
        load_folded(io.BytesIO(b"a;" * 1_000_000 + b"a 1\n"), "stacks")
    (stack,) = load_folded(io.BytesIO(b"a;" * 500_000 + b"a 1\n"), "stacks").stacks
    assert len(stack) == 500_000


def test_what_is_read_of_another_tool_is_read_again_once_it_is_saved() -> None:
    text = b"# duration: 9999999999999999\nP1;T0xffffffffffffffff;f:g:3 9007199254740992\n"
    profile = load_folded(io.BytesIO(text), "austin")
    stream = io.BytesIO()
    save_profile(profile, stream)
    assert profile.recording.duration == 0
    assert load_profile(io.BytesIO(stream.getvalue())) == profile


def test_a_recording_of_a_busy_host_is_far_within_the_limits() -> None:
    """200,000 stacks; here a tenth of them, with a tenth of the limits."""
    profile = wide_profile(20_000)
    stream = io.BytesIO()
    save_profile(profile, stream)
    began = time.process_time()
    assert load_profile(io.BytesIO(stream.getvalue())) == replace(profile)
    assert time.process_time() - began < 5
    assert sum(map(len, profile.stacks)) < size_limits.STACK_FRAMES_MAX / 20
