"""The verifier: every BPF program is accepted, and soon enough to start at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "scripts"))
from kernel_cell import Load, load_all

from pyflame_ebpf.sampler import SamplerOptions

pytestmark = pytest.mark.root

ATTEMPTS = 3  # the verifier shares its CPU with whatever else runs here
OPTIONS = {
    "whole host": SamplerOptions(99),
    "processes and their children": SamplerOptions(99, targets_only=True, follow_children=True),
    "Python only": SamplerOptions(99, kernel=False, native=False),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_program_is_loaded_in_less_than_a_second(options):
    attempts = [load_all(options)]
    while len(attempts) < ATTEMPTS and slow(attempts):
        attempts.append(load_all(options))
    assert [(load.name, load.log) for load in attempts[0] if not load.loaded] == []
    assert slow(attempts) == {}


def slow(attempts: list[list[Load]]) -> dict[str, float]:
    """The programs that took a second or more at every attempt, and the least of their times."""
    least = {loads[0].name: min(load.seconds for load in loads) for loads in zip(*attempts, strict=True)}
    return {name: seconds for name, seconds in least.items() if seconds >= 1.0}
