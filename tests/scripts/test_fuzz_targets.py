"""The fuzzer has a target for each reader of untrusted bytes, and each survives its own seeds, damaged."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from _fuzz_targets import TARGETS

PACKAGE = Path(__file__).resolve().parent.parent.parent / "pyflame_ebpf"
# Modules that are handed bytes of a target, of a file, or of a text of the kernel into which targets write names.
READERS_OF_UNTRUSTED_BYTES = {
    "cpython.code_objects",
    "cpython.debug_offsets",
    "cpython.file_facts",
    "cpython.line_table",
    "elf.file",
    "elf.function_table",
    "elf.image",
    "elf.notes",
    "elf.plt",
    "elf.symbol_search",
    "elf.symbols",
    "host.btf",
    "host.maps",
    "host.proc",
    "host.process_stat",
    "profile.columns",
    "profile.file",
    "profile.file_reader",
    "profile.folded_file",
    "profile.folded_frames",
    "profile.json_text",
    "profile.source_text",
    "sampling.events",
    "stacks.weave",
    "symbols.debug_files",
    "symbols.demangle",
    "symbols.kallsyms",
    "symbols.perf_map",
    "unwind.call_frame_information",
    "unwind.dwarf_numbers",
    "unwind.frame_entries",
    "unwind.frame_index",
    "unwind.page_rows",
    "unwind.rows",
    "unwind.walk",
}
DAMAGES = 40
SLOW = ("altered", "foldedout")  # write every output for each input
TIME_MAX = 60.0  # seconds of one target here


def test_every_reader_of_untrusted_bytes_has_a_target() -> None:
    guided = {module for target in TARGETS.values() for module in target.modules}
    assert READERS_OF_UNTRUSTED_BYTES - guided == set()


def test_the_modules_of_the_targets_exist() -> None:
    for module in {module for target in TARGETS.values() for module in target.modules}:
        assert (PACKAGE / f"{module.replace('.', '/')}.py").is_file(), module


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_survives_its_damaged_seeds(name: str, tmp_path: Path) -> None:
    """Each seed with a byte changed, cut or doubled; the fuzzer itself goes on for longer."""
    target, chosen = TARGETS[name], random.Random(name)
    seeds = list(target.seeds(tmp_path))
    assert seeds
    began = time.process_time()
    for data in seeds[:3] if name in SLOW else seeds:
        target.read(data)
        for _ in range(2 if name in SLOW else DAMAGES):
            place = chosen.randrange(len(data))
            target.read(data[:place])
            target.read(data[:place] + bytes([data[place] ^ 1 << chosen.randrange(8)]) + data[place + 1 :])
            target.read(data[:place] + data[place : place + 40] + data[place:])
    target.read(b"")
    assert time.process_time() - began < TIME_MAX
