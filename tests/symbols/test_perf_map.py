"""Perf maps as JIT compilers write them, and as an attacker would."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.host import proc
from pyflame_ebpf.symbols import perf_map
from pyflame_ebpf.symbols.perf_map import PerfMap, PerfMaps, open_perf_map

OWN_MAP = Path(f"/tmp/perf-{os.getpid()}.map")


@pytest.fixture
def own_map() -> Iterator[Path]:
    OWN_MAP.unlink(missing_ok=True)
    yield OWN_MAP
    OWN_MAP.unlink(missing_ok=True)


def test_an_address_is_named_by_the_entry_that_holds_it() -> None:
    text = PerfMap(b"7f00 40 JS:*hot /a.js:1:2\n7f40 1c0 LazyCompile:~f\n")
    names = [text.at(address) for address in (0x7EFF, 0x7F00, 0x7F3F, 0x7F40, 0x80FF, 0x8100)]
    assert names == ["", "JS:*hot /a.js:1:2", "JS:*hot /a.js:1:2", "LazyCompile:~f", "LazyCompile:~f", ""]


def test_of_code_that_was_put_where_other_code_was_the_later_counts() -> None:
    text = PerfMap(b"1000 100 old\n1040 20 newer\n1000 80 newest\n")
    assert [text.at(address) for address in (0x1000, 0x1050, 0x1090)] == ["newest", "newest", "old"]


def test_lines_that_make_no_sense_are_left_out() -> None:
    text = PerfMap(b"zz\nffffffffffffffff ffff x\n1 0 empty\n10\n\xff\xfe 1 2\n20 4 good\n30 4 not ended")
    assert (len(text), text.at(0x20), text.at(0x32)) == (2, "good", "not ended")


def test_a_name_is_cut_and_may_hold_anything() -> None:
    text = PerfMap(b"10 10 " + b"\xff\x1b[2J" + b"x" * 100_000 + b"\n")
    assert text.at(0x10).startswith("\ufffd\x1b[2Jxxx")
    assert len(text.at(0x10)) < 2000


def test_a_large_map_is_bounded_in_time_and_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_map, "ENTRIES_MAX", 10_000)
    began = time.process_time()
    text = PerfMap(b"10 10 x\n" * 500_000)
    assert len(text) == 10_000
    assert time.process_time() - began < 2


def test_three_million_lines_take_two_seconds_and_no_more_memory_than_their_text() -> None:
    text = b"7f0000001000 1000 f\n" * 3_000_000
    began = time.thread_time()
    read = PerfMap(text)
    assert time.thread_time() - began < perf_map.SECONDS_MAX + 2  # the entries that were read are sorted then
    assert read.at(0x7F0000001000) == "f"
    assert read.size < 128 << 20


def test_all_maps_together_take_no_more_than_their_bound(own_map: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_map, "KEPT_MAX", 50)
    own_map.write_bytes(b"10 10 first\n")
    maps = PerfMaps()
    for key in (1, 2, 3):
        maps.watch(key, os.getpid())
    assert [maps.at(key, 0x10) for key in (1, 2, 3)] == ["first", "first", ""]
    maps.forget(1)
    maps.read_again()
    assert maps.at(3, 0x10) == "first"
    maps.close()


def test_a_map_that_is_a_link_is_not_followed(own_map: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"10 10 x\n")
    own_map.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        open_perf_map(os.getpid())


def test_a_map_that_is_a_fifo_is_refused_without_waiting(own_map: Path) -> None:
    os.mkfifo(own_map)
    with pytest.raises(OSError, match="not a regular file"):
        open_perf_map(os.getpid())


def owned_by(monkeypatch: pytest.MonkeyPatch, owner: int, process: int) -> None:
    """Let files belong to a user and processes to one."""
    fstat = os.fstat

    def with_owner(handle: int) -> os.stat_result:
        status = fstat(handle)
        return os.stat_result((*status[:4], owner, *status[5:10]))

    def user_id(_pid: int) -> int:
        return process

    monkeypatch.setattr(os, "fstat", with_owner)
    monkeypatch.setattr(proc, "user_id", user_id)


@pytest.mark.parametrize(("owner", "process"), [(4242, 4242), (0, 4242), (0, 0)])
def test_a_map_of_the_process_s_user_or_root_is_opened(
    own_map: Path, monkeypatch: pytest.MonkeyPatch, owner: int, process: int
) -> None:
    own_map.write_bytes(b"10 10 x\n")
    owned_by(monkeypatch, owner, process)
    with open_perf_map(os.getpid()) as file:
        assert file.read() == b"10 10 x\n"


@pytest.mark.parametrize(("owner", "process"), [(4242, 0), (4242, 4243)])
def test_a_map_of_another_user_is_refused_and_leaves_no_descriptor_open(
    own_map: Path, monkeypatch: pytest.MonkeyPatch, owner: int, process: int
) -> None:
    own_map.write_bytes(b"10 10 x\n")
    owned_by(monkeypatch, owner, process)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(PermissionError, match="it belongs to another user"):
        open_perf_map(os.getpid())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_map_is_read_late_and_also_when_it_was_deleted(own_map: Path) -> None:
    own_map.write_bytes(b"10 10 early\n")
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    with own_map.open("ab") as file:
        file.write(b"40 10 late\n")
    own_map.unlink()
    assert (maps.at("key", 0x11), maps.at("key", 0x41), maps.at("other", 0x11)) == ("early", "late", "")
    maps.close()


def test_a_map_that_appears_after_the_first_question_answers_the_next(own_map: Path) -> None:
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x11) == ""
    own_map.write_bytes(b"10 10 late\n")
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x11) == "late"
    maps.close()


def test_a_map_that_grows_is_read_again_when_that_is_asked_for(own_map: Path) -> None:
    own_map.write_bytes(b"10 10 early\n")
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x11) == "early"
    with own_map.open("ab") as file:
        file.write(b"40 10 late\n")
    maps.read_again()
    assert maps.at("key", 0x41) == "late"
    maps.close()


def test_the_map_has_the_pid_of_the_innermost_namespace_in_its_name(
    own_map: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_map.write_bytes(b"10 10 x\n")

    def innermost(pid: int) -> tuple[int, ...]:
        return pid, 4, os.getpid()

    monkeypatch.setattr(proc, "namespace_pids", innermost)
    with open_perf_map(os.getpid()) as file:
        assert file.read() == b"10 10 x\n"


def test_numbers_may_begin_with_0x_and_tabs_may_separate_them() -> None:
    text = PerfMap(b"0x10 0X8 a\n20\t8\t b c \n")
    assert [text.at(address) for address in (0x10, 0x17, 0x18, 0x20)] == ["a", "a", "", "b c"]


def test_an_entry_may_reach_to_the_last_address_and_no_further() -> None:
    text = PerfMap(b"fffffffffffffff0 10 last\nfffffffffffffff8 9 beyond\n")
    assert (len(text), text.at((1 << 64) - 1)) == (1, "last")


def test_entries_far_before_an_address_are_asked_whether_they_hold_it() -> None:
    def text(inner: int) -> PerfMap:
        return PerfMap(b"1000 1000 outer\n" + b"".join(b"%x 1 inner\n" % (0x1100 + 16 * each) for each in range(inner)))

    assert [text(inner).at(0x1F00) for inner in (31, 32)] == ["outer", ""]


def test_names_are_cut_at_one_kib_and_at_the_end_of_their_line() -> None:
    text = PerfMap(b"10 10 " + b"x" * 1023 + b"\n30 10 " + b"y" * 1024 + b"\n50 10 " + b"z" * 1025 + b"\n70 10 end")
    assert [text.at(address) for address in (0x10, 0x30, 0x50, 0x70)] == ["x" * 1023, "y" * 1024, "z" * 1024, "end"]


@pytest.mark.parametrize("size", [22, 23])
def test_a_map_is_read_up_to_a_size(own_map: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    own_map.write_bytes(b"10 10 first\n20 10 secon" + b"d" * 100)
    monkeypatch.setattr(perf_map, "BYTES_MAX", size)
    with open_perf_map(os.getpid()) as file:
        assert perf_map.read_perf_map(file).at(0x20) == "second"[: size - 18]
    assert PerfMap(own_map.read_bytes()).at(0x20) == "second"[: size - 18]


def test_so_many_maps_are_open_and_no_more(own_map: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_map.write_bytes(b"10 10 x\n")
    monkeypatch.setattr(perf_map, "OPEN_MAX", 2)
    maps = PerfMaps()
    for key in range(3):
        maps.watch(key, os.getpid())
    assert [maps.at(key, 0x10) for key in range(3)] == ["x", "x", ""]
    maps.forget(0)
    maps.watch(2, os.getpid())
    assert [maps.at(key, 0x10) for key in range(3)] == ["", "x", "x"]
    maps.close()


def test_a_map_is_opened_once_and_read_once(own_map: Path) -> None:
    own_map.write_bytes(b"10 10 early\n")
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x10) == "early"
    own_map.unlink()
    own_map.write_bytes(b"10 10 another\n40 10 late\n")
    maps.watch("key", os.getpid())
    maps.read_again()
    assert [maps.at("key", address) for address in (0x10, 0x40)] == ["early", ""]
    maps.close()


def test_maps_that_are_forgotten_or_closed_leave_no_descriptor_open(own_map: Path) -> None:
    own_map.write_bytes(b"10 10 x\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    maps = PerfMaps()
    for key in range(3):
        maps.watch(key, os.getpid())
    maps.forget(1)
    maps.forget("unknown")
    maps.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_process_has_a_map_if_it_can_be_read(own_map: Path) -> None:
    assert not perf_map.has_perf_map(os.getpid())
    own_map.write_bytes(b"")
    assert perf_map.has_perf_map(os.getpid())


def test_a_process_with_the_key_of_one_that_was_forgotten_has_its_own_map(own_map: Path) -> None:
    own_map.write_bytes(b"10 10 first\n")
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x10) == "first"
    maps.forget("key")
    own_map.write_bytes(b"10 10 second\n")
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x10) == "second"
    maps.close()
