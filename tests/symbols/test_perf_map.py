"""Perf maps as JIT compilers write them, and as an attacker would."""

import os
import time
from pathlib import Path

import pytest

from pyflame_ebpf.host import proc
from pyflame_ebpf.symbols import perf_map
from pyflame_ebpf.symbols.perf_map import PerfMap, PerfMaps, open_perf_map

OWN_MAP = Path(f"/tmp/perf-{os.getpid()}.map")


@pytest.fixture
def own_map():
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


def test_a_map_that_is_a_link_is_not_followed(own_map, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"10 10 x\n")
    own_map.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        open_perf_map(os.getpid())


def test_a_map_that_is_a_fifo_is_refused_without_waiting(own_map) -> None:
    os.mkfifo(own_map)
    with pytest.raises(OSError, match="not a regular file"):
        open_perf_map(os.getpid())


def test_a_map_of_another_user_is_refused(own_map, monkeypatch: pytest.MonkeyPatch) -> None:
    own_map.write_bytes(b"10 10 x\n")
    monkeypatch.setattr(
        os, "fstat", lambda handle, real=os.fstat: os.stat_result((*real(handle)[:4], 4242, *real(handle)[5:10]))
    )
    with pytest.raises(OSError, match="another user"):
        open_perf_map(os.getpid())


def test_a_map_is_read_late_and_also_when_it_was_deleted(own_map) -> None:
    own_map.write_bytes(b"10 10 early\n")
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    with own_map.open("ab") as file:
        file.write(b"40 10 late\n")
    own_map.unlink()
    assert (maps.at("key", 0x11), maps.at("key", 0x41), maps.at("other", 0x11)) == ("early", "late", "")
    maps.close()


def test_a_map_that_appears_after_the_first_question_answers_the_next(own_map) -> None:
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x11) == ""
    own_map.write_bytes(b"10 10 late\n")
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x11) == "late"
    maps.close()


def test_a_map_that_grows_is_read_again_when_that_is_asked_for(own_map) -> None:
    own_map.write_bytes(b"10 10 early\n")
    maps = PerfMaps()
    maps.watch("key", os.getpid())
    assert maps.at("key", 0x11) == "early"
    with own_map.open("ab") as file:
        file.write(b"40 10 late\n")
    maps.read_again()
    assert maps.at("key", 0x41) == "late"
    maps.close()


def test_the_map_has_the_pid_of_the_innermost_namespace_in_its_name(own_map, monkeypatch: pytest.MonkeyPatch) -> None:
    own_map.write_bytes(b"10 10 x\n")
    monkeypatch.setattr(proc, "namespace_pids", lambda pid: (pid, 4, os.getpid()))
    with open_perf_map(os.getpid()) as file:
        assert file.read() == b"10 10 x\n"
