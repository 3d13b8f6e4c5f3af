"""Rows of processes, the CSV file, the table on the terminal, and that all outputs agree."""

import csv
import io
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from rich.console import Console

from pyflame_ebpf.outputs.flame_tree import flame_boxes
from pyflame_ebpf.outputs.formats import OUTPUT_FORMATS
from pyflame_ebpf.outputs.labelled_stacks import labelled_stacks
from pyflame_ebpf.outputs.options import OutputOptions
from pyflame_ebpf.outputs.processes import HotLine, closing_line, process_rows, spreadsheet_text, summed_row
from pyflame_ebpf.outputs.terminal_table import print_process_table
from pyflame_ebpf.profile.model import (
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    SampleKey,
    Thread,
)
from pyflame_ebpf.profile.selection import Selection
from tests.profiles import (
    HOSTILE_NAMES,
    WORKER,
    hostile_profile,
    native,
    profile_with,
    profiles,
    python,
    realistic_profile,
    recording,
    wide_profile,
)


def text_of(name: str, profile: Profile) -> str:
    stream = io.BytesIO()
    OUTPUT_FORMATS[name].write(profile, stream, OutputOptions())
    return stream.getvalue().decode()


def csv_rows(profile: Profile) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text_of("csv", profile), newline="")))


def table(profile: Profile, width: int = 100, rows: int = 30) -> str:
    stream = io.StringIO()
    print_process_table(profile, Console(file=stream, width=width, color_system=None), rows)
    return stream.getvalue()


def test_a_row_says_what_the_process_did() -> None:
    row = process_rows(realistic_profile())[1]
    assert (row.pid, row.name, row.interpreter, row.samples, row.truncated) == (
        1317,
        "celery",
        "CPython 3.12.4",
        2054,
        14,
    )
    assert row.cpu_percent == pytest.approx(100 * 2054 / 99 / 60)
    assert (row.user_percent, row.kernel_percent, row.gil_percent) == (100, 0, 100)
    assert row.hot_line == HotLine("/srv/shop/tree.py", "shop/tree.py", 33, "score", 21 * 60)


def test_the_share_with_the_gil_held_is_of_the_samples_that_tell() -> None:
    gils = {Gil.HELD: 3, Gil.NOT_HELD: 1, Gil.UNKNOWN: 5}
    samples = Counter({SampleKey(0, 0, 0, 0, False, gil, Outcome.COMPLETE): count for gil, count in gils.items()})
    profile = profile_with(recording(), [Process(1, "a")], [Thread(1, "a")], [()], samples)
    assert process_rows(profile)[0].gil_percent == 75


def test_the_share_with_the_gil_held_is_blank_where_nothing_tells() -> None:
    assert [row.gil_percent is None for row in process_rows(realistic_profile())] == [False, False, True, True]


def test_two_processes_that_had_one_pid_stay_two_rows() -> None:
    samples = Counter({SampleKey(0, at, 0, 0, True, Gil.UNKNOWN, Outcome.NOT_PYTHON): 2 for at in (0, 1)})
    profile = profile_with(recording(), [Process(5, "first"), Process(5, "second")], [Thread(5, "t")], [()], samples)
    rows = process_rows(profile)
    assert sorted(row.name for row in rows) == ["first", "second"]
    assert summed_row(rows).samples == 4


def test_the_closing_line_says_it_all() -> None:
    assert closing_line(realistic_profile()) == (
        "5,895 samples: 5,340 complete, 74 truncated (60 frame unreadable, 14 too deep), 480 not Python, "
        "1 without a stack, 2 lost; they account for 59.5 s of CPU, the scheduler charged 62.3 s"
    )


def with_native_outcomes(**counts: int) -> Profile:
    """One process with so many samples of each outcome of the native walk, by name."""
    keys = {NativeOutcome[name]: count for name, count in counts.items()}
    samples = Counter(
        {SampleKey(0, 0, 0, 0, False, Gil.UNKNOWN, Outcome.COMPLETE, outcome): count for outcome, count in keys.items()}
    )
    return profile_with(recording(scheduler_cpu=None, lost=0), [Process(1, "a")], [Thread(1, "a")], [()], samples)


def test_the_closing_line_of_a_part_says_that_the_whole_recording_lost_so_many() -> None:
    whole = realistic_profile()
    lost = f", {whole.recording.lost:,} lost of the whole recording's {whole.total:,}; "
    assert whole.recording.lost
    assert lost in closing_line(Selection(end=10.0).of(whole))
    assert lost in closing_line(Selection(processes=("nginx",)).of(Selection(end=10.0).of(whole)))


def test_the_closing_line_says_by_reason_which_native_stacks_are_cut_short() -> None:
    profile = with_native_outcomes(COMPLETE=12_301, NONE=7, NO_MAPPING=11, PAGE_MISS=20)
    assert closing_line(profile) == (
        "12,339 samples: 12,339 complete, 0 truncated, 0 not Python, 0 lost; native stacks: 12,301 whole, "
        "31 cut short (20 unwind rows not there yet, 11 mapping not known yet); they account for 124.6 s of CPU"
    )


def test_the_closing_line_says_that_all_native_stacks_are_whole() -> None:
    assert "; native stacks: 5 whole, 0 cut short; " in closing_line(with_native_outcomes(COMPLETE=5))


@pytest.mark.parametrize(
    ("counters", "said"),
    [
        (
            {"samples": 65_536, "stacks_walked": 4_096},
            "rate lowered to bound the cost: 4,096 stacks were walked, and stand for 65,536 samples",
        ),
        ({"targets_full": 1}, "1 child process not followed: too many at once"),
        ({"targets_full": 2_000}, "2,000 child processes not followed: too many at once"),
    ],
)
def test_the_closing_line_says_what_was_left_out_to_bound_the_cost(counters: dict[str, int], said: str) -> None:
    profile = realistic_profile()
    plain = closing_line(profile)
    profile.recording = replace(profile.recording, counters={"samples": 9, "stacks_walked": 9} | counters)
    assert said not in plain
    assert f"; {said}; " in closing_line(profile)


def test_the_closing_line_is_silent_where_every_sample_has_a_stack_of_its_own() -> None:
    profile = realistic_profile()
    plain = closing_line(profile)
    profile.recording = replace(profile.recording, counters={"samples": 9, "stacks_walked": 9, "targets_full": 0})
    assert closing_line(profile) == plain


def test_the_closing_line_is_silent_where_no_native_stack_was_walked() -> None:
    assert "native" not in closing_line(with_native_outcomes(NONE=5))


@pytest.mark.parametrize(
    ("names", "is_said"), [((), False), (("0xffffffff81000010",), True), (("0x1", "do_it"), False)]
)
def test_the_closing_line_says_why_no_kernel_function_is_named(names: tuple[str, ...], is_said: bool) -> None:
    stack = tuple(Frame(FrameKind.KERNEL, name) for name in names)
    samples = Counter({SampleKey(0, 0, 0, 0, True, Gil.UNKNOWN, Outcome.NOT_PYTHON, NativeOutcome.NONE): 1})
    profile = profile_with(recording(scheduler_cpu=None, lost=0), [Process(1, "a")], [Thread(1, "a")], [stack], samples)
    assert ("; kernel functions unnamed, as kernel.kptr_restrict hides" in closing_line(profile)) is is_said


def test_the_csv_counts_the_native_stacks_that_are_cut_short() -> None:
    profile = with_native_outcomes(COMPLETE=5, NONE=2, UNREADABLE=3, TOO_DEEP=1)
    assert [row["native_cut_short_samples"] for row in csv_rows(profile)] == ["4", "4"]
    assert [row["truncated_samples"] for row in csv_rows(profile)] == ["0", "0"]


def test_native_and_plumbing_frames_do_not_change_the_hottest_line() -> None:
    line = python("f", "/srv/app.py", 1, 4)
    stacks = [(line,), (line, native("list_sort")), (line, native("type_call", plumbing=True))]
    samples = Counter({SampleKey(0, 0, 0, at, False, Gil.HELD, Outcome.COMPLETE): 2 for at in range(3)})
    profile = profile_with(recording(), [Process(1, "a")], [Thread(1, "a")], stacks, samples)
    assert process_rows(profile)[0].hot_line == HotLine("/srv/app.py", "srv/app.py", 4, "f", 6)


def test_without_the_hosts_cpu_time_the_closing_line_gives_that_of_the_processes() -> None:
    profile = realistic_profile()
    profile.recording = recording(scheduler_cpu=None, lost=0)
    only = Selection(processes=(str(profile.processes[WORKER].pid),)).of(profile)
    assert closing_line(only).endswith(
        "0 lost; they account for 20.7 s of CPU, the scheduler charged these processes 20.4 s"
    )


@settings(deadline=None)
@given(profiles())
def test_the_outcomes_on_the_closing_line_add_up_to_the_samples(profile: Profile) -> None:
    line = re.sub(r" \(.*?\)", "", closing_line(profile)).replace(",", "")
    numbers = [int(number) for number in re.findall(r"(\d+) (?:samples?:|complete|truncated|not Python|without)", line)]
    assert numbers[0] == sum(numbers[1:]) == profile.total


@pytest.mark.parametrize(
    "profile", [realistic_profile(), hostile_profile(), wide_profile(300)], ids=["realistic", "hostile", "wide"]
)
def test_csv_table_folded_and_flame_graph_agree_to_the_sample(profile: Profile) -> None:
    rows = csv_rows(profile)
    folded = sum(int(line.rpartition(" ")[2]) for line in text_of("folded", profile).splitlines())
    (total,) = re.findall(r"total +([\d,]+)", text_of("table", profile))
    boxes = flame_boxes(labelled_stacks(profile, OutputOptions()), 0, 10**6)
    assert rows[-1]["name"] == "total"
    assert (
        {profile.total}
        == {int(rows[-1]["samples"]), sum(int(row["samples"]) for row in rows[:-1])}
        == {folded, int(total.replace(",", "")), boxes.samples[0]}
    )


def test_the_csv_holds_one_record_a_process_whatever_their_names() -> None:
    profile = hostile_profile()
    rows = csv_rows(profile)
    assert len(rows) == len(HOSTILE_NAMES) + 1
    assert text_of("csv", profile).count("\n") == len(rows) + 1
    cells = [cell for row in rows for cell in row.values()]
    assert all(cell.isprintable() for cell in cells)
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@")]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-bash", "@SUM(A1)", "  =1", "\uff1d1", "=\n1"])
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert spreadsheet_text(text) == "'" + text.replace("\n", r"\x0a")


@pytest.mark.parametrize("text", ["", " ", "python3 -m app", "a=b"])
def test_ordinary_text_stays(text: str) -> None:
    assert spreadsheet_text(text) == text


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_keeps_to_the_terminals_width(width: int) -> None:
    for profile in (realistic_profile(), wide_profile(200)):
        assert max(map(len, table(profile, width).splitlines())) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_shortens_texts_but_no_figure(width: int) -> None:
    celery = next(line for line in table(realistic_profile(), width).splitlines() if "celery" in line)
    assert re.search(r"1317  celery.* 3\.12\.4 +2,054  34\.6 +100 +0\.0 +100  20\.40  shop/", celery)


def test_the_table_tells_python_programs_apart_by_their_command_lines() -> None:
    assert "python3 nightly.py --all" in table(realistic_profile(), 120)


def test_the_table_shows_hostile_names_as_text() -> None:
    shown = table(hostile_profile(), 200)
    assert "\x1b" not in shown
    assert "[bold red]markup[/]" in shown
    assert r"\x1b[31mred" in shown


def test_processes_beyond_the_wanted_rows_are_one_row_and_the_totals_stay() -> None:
    profile = wide_profile(300)
    shown = table(profile, 160, rows=5)
    counts = [int(number.replace(",", "")) for number in re.findall(r"(?:worker-\d+ +3.12.4|more) +([\d,]+)", shown)]
    assert "35 more" in shown
    assert sum(counts) == profile.total


def test_a_profile_without_samples_has_a_table_of_zeros() -> None:
    rows = csv_rows(Profile(recording()))
    assert [(row["name"], row["samples"], row["cpu_percent"]) for row in rows] == [("total", "0", "0.00")]
    assert closing_line(Profile(recording())).startswith("0 samples: 0 complete")


def test_every_format_has_its_own_name_and_file() -> None:
    assert {name: each.file_name for name, each in OUTPUT_FORMATS.items()} == {
        "profile": "profile.json.gz",
        "folded": "stacks.folded",
        "svg": "flamegraph.svg",
        "html": "report.html",
        "csv": "processes.csv",
        "table": "processes.txt",
        "pprof": "profile.pb.gz",
        "speedscope": "speedscope.json",
        "firefox": "firefox-profile.json.gz",
        "jsonl": "stacks.jsonl",
    }
