"""Saving a profile and reading it back."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.profile import file_reader
from pyflame_ebpf.profile.file import UnusableProfileError, load_profile, save_profile
from pyflame_ebpf.profile.model import NativeOutcome, Profile
from tests.profiles import hostile_profile, profiles, realistic_profile


def saved(profile: Profile) -> bytes:
    stream = io.BytesIO()
    save_profile(profile, stream)
    return stream.getvalue()


def document(profile: Profile) -> Any:
    return json.loads(gzip.decompress(saved(profile)))


def load_document(content: Any) -> Profile:
    return load_profile(io.BytesIO(gzip.compress(json.dumps(content).encode())))


@settings(deadline=None)
@given(profiles())
def test_any_profile_comes_back_equal(profile: Profile) -> None:
    assert load_profile(io.BytesIO(saved(profile))) == profile


@pytest.mark.parametrize("profile", [realistic_profile(), hostile_profile()], ids=["realistic", "hostile"])
def test_a_whole_recording_comes_back_equal(profile: Profile) -> None:
    assert load_profile(io.BytesIO(saved(profile))) == profile


def test_equal_profiles_give_equal_bytes_without_a_time_in_the_header() -> None:
    assert saved(realistic_profile()) == saved(realistic_profile())
    assert saved(realistic_profile())[4:8] == b"\0\0\0\0"


def test_common_callers_are_stored_once() -> None:
    profile = realistic_profile()
    frames = sum(len(stack) for stack in profile.stacks)
    assert len(document(profile)["nodes"]["caller"]) < frames / 2


def test_a_file_of_a_newer_format_says_to_upgrade() -> None:
    content = {**document(realistic_profile()), "version": 5}
    with pytest.raises(UnusableProfileError) as caught:
        load_document(content)
    assert "newer pyflame-ebpf" in caught.value.message
    assert "Upgrade" in caught.value.hint
    assert caught.value.exit_code == 18


def test_a_file_of_the_first_format_has_no_native_stacks_and_no_plumbing() -> None:
    profile = realistic_profile()
    content = {**document(profile), "version": 1}
    del content["frames"]["plumbing"], content["samples"]["native"], content["build_ids"], content["sources"]
    loaded = load_document(content)
    assert {key.native for key in loaded.samples} == {NativeOutcome.NONE}
    assert loaded.stacks == profile.stacks
    assert loaded.frames == [replace(frame, plumbing=False) for frame in profile.frames]
    assert loaded.total == profile.total


def test_a_file_of_the_second_format_has_no_build_ids_and_no_source_text() -> None:
    profile = realistic_profile()
    content = {**document(profile), "version": 2}
    del content["build_ids"], content["sources"]
    loaded = load_document(content)
    assert (loaded.build_ids, loaded.sources) == ({}, {})
    assert loaded.samples == profile.samples


def test_a_file_of_this_format_without_native_stacks_is_refused() -> None:
    content = document(realistic_profile())
    del content["samples"]["native"]
    with pytest.raises(UnusableProfileError, match="no list native"):
        load_document(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a profile|it does not hold JSON|cut short"),
        (b"plain text", "not compressed"),
        (saved(realistic_profile())[:-400], "cut short"),
        (saved(realistic_profile())[:200] + b"\xff" * 40 + saved(realistic_profile())[240:], "damaged"),
        (gzip.compress(b"\xff\xfe"), "does not hold JSON"),
        (gzip.compress(b"[" * 100_000), "more than 128 lists"),
        (gzip.compress(b'{"format": NaN}'), "does not hold JSON"),
        (gzip.compress(b"[]"), "does not hold a JSON object"),
        (gzip.compress(b'{"format": "another"}'), "does not say"),
    ],
    ids=["empty", "text", "short", "damaged", "binary", "nested", "nan", "list", "foreign"],
)
def test_a_foreign_file_is_refused_with_the_reason(content: Any, reason: str) -> None:
    with pytest.raises(UnusableProfileError, match=reason):
        load_profile(io.BytesIO(content))


def broken(path: list[Any], value: Any) -> Any:
    content = document(realistic_profile())
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    "content",
    [
        broken(["recording", "frequency"], -1),
        broken(["recording", "duration"], 10**400),
        broken(["recording", "host"], 5),
        broken(["recording", "counters"], {"a": "b"}),
        broken(["recording"], None),
        broken(["processes", "name", 0], 10**6),
        broken(["processes", "name", 0], -1),
        broken(["processes", "pid"], [1]),
        broken(["frames", "kind", 0], 9),
        broken(["frames", "line", 0], True),
        broken(["frames", "plumbing", 0], 2),
        broken(["frames", "plumbing", 0], True),
        broken(["samples", "native", 0], 9),
        broken(["nodes", "caller", 0], 0),
        broken(["nodes", "caller", 3], 3),
        broken(["nodes", "caller", 3], 10**9),
        broken(["nodes", "caller", 3], -2),
        broken(["nodes", "frame", 0], -1),
        broken(["stacks", 0], -2),
        broken(["stacks", 0], 10**9),
        broken(["stacks", 0], "0"),
        broken(["samples", "count", 0], 0),
        broken(["samples", "count", 0], -1),
        broken(["samples", "process", 0], 4),
        broken(["samples", "thread", 0], -1),
        broken(["samples", "thread", 0], 5),
        broken(["samples", "stack", 0], -1),
        broken(["samples", "second"], [0]),
        broken(["recording", "frequency"], True),
        broken(["recording", "arguments", 0], 1),
        broken(["recording", "scheduler_cpu"], "1"),
        broken(["processes", "scheduler_cpu", 0], True),
        broken(["samples"], []),
        broken(["texts", 0], {}),
        broken(["build_ids", "build_id", 0], "not hexadecimal"),
        broken(["build_ids", "build_id", 0], "abcdef, and more"),
        broken(["build_ids", "build_id", 0], "ABCDEF"),
        broken(["build_ids", "build_id", 0], "a"),
        broken(["build_ids", "build_id", 0], "a" * 129),
        broken(["build_ids", "build_id", 0], 5),
        broken(["build_ids", "build_id"], []),
        broken(["sources", "line", 0], "1"),
        broken(["sources", "text", 0], 1),
        broken(["sources", "file", 0], 10**6),
    ],
)
def test_content_that_makes_no_sense_is_refused(content: Any) -> None:
    with pytest.raises(UnusableProfileError, match="not a profile that can be read"):
        load_document(content)


def test_an_index_beyond_its_list_is_told_and_not_one_that_is_right() -> None:
    content = document(realistic_profile())
    content["samples"]["process"][:2] = [0, 4]
    with pytest.raises(UnusableProfileError, match="it refers to entry 4 of a list of 4"):
        load_document(content)


def test_few_nodes_that_stand_for_very_many_frames_are_refused() -> None:
    content = document(realistic_profile())
    content["nodes"] = {"caller": list(range(-1, 9_999)), "frame": [0] * 10_000}
    content["stacks"] = [9_999] * 6_000
    with pytest.raises(UnusableProfileError, match="more than 20,000,000 frames"):
        load_document(content)


@pytest.mark.parametrize(("frames_max", "is_read"), [(5, True), (4, False)])
def test_the_frames_of_all_stacks_count_towards_the_limit(
    monkeypatch: pytest.MonkeyPatch, frames_max: int, is_read: bool
) -> None:
    monkeypatch.setattr(file_reader, "STACK_FRAMES_MAX", frames_max)
    content = document(realistic_profile())
    content["nodes"] = {"caller": [-1, 0, 1], "frame": [0, 0, 0]}
    content["stacks"] = [2, -1, 1]
    content["samples"] = {name: [] for name in content["samples"]}
    if is_read:
        assert load_document(content).stacks == [(0, 0, 0), (), (0, 0)]
    else:
        with pytest.raises(UnusableProfileError, match="more than 4 frames"):
            load_document(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**20) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.data())
def test_any_other_value_anywhere_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    content = document(realistic_profile())
    place, step = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(place[step], dict | list) and place[step] and data.draw(st.booleans()):
        place = place[step]
        step = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(min(len(place), 3))))
    place[step] = data.draw(JSON)
    try:
        load_document(content)
    except UnusableProfileError as error:
        assert error.hint  # noqa: PT017 - either way is right
