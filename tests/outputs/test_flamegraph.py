"""The flame graph as a file: what it holds, without a browser."""

import io
import json
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from pyflame_ebpf.outputs.flame_tree import Boxes, flame_boxes
from pyflame_ebpf.outputs.flamegraph import write_flamegraph
from pyflame_ebpf.outputs.labelled_stacks import labelled_stacks
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.profile.model import NativeOutcome, Profile
from tests.profiles import hostile_profile, profiles, realistic_profile, recording, wide_profile

SVG = "{http://www.w3.org/2000/svg}"


def graph(profile: Profile, **options: Any) -> str:
    stream = io.StringIO()
    write_flamegraph(profile, stream, OutputOptions(**options))
    return stream.getvalue()


def boxes_of(profile: Profile, narrowest: float = 0.0, boxes_max: int = 10**6) -> Boxes:
    return flame_boxes(labelled_stacks(profile, OutputOptions()), narrowest, boxes_max)


def picture(text: str) -> ET.Element:
    (found,) = ET.fromstring(text).findall(f"{SVG}g[@id='picture']")
    return found


def data(text: str) -> Any:
    return json.loads(ET.fromstring(text).findtext(f"{SVG}script[@id='pyflame-data']", ""))


def test_the_picture_shows_processes_above_the_root_with_their_shares() -> None:
    titles = [title.text for title in picture(graph(realistic_profile())).iter(f"{SVG}title")]
    assert titles[:2] == [
        "all: 5,895 samples, 100.00 % of all, 59.55 s of CPU",
        "gunicorn (1201): 2,940 samples, 49.87 % of all, 29.70 s of CPU",
    ]


def test_the_data_holds_every_box() -> None:
    profile = realistic_profile()
    boxes = boxes_of(profile)
    held = data(graph(profile))
    assert held["samples"] == boxes.samples
    assert [held["labels"][label] for label in held["label"]] == [boxes.labels[label].text for label in boxes.label]
    depths = [-1]
    for rise in held["rise"]:
        depths.append(depths[-1] + 1 - rise)
    assert depths[1:] == boxes.depth


def test_title_facts_and_outcome_are_said() -> None:
    words = [text.text or "" for text in picture(graph(realistic_profile())).iter(f"{SVG}text")]
    assert words[0] == "CPU flame graph of web-1"
    assert words[1] == (
        "5,895 samples of 4 processes · 59.5 s of CPU · 60.0 s at 99 Hz on 4 CPUs · 2026-09-21 14:13:20 UTC"
        " · Linux 6.1.0 · pyflame-ebpf 0.1.0"
    )
    assert any("74 truncated" in word and "2 lost" in word for word in words)


def test_long_outcome_takes_as_many_lines_as_it_needs() -> None:
    profile = realistic_profile()
    some = next(iter(profile.samples))
    profile.samples.update({some._replace(native=outcome): 1000 for outcome in NativeOutcome})
    text = graph(profile)
    muted = [word for word in picture(text).iter(f"{SVG}text") if word.get("class") == "muted"]
    below = sorted((int(word.attrib["y"]), word.text or "") for word in muted if int(word.attrib["y"]) > 80)
    assert len(below) > 1
    assert " ".join(line for _, line in below) == data(text)["outcome"]
    assert max(len(line) for _, line in below) <= 1168 / 7
    boxes = [float(rect.attrib["y"]) for rect in picture(text).iter(f"{SVG}rect")]
    assert max(boxes) + 19 < below[0][0] < below[-1][0] < int(ET.fromstring(text).get("height", ""))


def test_kinds_differ_in_colour_class() -> None:
    rects = picture(graph(realistic_profile())).iter(f"{SVG}rect")
    styles = {rect.attrib["class"].split()[1].rstrip("0123456789") for rect in rects}
    assert styles == {"all", "process", "python", "native", "kernel", "mark"}


@pytest.mark.parametrize("profile", [realistic_profile(), hostile_profile()], ids=["realistic", "hostile"])
def test_nothing_outside_of_the_file_is_referred_to(profile: Profile) -> None:
    text = graph(profile).replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xhtml", "")
    own = re.sub(r"<title>.*?</title>|<text.*?</text>|<script type=.*?</script>", "", text)
    assert not re.search(r"\b(href|src)\s*=\s*[\"']|https?:|url\(|@import", own)


def test_names_are_text_and_nothing_else() -> None:
    tree = ET.fromstring(graph(hostile_profile()))
    assert len(list(tree.iter(f"{SVG}script"))) == 2
    assert {element.tag.removeprefix(SVG) for element in tree.iter()} == {
        "svg",
        "title",
        "style",
        "g",
        "rect",
        "text",
        "script",
    }
    assert any(
        (title.text or "").startswith("<script>alert(1)</script> (<script>") for title in tree.iter(f"{SVG}title")
    )


@settings(deadline=None, max_examples=50)
@given(profiles())
def test_any_profile_gives_well_formed_xml_with_all_samples(profile: Profile) -> None:
    assert data(graph(profile))["samples"][0] == profile.total


def test_the_script_is_whole_inside_its_cdata_section() -> None:
    scripts = ET.fromstring(graph(realistic_profile())).findall(f"{SVG}script")
    assert (scripts[1].text or "").strip().endswith("}());")


def test_a_profile_without_samples_is_drawn_as_an_empty_root() -> None:
    assert data(graph(Profile(recording())))["samples"] == [0]


def test_callees_lie_inside_their_caller_the_busiest_first() -> None:
    boxes = boxes_of(wide_profile(200))
    open_boxes: list[tuple[int, int, int]] = []
    for depth, start, samples in zip(boxes.depth, boxes.start, boxes.samples, strict=True):
        del open_boxes[depth + 1 :]
        if depth:
            caller = open_boxes[depth - 1]
            assert caller[0] <= start
            assert start + samples <= caller[0] + caller[1]
        if len(open_boxes) > depth and open_boxes[depth][2] == start:
            assert samples <= open_boxes[depth][1]
        open_boxes[depth:] = [(start, samples, start + samples)]


def test_boxes_too_narrow_to_see_are_left_out_and_said() -> None:
    profile = wide_profile(300)
    boxes = boxes_of(profile, narrowest=0.01)
    assert min(boxes.samples) >= 0.01 * profile.total
    assert set(zip(boxes.depth, boxes.label, boxes.samples, strict=True)) == {
        box
        for box in zip(*(getattr(boxes_of(profile), column) for column in ("depth", "label", "samples")), strict=True)
        if box[2] >= 0.01 * profile.total
    }
    assert boxes.left_out > 0
    assert "Too thin to show" not in graph(profile)
    assert re.search(
        r"Too thin to show: [\d,]+ boxes of fewer than 2 samples", data(graph(wide_profile(13_000)))["outcome"]
    )


def test_never_more_boxes_than_the_limit() -> None:
    assert len(boxes_of(wide_profile(300), boxes_max=500)) <= 500


def test_without_kernel_no_kernel_box_is_left() -> None:
    assert "_[k]" in graph(realistic_profile())
    assert "_[k]" not in graph(realistic_profile(), kernel=False)
