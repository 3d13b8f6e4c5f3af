"""What the data model says in outputs and by default."""

from __future__ import annotations

from pyflame_ebpf.profile.model import Clock, Frame, FrameKind, Gil, NativeOutcome, Outcome
from tests.profiles import realistic_profile


def test_a_frame_has_no_file_no_line_and_is_no_plumbing_unless_it_is_told() -> None:
    assert Frame(FrameKind.NATIVE, "main") == Frame(FrameKind.NATIVE, "main", "", 0, 0, plumbing=False)


def test_outcomes_are_called_as_outputs_print_them() -> None:
    assert [each.value for each in Outcome] == [
        "complete",
        "not Python",
        "process not identified yet",
        "thread state not found",
        "thread state unreadable",
        "frame unreadable",
        "code object unreadable",
        "too deep",
        "stack lost",
    ]
    assert [each.value for each in NativeOutcome] == [
        "complete",
        "no native frames",
        "mapping not known yet",
        "unwind rows not there yet",
        "no unwind data",
        "unwind rule not supported",
        "stack unreadable",
        "stack does not advance",
        "too deep",
    ]
    assert [each.value for each in Gil] == ["held", "not held", "unknown"]
    assert [each.value for each in Clock] == ["cpu", "off-cpu", "wall"]


def test_processes_come_by_their_samples_the_busiest_first() -> None:
    samples = [samples.total() for _, samples in realistic_profile().by_process()]
    assert samples == sorted(samples, reverse=True)
    assert sum(samples) == realistic_profile().total
