"""Saved profiles with each field altered: refused in one line, or read, and what is read works in every output."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from pyflame_ebpf.profile.file import UnusableProfileError, load_profile
from pyflame_ebpf.profile.model import Profile
from tests.altered_profiles import VALUES, altered, damaged_files, document, fields, packed, write_every_output
from tests.profiles import hostile_profile, realistic_profile

CONTENT = document(realistic_profile())
FIELDS = list(fields(CONTENT))
TIME_MAX = 20.0  # seconds of CPU for one small profile in all outputs


def read(data: bytes) -> Profile | None:
    """The profile, None if it is refused; the reason must be one line that a terminal can show."""
    try:
        return load_profile(io.BytesIO(data))
    except UnusableProfileError as error:
        assert error.message.isprintable()  # noqa: PT017 - either way is right
        assert len(error.message) < 200  # noqa: PT017
        return None


def check_outputs(profile: Profile) -> None:
    """Fail if an output cannot be written in time."""
    began = time.process_time()
    assert write_every_output(profile) > 0
    assert time.process_time() - began < TIME_MAX


def test_the_fields_are_those_of_the_whole_layout() -> None:
    assert {path[0] for path in FIELDS} == CONTENT.keys()
    assert len(FIELDS) > 100


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_any_value_in_any_field_is_refused_or_works_in_every_output(path: tuple[str | int, ...]) -> None:
    """Of the values that are read, one is written here; scripts/fuzz.py writes them all."""
    profiles = [read(packed(altered(CONTENT, path, value))) for value in VALUES]
    accepted = [profile for profile in profiles if profile is not None]
    if accepted:
        check_outputs(accepted[len(str(path)) % len(accepted)])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("recording", "started"), 253_402_300_799),
        (("recording", "duration"), 366 * 86_400),
        (("recording", "frequency"), 1_000_000),
        (("recording", "frequency"), 1),
        (("recording", "cpus"), 1 << 16),
        (("recording", "lost"), (1 << 63) - 1),
        (("recording", "scheduler_cpu"), -1e9),
        (("processes", "pid", 0), (1 << 64) - 1),
        (("threads", "tid", 0), (1 << 64) - 1),
        (("frames", "line", 0), (1 << 32) - 1),
        (("frames", "first_line", 0), -(1 << 31)),
        (("samples", "count", 0), 1 << 61),
        (("samples", "second", 0), 65),
    ],
)
def test_the_largest_numbers_that_are_read_work_in_every_output(path: tuple[str | int, ...], value: Any) -> None:
    for unit in ({"clock": 0, "nanoseconds": 1}, {"clock": 0, "nanoseconds": 0}):
        profile = read(packed({**altered(CONTENT, path, value), "version": 4} | _with_unit(path, value, unit)))
        assert profile is not None
        check_outputs(profile)


def test_the_shortest_duration_that_is_read_works_in_every_output() -> None:
    seconds = [0] * len(CONTENT["samples"]["second"])
    content = altered(altered(CONTENT, ("recording", "duration"), 1e-6), ("samples", "second"), seconds)
    profile = read(packed(content))
    assert profile is not None
    check_outputs(profile)


def _with_unit(path: tuple[str | int, ...], value: Any, unit: dict[str, int]) -> dict[str, Any]:
    return {"recording": {**altered(CONTENT, path, value)["recording"], "unit": unit}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("recording", "started"), 1e308),
        (("recording", "started"), -1.0),
        (("recording", "duration"), 1e9),
        (("recording", "duration"), -1.0),
        (("recording", "duration"), 5e-324),
        (("recording", "frequency"), 10**9),
        (("recording", "cpus"), -1),
        (("recording", "lost"), -1),
        (("recording", "counters"), {"lost": 1 << 63}),
        (("processes", "pid", 0), 1 << 64),
        (("frames", "line", 0), 1 << 32),
        (("samples", "count", 0), (1 << 62) + 1),
        (("samples", "second", 0), 66),
        (("samples", "second", 0), -1),
        (("version",), 0),
        (("version",), -5),
    ],
)
def test_numbers_that_no_recording_has_are_refused(path: tuple[str | int, ...], value: Any) -> None:
    assert read(packed(altered(CONTENT, path, value))) is None


@pytest.mark.parametrize("profile", [realistic_profile(), hostile_profile()], ids=["realistic", "hostile"])
def test_damaged_files_are_refused_or_work(profile: Profile) -> None:
    found = [read(data) for data in damaged_files(document(profile), seed=7, number=150)]
    for accepted in [each for each in found if each is not None][:8]:
        check_outputs(accepted)
