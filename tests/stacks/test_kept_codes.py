"""What is kept of code objects: shared by contents, within bounds, the least needed given up first."""

from __future__ import annotations

import os
import tracemalloc

from pyflame_ebpf.cpython.code_objects import Code
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.sampling.events import CodeEvent
from pyflame_ebpf.stacks.collected import Collected
from pyflame_ebpf.stacks.kept_codes import KeptCodes
from tests.stacks.records import IDENTITY, FakeMemory, python_frame, stack_event, str_object

LAYOUT = LAYOUTS[3, 12]
LINE = LAYOUT.code_instructions  # the position of the first instruction


def named(name: str, first_line: int = 10) -> Code:
    """A code object whose lines are not read yet."""
    return Code(name, "app.py", first_line, None, LAYOUT)


def table_of(number: int, size: int = 1000) -> bytes:
    """A table of its own, whose first instruction is one line below the code object's first."""
    return b"\xd8\x01" + f"{number:08d}".encode().ljust(size)


def lines_of(kept: KeptCodes, *code_ids: int) -> list[int | None]:
    """The line of each code object's first instruction; None if it is not kept."""
    found = [kept.get(code_id) for code_id in code_ids]
    return [code.line_at(LINE) if code else None for code in found]


def test_equal_code_objects_take_the_place_of_one() -> None:
    kept = KeptCodes()
    kept.add(1, named("f"), table_of(1))
    size = kept.size
    for code_id in range(2, 50):
        kept.add(code_id, named("f"), table_of(1))
    assert kept.size == size
    assert kept.get(49) == kept.get(1)
    kept.add(50, named("f", first_line=11), table_of(1))
    assert kept.size > size
    assert lines_of(kept, 1, 50) == [11, 12]


def test_tables_over_the_bound_are_given_up_and_counted_but_names_stay() -> None:
    kept = KeptCodes(tables_max=5000)
    for code_id in range(9):
        kept.add(code_id, named(f"f{code_id}"), table_of(code_id))
    assert lines_of(kept, *range(9)) == [0] * 6 + [11] * 3
    assert (kept.lines_given_up, kept.given_up) == (6, 0)
    first = kept.get(0)
    assert first is not None
    assert (first.name, first.first_line) == ("f0", 10)


def test_what_new_stacks_need_is_given_up_last() -> None:
    kept = KeptCodes(tables_max=5000)
    kept.add(1000, named("main"), table_of(1000))
    for code_id in range(20):
        kept.add(code_id, named(f"f{code_id}"), table_of(code_id))
        kept.need({1000})
    assert lines_of(kept, 1000, 0, 19) == [11, 0, 11]


def test_a_table_that_comes_again_is_kept_again() -> None:
    kept = KeptCodes(tables_max=3000)
    for code_id in (1, 2, 3):
        kept.add(code_id, named("f"), table_of(code_id))
    assert lines_of(kept, 1) == [0]
    kept.add(4, named("f"), table_of(1))
    assert lines_of(kept, 1, 4) == [11, 11]


def test_names_over_their_bound_are_given_up_and_counted() -> None:
    kept = KeptCodes(names_max=5000)
    for code_id in range(20):
        kept.add(code_id, named(f"f{code_id}"), table_of(code_id))
    assert 5 < kept.given_up < 15
    assert [code_id in kept for code_id in (0, 19)] == [False, True]
    assert (kept.get(0), kept.get(19)) == (None, Code("f19", "app.py", 10, kept.get(19).lines, LAYOUT))  # type: ignore[union-attr]
    assert kept.size < 5000 + 20 * 1500


def test_more_ids_than_are_told_apart_are_given_up_and_counted() -> None:
    kept = KeptCodes(ids_max=100)
    for code_id in range(1001):
        kept.add(code_id, named("f"), table_of(0))
        kept.need({0})
    assert kept.given_up == 1001 - sum(code_id in kept for code_id in range(1001)) > 900
    assert [code_id in kept for code_id in (0, 500, 1000)] == [True, False, True]


def test_it_is_crowded_from_half_of_a_bound_on() -> None:
    for kept in (KeptCodes(tables_max=6000), KeptCodes(names_max=2200), KeptCodes(ids_max=4)):
        kept.add(1, named("f1"), table_of(1))
        kept.add(2, named("f2"), table_of(2))
        assert not kept.crowded
        kept.add(3, named("f3"), table_of(3))
        assert kept.crowded


def test_dropped_code_objects_leave_nothing() -> None:
    kept = KeptCodes(tables_max=3000)
    for code_id in range(10):
        kept.add(code_id, named(f"f{code_id % 5}"), table_of(code_id % 4))
    kept.drop(range(20))
    assert (kept.size, 3 in kept) == (0, False)


def test_names_that_were_given_up_leave_no_text_in_memory() -> None:
    kept = KeptCodes(tables_max=50_000, names_max=50_000)
    tracemalloc.start()
    for code_id in range(2000):
        kept.add(code_id, named(f"{code_id:04}" * 1000), table_of(code_id, 4000))
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept.given_up > 1900
    assert left < 1_000_000  # of 16 MB


def code_event(number: int, name: str, table: bytes) -> CodeEvent:
    """A code object of CPython 3.12 that was copied whole."""
    return CodeEvent(
        identity=IDENTITY,
        layout=0,
        code_id=number,
        address=0,
        name_address=0,
        file_address=0,
        line_table_address=0,
        first_line=10,
        missing=0,
        name=str_object(name, LAYOUT),
        file=str_object("<generated>", LAYOUT),
        line_table=table,
    )


def replayed(codes: int, *, distinct: bool) -> tuple[Collected, int]:
    """A service whose samples meet a new code object each: (what was collected, peak of memory in bytes)."""
    collected = Collected(FakeMemory().read)
    collected.kept.begin_segment(0.0)
    noise = os.urandom(16 << 10).translate(bytes(byte & 0x7F for byte in range(256)))
    tracemalloc.start()
    collected.add_code(code_event(0, "main", table_of(0)), LAYOUT)
    for number in range(1, codes):
        name, table = (f"f{number}", table_of(number, 0) + noise) if distinct else ("f", table_of(1, 0) + noise)
        collected.add_code(code_event(number, name, table), LAYOUT)
        stack = stack_event(python_frame(LINE, number), python_frame(LINE, 0), stack_id=number)
        collected.add_stack(stack, LAYOUT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return collected, peak


def test_generated_code_of_other_contents_each_time_stays_within_bounds() -> None:
    """4,000 tables of 16 KiB are 66 MB; decoded ones took ten times as much."""
    collected, peak = replayed(4_000, distinct=True)
    assert peak < 40 << 20
    newest, main, oldest = (collected.codes.get(code_id) for code_id in (3_999, 0, 1))
    assert newest is not None
    assert main is not None
    assert oldest is not None
    assert [newest.line_at(LINE), main.line_at(LINE), oldest.line_at(LINE)] == [11, 11, 0]
    assert (collected.codes.lines_given_up > 1_900, collected.codes.given_up) == (True, 0)


def test_generated_code_of_the_same_contents_loses_nothing() -> None:
    collected, peak = replayed(4_000, distinct=False)
    assert peak < 5 << 20
    assert (collected.codes.lines_given_up, collected.codes.given_up) == (0, 0)
    oldest = collected.codes.get(1)
    assert oldest is not None
    assert oldest.line_at(LINE) == 11
