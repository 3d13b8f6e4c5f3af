"""Recordings of a made-up host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import pytest

from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.recording import recorder as recorder_module
from pyflame_ebpf.recording.recorder import Recorder, RecordOptions
from pyflame_ebpf.recording.segment_cutter import WHOLE, SegmentPlan
from pyflame_ebpf.sampling.sampler import Sampler
from pyflame_ebpf.symbols.kallsyms import KernelSymbols
from pyflame_ebpf.tracking.tracked_processes import ProcessTable
from tests.recording.made_up_host import MadeUpHost
from tests.stacks.records import LAYOUT


class Start(Protocol):
    """Starts a recording of a host."""

    def __call__(
        self,
        host: MadeUpHost,
        plan: SegmentPlan = WHOLE,
        *,
        let_go: Callable[[], None] = ...,
        duration: float | None = None,
    ) -> Recorder:
        """The recorder, which has begun to sample."""


class NoKernelSymbols(KernelSymbols):
    """Knows no function."""

    def lookup(self, _address: int) -> tuple[str, str] | None:
        return None


def layout(_table: ProcessTable, _index: int) -> CPythonLayout:
    return LAYOUT


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(ProcessTable, "scan", lambda _table: 0)
    monkeypatch.setattr(ProcessTable, "layout", layout)
    monkeypatch.setattr(recorder_module, "KernelSymbols", NoKernelSymbols)

    def start(
        host: MadeUpHost,
        plan: SegmentPlan = WHOLE,
        *,
        let_go: Callable[[], None] = lambda: None,
        duration: float | None = None,
    ) -> Recorder:
        recorder = Recorder(RecordOptions(duration=duration), cast("Sampler", host), plan, let_go=let_go, clock=host)
        recorder.start()
        return recorder

    return start
