"""The verifier: every BPF program is accepted, and soon enough to start at once."""

from __future__ import annotations

import pytest
from kernel_cell import load_all

from pyflame_ebpf.sampling.programs import SamplerOptions

pytestmark = pytest.mark.root

OPTIONS = {
    "whole host": SamplerOptions(99),
    "processes and their children": SamplerOptions(99, targets_only=True, follow_children=True),
    "Python only": SamplerOptions(99, kernel=False, native=False),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_program_is_loaded_in_less_than_a_second(options: SamplerOptions) -> None:
    loads = load_all(options)
    assert [(load.name, load.log) for load in loads if not load.loaded] == []
    assert {load.name: load.seconds for load in loads if load.seconds >= 1.0} == {}  # seconds of CPU
