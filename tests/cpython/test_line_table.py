"""Line tables: each format by hand-made tables, garbage, and the interpreters' own reading."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.cpython.line_table import LineRanges, LineTable, LineTableFormat, decode_lines

ROOT = Path(__file__).parent.parent.parent
CHECK_LINES = ROOT / "scripts" / "check_lines.py"
INTERPRETERS = [sys.executable, *sorted(map(str, Path("~/.pyenv/versions").expanduser().glob("*/bin/python?.*[0-9]")))]


def test_lnotab_lines_go_forward_and_back() -> None:
    table = bytes([6, 1, 4, 0xFF, 2, 3])
    assert decode_lines(LineTableFormat.LNOTAB, table, 10) == LineRanges(10, (0, 6, 10, 12), (10, 11, 10, 13))


def test_unsigned_lnotab_never_goes_back() -> None:
    decoded = decode_lines(LineTableFormat.LNOTAB_UNSIGNED, bytes([6, 1, 4, 0xFF]), 10)
    assert decoded == LineRanges(10, (0, 6, 10), (10, 11, 266))


def test_lnotab_adds_up_large_steps() -> None:
    table = bytes([255, 0, 45, 127, 0, 73])
    assert decode_lines(LineTableFormat.LNOTAB, table, 1) == LineRanges(1, (0, 300), (1, 201))


def test_310_entry_without_line_keeps_the_count() -> None:
    table = bytes([4, 0, 2, 0x80, 4, 2, 0, 100, 2, 0xFF])
    decoded = decode_lines(LineTableFormat.LINETABLE_310, table, 5)
    assert decoded == LineRanges(5, (0, 4, 6, 10, 12), (5, 0, 7, 106, 0))


def test_locations_of_every_kind() -> None:
    entries = [
        [0x80 | 3 << 3 | 1, 0x12],  # short: 2 units, same line
        [0x80 | 12 << 3, 4, 9],  # one line, delta 2: 1 unit
        [0x80 | 15 << 3 | 7],  # none: 8 units
        [0x80 | 13 << 3, 0b111],  # no columns, delta -3: 1 unit
        [0x80 | 14 << 3, 0x40 | 0, 0b100, 1, 2, 3],  # long, delta 128 in two chunks: 1 unit
    ]
    table = b"".join(map(bytes, entries))
    decoded = decode_lines(LineTableFormat.LOCATIONS, table, 20)
    assert decoded == LineRanges(20, (0, 4, 6, 22, 24, 26), (20, 22, 0, 19, 147, 0))


def test_frame_that_has_not_started_is_on_the_first_line() -> None:
    assert decode_lines(LineTableFormat.LOCATIONS, b"", 7).line_at(-1) == 7


@pytest.mark.parametrize("table_format", LineTableFormat)
@given(
    table=st.binary(max_size=300),
    first_line=st.integers(-(2**31), 2**31 - 1),
    lastis=st.lists(st.integers(-(2**31), 2**31 - 1)),
)
def test_garbage_gives_a_line_or_none(
    table_format: LineTableFormat, table: bytes, first_line: int, lastis: list[int]
) -> None:
    decoded = decode_lines(table_format, table, first_line)
    assert all(0 <= decoded.line_at(lasti) < 2**31 for lasti in lastis)
    assert list(decoded.starts) == sorted(set(decoded.starts))
    assert len(decoded.starts) == len(decoded.lines) <= len(table) + 2


@given(table=st.binary(max_size=300), cut=st.integers(0, 300))
def test_cut_table_tells_the_same_lines_as_far_as_it_goes(table: bytes, cut: int) -> None:
    whole = decode_lines(LineTableFormat.LINETABLE_310, table, 50)
    part = decode_lines(LineTableFormat.LINETABLE_310, table[: cut // 2 * 2], 50)
    told = part.starts[-1]
    assert [part.line_at(lasti) for lasti in range(told)] == [whole.line_at(lasti) for lasti in range(told)]


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_lines_are_those_of_the_interpreter_itself(interpreter: str) -> None:
    """Sixty files of its standard library, every instruction of every code object."""
    command = [sys.executable, str(CHECK_LINES), "--sample", "60", interpreter]
    run = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    figures = re.search(r"^1 interpreters, (\d+) positions: (\d+) wrong$", run.stdout, re.MULTILINE)
    assert figures, run.stdout + run.stderr
    assert int(figures[1]) > 10_000
    assert (int(figures[2]), run.returncode) == (0, 0), run.stdout


LONG = bytes([0x80 | 14 << 3, 0x40, 0b100, 1, 2, 3])  # one unit, line delta 128 in two chunks


@pytest.mark.parametrize(
    ("table_format", "table", "expected"),
    [
        (LineTableFormat.LNOTAB, bytes([6, 1, 4]), LineRanges(20, (0, 6), (20, 21))),
        (LineTableFormat.LNOTAB_UNSIGNED, bytes([6, 1, 4]), LineRanges(20, (0, 6), (20, 21))),
        (LineTableFormat.LINETABLE_310, bytes([6, 1, 4]), LineRanges(20, (0, 6), (21, 0))),
        (LineTableFormat.LOCATIONS, LONG[:1], LineRanges(20, (0, 2), (20, 0))),
        (LineTableFormat.LOCATIONS, LONG[:2], LineRanges(20, (0, 2), (20, 0))),
        (LineTableFormat.LOCATIONS, LONG[:3], LineRanges(20, (0, 2), (148, 0))),
        (LineTableFormat.LOCATIONS, b"\x12" + LONG, LineRanges(20, (0, 2), (148, 0))),
    ],
)
def test_a_table_that_is_cut_short_tells_what_is_left_of_it(
    table_format: LineTableFormat, table: bytes, expected: LineRanges
) -> None:
    assert decode_lines(table_format, table, 20) == expected


def varint_of(*chunks: int) -> LineRanges:
    """What a line delta of these chunks makes of line 1, in an entry of one unit."""
    return decode_lines(LineTableFormat.LOCATIONS, bytes([0x80 | 13 << 3, *chunks]), 1)


def test_a_line_delta_takes_six_chunks_and_no_more() -> None:
    assert varint_of(0b10).lines == (2, 0)
    assert varint_of(0x42, 1).lines == (1 + (2 | 1 << 6) // 2, 0)
    assert varint_of(0x40, 0x40, 0x40, 0x40, 0x40, 0x02).lines == (1 + (1 << 30), 0)
    assert varint_of(0x40, 0x40, 0x40, 0x40, 0x40, 0x04).lines == (0,)  # more lines than there are
    assert varint_of(0x40, 0x40, 0x40, 0x40, 0x02).lines == (1 + (1 << 24), 0)
    assert varint_of(0x42, 0x40, 0x40, 0x40, 0x40, 0x40, 0x01).lines == (2, 0)


@pytest.mark.parametrize(("first_line", "line"), [(0, 0), (1, 1), (2**31 - 1, 2**31 - 1), (2**31, 0), (-1, 0)])
def test_lines_are_positive_c_ints(first_line: int, line: int) -> None:
    decoded = decode_lines(LineTableFormat.LNOTAB, b"", first_line)
    assert decoded == LineRanges(max(first_line, 0), (0,), (line,))


@pytest.mark.parametrize(("lasti", "line"), [(-1, 10), (0, 10), (5, 10), (6, 11), (9, 11), (10, 14), (9999, 14)])
def test_a_line_holds_up_to_the_next_start(lasti: int, line: int) -> None:
    assert LineRanges(10, (0, 6, 10), (10, 11, 14)).line_at(lasti) == line


def test_before_the_first_start_there_is_no_line() -> None:
    assert LineRanges(10, (4,), (11,)).line_at(3) == 0


@pytest.mark.parametrize(("kind", "delta"), [(0, 0), (9, 0), (10, 0), (11, 1), (12, 2)])
def test_short_kinds_go_on_by_two_lines_at_most(kind: int, delta: int) -> None:
    table = bytes([0x80 | kind << 3 | 3, 1])
    assert decode_lines(LineTableFormat.LOCATIONS, table, 20) == LineRanges(20, (0, 8), (20 + delta, 0))


# ---- packed tables ----


@pytest.mark.parametrize("table_format", LineTableFormat)
@given(
    table=st.binary(max_size=300),
    first_line=st.integers(-(2**31), 2**31 - 1),
    lastis=st.lists(st.integers(-2, 2000)),
)
def test_a_packed_table_answers_as_the_decoded_one(
    table_format: LineTableFormat, table: bytes, first_line: int, lastis: list[int]
) -> None:
    packed, decoded = LineTable(table_format, table, first_line), decode_lines(table_format, table, first_line)
    assert [packed.line_at(lasti) for lasti in lastis] == [decoded.line_at(lasti) for lasti in lastis]


LONG_TABLES = {
    LineTableFormat.LNOTAB_UNSIGNED: bytes([2, 1, 0, 1, 4, 0]) * 10_000,
    LineTableFormat.LNOTAB: bytes([2, 5, 0, 0xFE, 4, 0]) * 10_000,
    LineTableFormat.LINETABLE_310: bytes([2, 5, 4, 0x80, 0, 3, 2, 0xFF]) * 10_000,
    LineTableFormat.LOCATIONS: bytes([0xD9, 1, 0xF8, 0xE8, 0x42, 1, 0xF0, 7, 1, 2, 3]) * 10_000,
}


@pytest.mark.parametrize("table_format", LineTableFormat)
def test_questions_in_any_order_go_on_from_marks(table_format: LineTableFormat) -> None:
    table = LONG_TABLES[table_format]
    packed, decoded = LineTable(table_format, table, 7), decode_lines(table_format, table, 7)
    end = decoded.starts[-1]
    lastis = [*range(0, end, end // 97), end, end + 2, *range(end, 0, -(end // 89))]
    assert [packed.line_at(lasti) for lasti in lastis] == [decoded.line_at(lasti) for lasti in lastis]


def test_a_second_question_walks_a_few_thousand_entries_only() -> None:
    """A thousand questions walked from the beginning would take minutes."""
    table = LineTable(LineTableFormat.LNOTAB, bytes([2, 1]) * (1 << 19), 1)
    assert table.line_at(1 << 30) == 1 + (1 << 19)
    began = time.thread_time()
    assert [table.line_at(place) for place in range(1 << 20, 0, -1048)][-1] > 0
    assert time.thread_time() - began < 5


def test_an_early_position_of_a_large_table_is_found_at_once() -> None:
    table = LineTable(LineTableFormat.LOCATIONS, bytes([0xD8, 1]) * (1 << 19), 1)
    tracemalloc.start()
    began = time.thread_time()
    assert table.line_at(6) == 5
    spent, (_, peak) = time.thread_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (spent < 0.01, peak < 10_000) == (True, True)
