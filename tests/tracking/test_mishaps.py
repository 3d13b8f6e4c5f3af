"""What went wrong for single processes: counted, told once, logged."""

from __future__ import annotations

import pytest

from pyflame_ebpf.host import guarded_reads
from pyflame_ebpf.host.guarded_reads import GuardedReads
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.tracking.mishaps import OF_ALL, TOLD_MAX, Mishaps


def process(pid: int) -> Identity:
    return Identity(1, pid, 0)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_process_is_named_once_and_each_kind_of_defect_is_logged_once() -> None:
    told: list[str] = []
    logged: list[Exception] = []

    def log(error: Exception) -> str:
        logged.append(error)
        return "/tmp/report"

    mishaps = Mishaps(told.append, log)
    first, second = raised(KeyError("a")), raised(KeyError("b"))
    for identity in (process(7), process(7), process(8)):
        mishaps.defect(first if identity.tgid == process(7).tgid else second, identity)
    mishaps.defect(raised(ValueError("c")), OF_ALL)
    defect = "for a defect in pyflame-ebpf"
    where = "; what is known of it is in /tmp/report; please send it to the project"
    assert told == [
        f"process 7 may lack names, {defect}: KeyError: 'a'{where}",
        f"process 8 may lack names, {defect}: KeyError: 'b'",
        f"the recording may lack names, {defect}: ValueError: c{where}",
    ]
    assert [type(error) for error in logged] == [KeyError, ValueError]
    assert mishaps.counters() == {"reads_given_up": 0, "defects": 4, "files_over_budget": 0}


def test_no_more_than_some_are_told() -> None:
    told: list[str] = []
    mishaps = Mishaps(told.append)
    for pid in range(1, 100):
        mishaps.defect(raised(KeyError("a")), process(pid))
    assert len(told) == TOLD_MAX + 1
    assert told[-1] == "there is more of that kind, which is counted only"
    assert mishaps.counters()["defects"] == 99


def test_reads_that_were_given_up_are_told_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    reads = GuardedReads()
    monkeypatch.setattr(guarded_reads, "_reads", reads)
    monkeypatch.setattr(GuardedReads, "given_up", 3)
    monkeypatch.setattr(reads, "_names", ["process 7 (x)"])
    mishaps = Mishaps(told.append)
    for _ in range(2):
        mishaps.look()
    assert told == ["given up: reading process 7 (x) did not return"]
    assert mishaps.counters() == {"reads_given_up": 3, "defects": 0, "files_over_budget": 0}


def test_a_file_over_its_budget_is_told_and_counted_once() -> None:
    told: list[str] = []
    mishaps = Mishaps(told.append)
    for file in ("'/lib/a.so'", "'/lib/a.so'", "'/lib/b.so'"):
        mishaps.over_budget(file)
    assert mishaps.counters()["files_over_budget"] == 2
    assert told[0] == "'/lib/a.so' takes too much time or memory to read: stacks may end in it"
