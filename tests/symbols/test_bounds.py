"""How much memory and time names may take, whatever files and programs say."""

from __future__ import annotations

from pyflame_ebpf.symbols import debug_files, demangle, known_files, native_symbols, perf_map

MIB = 1024 * 1024


def test_debug_files_are_unpacked_and_checked_within_bounds() -> None:
    assert debug_files.UNPACKED_MAX == 32 * MIB
    assert (debug_files._PACKED_MAX, debug_files._LZMA_MEMORY_MAX) == (8 * MIB, 20 * MIB)
    assert (debug_files._CHECKSUM_MAX, debug_files._CHECKSUMS_MAX) == (1024 * MIB, 4096 * MIB)
    assert debug_files._REMEMBERED_MAX == 65536


def test_perf_maps_are_read_within_bounds() -> None:
    assert (perf_map.BYTES_MAX, perf_map.ENTRIES_MAX, perf_map.OPEN_MAX) == (64 * MIB, 1048576, 512)


def test_names_and_mappings_are_kept_within_bounds() -> None:
    assert (native_symbols.KEPT_MAX, known_files.PLACES_MAX) == (64 * MIB, 65536)


def test_a_name_may_take_a_quarter_of_a_second() -> None:
    assert (demangle._PATIENCE, demangle._START_PATIENCE, demangle._DEATHS_MAX) == (0.25, 10.0, 8)
