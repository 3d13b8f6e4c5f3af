"""pprof, speedscope, the Firefox Profiler's format and JSON lines, by their own definitions."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.labelled_stacks import group_labels, shown_frames
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.pprof_messages import profile_class
from pyflame_ebpf.profile.labels import spelled_back, visible
from pyflame_ebpf.profile.model import Frame, Gil, Outcome, Process, Profile, SampleKey, Thread
from pyflame_ebpf.profile.selection import Selection
from tests.profiles import (
    HOSTILE_NAMES,
    LIBC,
    PYTHON_BINARY,
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

FORMATS = ("pprof", "speedscope", "firefox", "jsonl")
OPTIONS = [
    {},
    {"kernel": False},
    {"native": False},
    {"python_only": True},
    {"all_frames": True},
    {"lines": True},
    {"group_by": ()},
    {"group_by": ("command", "thread")},
    {"group_by": ("host", "interpreter", "process")},
]
MIXED = (
    native("_start", "/usr/bin/python"),
    native("loop", "/usr/bin/python", plumbing=True),
    python("f", "/srv/app/c.py", 3, 5),
    native("scan", "/usr/lib/_json.so"),
    kernel("tick"),
)

Stacks = Counter[tuple[str, ...]]  # samples by names, the outermost first
Heading = Callable[[Profile, OutputOptions, SampleKey], tuple[str, ...]]  # what stands above the frames
NameOf = Callable[[Frame], str]


def written(profile: Profile, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    OUTPUT_FORMATS[name].write(profile, stream, OutputOptions(**options))
    assert not stream.closed
    return stream.getvalue()


def pprof(profile: Profile, **options: Any) -> Any:
    return profile_class().FromString(gzip.decompress(written(profile, "pprof", **options)))


def speedscope(profile: Profile, **options: Any) -> Any:
    return json.loads(written(profile, "speedscope", **options))


def firefox(profile: Profile, **options: Any) -> Any:
    return json.loads(gzip.decompress(written(profile, "firefox", **options)))


def jsonl(profile: Profile, **options: Any) -> list[Any]:
    return [json.loads(line) for line in written(profile, "jsonl", **options).splitlines()]


def pprof_stacks(message: Any) -> Stacks:
    """Names from the root, and samples."""
    text = message.string_table
    functions = {function.id: text[function.name] for function in message.function}
    names = {location.id: functions[location.line[0].function_id] for location in message.location}
    stacks: Stacks = Counter()
    for sample in message.sample:
        stacks[tuple(names[number] for number in reversed(sample.location_id))] += sample.value[0]
    return stacks


def speedscope_stacks(document: Any, frequency: int) -> Stacks:
    names = [frame["name"] for frame in document["shared"]["frames"]]
    stacks: Stacks = Counter()
    for each in document["profiles"]:
        for sample, weight in zip(each["samples"], each["weights"], strict=True):
            stacks[(each["name"], *(names[index] for index in sample))] += round(weight * (frequency or 1))
    return stacks


def firefox_stacks(document: Any) -> Stacks:
    stacks: Stacks = Counter()
    for thread in document["threads"]:
        table, frames, functions = thread["stackTable"], thread["frameTable"], thread["funcTable"]
        for end, weight in zip(thread["samples"]["stack"], thread["samples"]["weight"], strict=True):
            node = end
            names: list[str] = []
            while node is not None:
                names.insert(0, thread["stringArray"][functions["name"][frames["func"][table["frame"][node]]]])
                node = table["prefix"][node]
            stacks[(f"{thread['processName']} {thread['pid']} {thread['name']} {thread['tid']}", *names)] += weight
    return stacks


def expected(profile: Profile, heading: Heading, name_of: NameOf, **options: Any) -> Stacks:
    """The stacks as a format should have them, computed from the profile alone."""
    chosen = OutputOptions(**options)
    is_shown = shown_frames(chosen)
    stacks: Stacks = Counter()
    for key, count in profile.samples.items():
        names = [name_of(frame) for frame in profile.frames_of(key.stack) if is_shown(frame)]
        stacks[(*heading(profile, chosen, key), *names)] += count
    return stacks


def exact_name(frame: Frame) -> str:
    return visible(frame.name) or "?"


def owners(profile: Profile, options: Any, key: SampleKey) -> tuple[str, ...]:
    return tuple(label.text for label in group_labels(profile, options, key.process, key.thread))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("profile", [realistic_profile(), hostile_profile()], ids=["realistic", "hostile"])
def test_pprof_has_every_stack_with_its_samples_and_their_cpu_time(profile: Profile, options: Any) -> None:
    message = pprof(profile, **options)
    wanted = expected(profile, owners, exact_name, **options)
    wanted[("[no frame is shown]",)] += wanted.pop((), 0)
    assert pprof_stacks(message) == +wanted
    assert [message.string_table[each.type] for each in message.sample_type] == ["samples", "cpu"]
    assert all(sample.value[1] == sample.value[0] * 10**9 // 99 for sample in message.sample)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("profile", [realistic_profile(), hostile_profile()], ids=["realistic", "hostile"])
def test_firefox_has_every_stack_of_every_thread(profile: Profile, options: Any) -> None:
    def track(profile: Profile, options: Any, key: SampleKey) -> tuple[str, ...]:
        process, thread = profile.processes[key.process], profile.threads[key.thread]
        others = replace(options, group_by=tuple({"host", "interpreter", "command"} & set(options.group_by)))
        others = replace(others, group_by=tuple(group for group in options.group_by if group in others.group_by))
        name = f"{visible(process.name) or '?'} {process.pid} {visible(thread.name) or '?'} {thread.tid}"
        return name, *owners(profile, others, key)

    assert firefox_stacks(firefox(profile, **options)) == expected(profile, track, exact_name, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_speedscope_has_every_stack_in_a_profile_for_each_group(options: Any) -> None:
    profile = realistic_profile()
    found = speedscope_stacks(speedscope(profile, **options), 99)

    def heading(profile: Profile, options: Any, key: SampleKey) -> tuple[str, ...]:
        return (" / ".join(owners(profile, options, key)) or "everything",)

    wanted: Counter[tuple[str, int]] = Counter()
    for stack, count in expected(profile, heading, lambda _: "", **options).items():
        wanted[stack[0], max(len(stack) - 1, 1)] += count
    depths: Counter[tuple[str, int]] = Counter()
    for stack, count in found.items():
        depths[stack[0], len(stack) - 1] += count
    assert depths == wanted


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_json_lines_have_every_stack_with_exact_names(options: Any) -> None:
    profile = hostile_profile()
    found: Stacks = Counter()
    for line in jsonl(profile, **options):
        found[(str(line["pid"]), str(line["tid"]), *line["group"], *(frame["name"] for frame in line["frames"]))] += (
            line["samples"]
        )

    def heading(profile: Profile, options: Any, key: SampleKey) -> tuple[str, ...]:
        numbers = profile.processes[key.process].pid, profile.threads[key.thread].tid
        return *map(str, numbers), *owners(profile, options, key)

    assert found == expected(profile, heading, lambda frame: frame.name, **options)


@settings(deadline=None)
@given(profiles())
def test_any_profile_is_written_with_all_its_samples(profile: Profile) -> None:
    frequency = profile.recording.frequency
    assert sum(sample.value[0] for sample in pprof(profile).sample) == profile.total
    assert speedscope_stacks(speedscope(profile), frequency).total() == profile.total
    assert firefox_stacks(firefox(profile)).total() == profile.total
    assert sum(line["samples"] for line in jsonl(profile)) == profile.total


@pytest.mark.parametrize("name", FORMATS)
def test_equal_profiles_give_equal_bytes(name: str) -> None:
    assert written(realistic_profile(), name) == written(realistic_profile(), name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_selection_is_all_there_is(name: str) -> None:
    part = Selection(10, 20, ("celery",)).of(realistic_profile())
    text = written(part, name)
    text = gzip.decompress(text) if text.startswith(b"\x1f\x8b") else text
    assert b"Tree.descend" in text
    assert b"ngx_http" not in text
    assert b"Arbiter" not in text


@pytest.mark.parametrize("name", FORMATS)
def test_without_a_frequency_nothing_is_said_of_time(name: str) -> None:
    profile = realistic_profile()
    profile.recording = recording(frequency=0)
    text = written(profile, name)
    text = gzip.decompress(text) if text.startswith(b"\x1f\x8b") else text
    for unit in (b"nanoseconds", b'"seconds"', b'"threadCPUDelta":['):
        assert unit not in text or name == "jsonl"


@pytest.mark.parametrize("name", ["speedscope", "firefox", "jsonl"])
def test_no_hostile_name_leaves_ascii_or_its_json_text(name: str) -> None:
    text = written(hostile_profile(), name)
    text = gzip.decompress(text) if text.startswith(b"\x1f\x8b") else text
    assert text.replace(b"\n", b"").decode("ascii").isprintable()


def test_hostile_names_in_pprof_print_as_themselves_and_can_be_told() -> None:
    message = pprof(hostile_profile())
    assert all(text.isprintable() for text in message.string_table)
    assert set(HOSTILE_NAMES) - {""} <= {spelled_back(text) for text in message.string_table}


# pprof


def test_pprof_labels_each_sample_with_its_process_and_thread() -> None:
    message = pprof(realistic_profile())
    text = message.string_table
    labels = {
        tuple((text[label.key], text[label.str] or label.num) for label in sample.label) for sample in message.sample
    }
    assert (
        ("pid", 1201),
        ("tid", 1209),
        ("process", "gunicorn"),
        ("command", "gunicorn: worker [shop.wsgi]"),
        ("interpreter", "CPython 3.11.2"),
        ("thread_name", "ThreadPoolExec"),
    ) in labels
    assert len(labels) == 5


def test_pprof_maps_native_frames_with_their_build_ids() -> None:
    message = pprof(realistic_profile())
    text = message.string_table
    mappings = {text[mapping.filename]: text[mapping.build_id] for mapping in message.mapping}
    assert mappings[PYTHON_BINARY] == "0f" * 20
    assert mappings[LIBC] == "82ce4e6e4ef08fa58a3535f7437bd3e592db5ac0"
    assert mappings["/usr/lib/libpq.so.5.15"] == ""
    assert "[kernel.kallsyms]" in mappings


def test_pprof_has_every_mapping_location_and_function_once_as_its_reader_demands() -> None:
    message = pprof(realistic_profile())
    for table in (message.mapping, message.location, message.function):
        assert [each.id for each in table] == list(range(1, len(table) + 1))


def test_pprof_knows_first_and_executing_lines_of_python() -> None:
    message = pprof(realistic_profile())
    (function,) = (each for each in message.function if message.string_table[each.name] == "basket")
    assert (message.string_table[function.filename], function.start_line) == ("/srv/shop/views.py", 41)
    lines = {each.line[0].line for each in message.location if each.line[0].function_id == function.id}
    assert lines == {52}


def test_pprof_says_when_and_how_it_was_recorded() -> None:
    message = pprof(realistic_profile())
    assert (message.time_nanos, message.duration_nanos) == (1_790_000_000 * 10**9, 60 * 10**9)
    assert message.period == round(10**9 / 99)
    assert "host web-1" in [message.string_table[comment] for comment in message.comment]


# speedscope


def test_speedscope_orders_samples_by_the_second_and_profiles_by_samples() -> None:
    document = speedscope(realistic_profile())
    assert [each["name"] for each in document["profiles"]] == [
        "gunicorn (1201)",
        "celery (1317)",
        "nginx (803)",
        "python3 (4410)",
    ]
    nginx = document["profiles"][2]
    assert nginx["unit"] == "seconds"
    assert nginx["weights"] == pytest.approx([6 / 99, 2 / 99] * 60)
    assert nginx["endValue"] == pytest.approx(480 / 99)


def test_speedscope_frames_have_their_files_and_lines() -> None:
    frames = {frame["name"]: frame for frame in speedscope(realistic_profile(), lines=True)["shared"]["frames"]}
    assert frames["basket"] == {"name": "basket", "file": "/srv/shop/views.py", "line": 52}
    assert frames["do_syscall_64_[k]"] == {"name": "do_syscall_64_[k]"}
    assert frames["PQexec (libpq.so.5.15)"]["file"] == "/usr/lib/libpq.so.5.15"


# Firefox


def test_firefox_places_samples_in_their_seconds_in_order() -> None:
    document = firefox(realistic_profile())
    for thread in document["threads"]:
        times = thread["samples"]["time"]
        assert times == sorted(times)
        assert {int(time // 1000) for time in times} == set(range(60))
    assert document["meta"]["interval"] == pytest.approx(1000 / 99)


def test_firefox_tells_python_native_library_and_kernel_apart() -> None:
    document = firefox(realistic_profile())
    names = [category["name"] for category in document["meta"]["categories"]]
    found = {}
    for thread in document["threads"]:
        frames, functions = thread["frameTable"], thread["funcTable"]
        for function, category in zip(frames["func"], frames["category"], strict=True):
            found[thread["stringArray"][functions["name"][function]]] = names[category]
    wanted = {
        "basket": "Python",
        "Py_BytesMain": "Native",
        "ngx_http_process_request": "Native",
        "PQexec": "Library",
        "do_syscall_64": "Kernel",
        "[truncated: too deep]": "Other",
    }
    assert {name: found[name] for name in wanted} == wanted


def test_firefox_tables_have_columns_of_their_length() -> None:
    for thread in firefox(realistic_profile())["threads"]:
        for name in ("samples", "stackTable", "frameTable", "funcTable", "resourceTable", "markers", "nativeSymbols"):
            columns = [column for column in thread[name].values() if isinstance(column, list)]
            assert {len(column) for column in columns} == {thread[name]["length"]}
            assert columns


# JSON lines


def test_a_json_line_says_all_that_is_known_of_its_samples() -> None:
    keys = {
        SampleKey(second, 0, 0, 0, kernel_mode=True, gil=Gil.NOT_HELD, outcome=Outcome.COMPLETE): count
        for second, count in ((0, 2), (7, 97))
    }
    profile = profile_with(
        recording(),
        [Process(7, "app", "app --x", "CPython 3.12.4")],
        [Thread(8, "pool")],
        [(mark("[gap]"), *MIXED)],
        Counter(keys),
    )
    frames = [("mark", "[gap]", "", 0, 0), ("python", "f", "/srv/app/c.py", 3, 5)]
    assert jsonl(profile, python_only=True, group_by=("command",)) == [
        {
            "group": ["app --x"],
            "pid": 7,
            "process": "app",
            "command": "app --x",
            "interpreter": "CPython 3.12.4",
            "tid": 8,
            "thread": "pool",
            "samples": 99,
            "cpu_seconds": 1.0,
            "seconds": [[0, 2], [7, 97]],
            "outcome": "complete",
            "native_outcome": "no native frames",
            "gil": "not held",
            "kernel_mode": True,
            "frames": [
                dict(zip(("kind", "name", "file", "first_line", "line"), frame, strict=True)) for frame in frames
            ],
        }
    ]


def test_json_lines_start_with_the_most_frequent_stack() -> None:
    counts = [line["samples"] for line in jsonl(realistic_profile())]
    assert counts == sorted(counts, reverse=True)
