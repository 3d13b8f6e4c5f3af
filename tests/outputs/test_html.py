"""The data of report.html, read back by a reader that knows its description only."""

import base64
import gzip
import hashlib
import io
import json
import re
import struct
from array import array
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from pyflame_ebpf.outputs.html_report import write_html_report
from pyflame_ebpf.outputs.options import DEFAULT_OPTIONS, OutputOptions
from pyflame_ebpf.profile.labels import command_label, process_label, thread_label, visible
from pyflame_ebpf.profile.model import Profile
from tests.profiles import hostile_profile, profiles, realistic_profile, wide_profile

DATA = re.compile(r'<script type="application/octet-stream" id="report-data">(.*?)</script>', re.DOTALL)


def page_of(profile: Profile, options: OutputOptions = DEFAULT_OPTIONS) -> str:
    stream = io.StringIO()
    write_html_report(profile, stream, options)
    return stream.getvalue()


Samples = Counter[tuple[int, tuple[str, ...], tuple[int, ...]]]  # by second, stack and what else was known


class Unpacked:
    """The data of a page: the JSON text's content, and its columns."""

    def __init__(self, page: str) -> None:
        content = gzip.decompress(base64.b64decode(DATA.findall(page)[0]))
        (size,) = struct.unpack_from("<I", content)
        self.document = json.loads(content[4 : 4 + size])
        self._columns = content[4 + size :]

    def column(self, place: dict[str, int]) -> list[int]:
        at, count = place["at"], place["count"]
        planes = [self._columns[at + byte * count : at + (byte + 1) * count] for byte in range(4)]
        numbers = array("I")
        numbers.frombytes(bytes(byte for number in zip(*planes, strict=True) for byte in number))
        return numbers.tolist()

    def entries(self) -> list[str]:
        """What each entry of the tree is: a process, a thread, a frame with its line."""
        document = self.document
        functions = document["functions"]
        frames = zip(self.column(document["frames"]["function"]), self.column(document["frames"]["line"]), strict=True)
        return [
            *(f"p {label}" for label in document["processes"]["label"]),
            *(f"t {label}" for label in document["threads"]["label"]),
            *(f"{functions['kind'][each]} {functions['name'][each]} {line}" for each, line in frames),
        ]

    def paths(self) -> list[tuple[str, ...]]:
        """Each node as the way to it."""
        entries, paths = self.entries(), []
        path: list[str] = []
        nodes = self.document["nodes"]
        for rise, entry in zip(self.column(nodes["rise"]), self.column(nodes["entry"]), strict=True):
            path = [*path[: len(path) - rise], entries[entry]]
            paths.append(tuple(path))
        return paths

    def samples(self) -> Samples:
        paths = self.paths()
        samples = self.document["recordings"][0]["samples"]
        second = 0
        found: Samples = Counter()
        columns = [self.column(samples[name]) for name in ("second", "node", "how", "count")]
        for later, node, how, count in zip(*columns, strict=True):
            second += later
            found[second, paths[node], tuple(samples["hows"][how])] += count
        return found


def expected(profile: Profile) -> Samples:
    kinds = ["python", "native", "kernel", "mark"]
    gils = ["held", "not held", "unknown"]
    outcomes, natives = [list(type(each)) for each in (DEFAULT_KEY.outcome, DEFAULT_KEY.native)]
    found: Samples = Counter()
    for key, count in profile.samples.items():
        frames = [
            f"{kinds.index(each.kind.value)} {visible(each.name) or '?'} {each.line}"
            for each in profile.frames_of(key.stack)
        ]
        process = profile.processes[key.process]
        owners = (
            f"p {(process_label(process) if process.pid else command_label(process)).text}",
            f"t {thread_label(profile.threads[key.thread]).text}",
        )
        how = (
            int(key.kernel_mode),
            gils.index(key.gil.value),
            outcomes.index(key.outcome),
            natives.index(key.native),
        )
        found[key.second, (*owners, *frames), how] += count
    return found


DEFAULT_KEY = next(iter(realistic_profile().samples))


@pytest.mark.parametrize("profile", [realistic_profile(), hostile_profile(), wide_profile(200)])
def test_every_sample_is_in_the_page_with_its_second_its_stack_and_its_outcomes(profile: Profile) -> None:
    assert Unpacked(page_of(profile)).samples() == expected(profile)


@settings(max_examples=60, deadline=None)
@given(profiles())
def test_any_profile_reads_back(profile: Profile) -> None:
    assert Unpacked(page_of(profile)).samples() == expected(profile)


def test_numbers_that_no_recording_has_are_bounded_and_do_not_fail() -> None:
    profile = realistic_profile()
    profile.samples = Counter({next(iter(profile.samples)): 1 << 40})
    assert sum(Unpacked(page_of(profile)).samples().values()) == 0xFFFFFFFF


def test_the_policy_allows_the_pages_own_script_and_style_only() -> None:
    page = page_of(hostile_profile())
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (script[0], style[0])]
    assert (len(script), len(style)) == (1, 1)
    assert (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; base-uri 'none'" in page
    )


def test_no_name_is_part_of_the_pages_own_text() -> None:
    page = page_of(hostile_profile())
    assert "alert(" not in page
    assert page.count("<script") == 2
    assert page.isascii()


def test_the_page_names_no_other_host_to_fetch_from() -> None:
    page = page_of(realistic_profile())
    assert re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page) == []


@pytest.mark.parametrize(
    ("options", "first"),
    [
        (OutputOptions(), {"top": "process", "native": True, "kernel": True, "plumbing": False, "threads": False}),
        (OutputOptions(python_only=True), {"native": False, "kernel": False}),
        (
            OutputOptions(group_by=("command", "thread"), all_frames=True),
            {"top": "command", "threads": True, "plumbing": True},
        ),
        (OutputOptions(group_by=("host",), lines=True), {"top": "none", "lines": True}),
    ],
)
def test_options_are_what_the_page_shows_at_first(options: OutputOptions, first: dict[str, Any]) -> None:
    shown = Unpacked(page_of(realistic_profile(), options)).document["first"]
    assert {name: shown[name] for name in first} == first
