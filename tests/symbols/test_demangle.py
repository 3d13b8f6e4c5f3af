"""Names of C++ and Rust, and names made to break what demangles them."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflame_ebpf.host.proc import status_field
from pyflame_ebpf.symbols import demangle
from pyflame_ebpf.symbols.demangle import Demangler
from tests.interpreters import has_capability

CAP_SETUID = 7  # include/uapi/linux/capability.h


@pytest.fixture(scope="module")
def demangler() -> Iterator[Demangler]:
    demangler = Demangler()
    yield demangler
    demangler.close()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no demangler for Python 3.10")
@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int>>::push_back(int const&)"),
        ("_ZN5boost3foo3barEi.cold", "boost::foo::bar(int) (.cold)"),
        ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
        ("_ZN30_$LT$Test$u20$as$u20$Trait$GT$3bar17h0123456789abcdefE", "<Test as Trait>::bar"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_RNvCs1234_7mycrate3foo.llvm.1234", "mycrate::foo"),
    ],
)
def test_names_are_as_their_authors_wrote_them(demangler: Demangler, mangled: str, name: str) -> None:
    assert demangler.demangle(mangled) == name


@pytest.mark.parametrize("name", ["main", "", "_Z", "_R", "_Zfoo\n_Z1fv", "_Z1f\0v", "_Z\udcff", "_ZN3fooE\u202e", "i"])
def test_what_is_no_mangled_name_stays(demangler: Demangler, name: str) -> None:
    assert demangler.demangle(name) == name


def doubling(times: int) -> str:
    """A name whose demangled form doubles in length with each of its parts."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "_Z1fP1A" + "".join(f"MS{digits[number]}_S{digits[number]}_" for number in range(times))


@pytest.mark.parametrize(
    "name",
    [doubling(32), "_Z1f" + "P" * 4000 + "i", "_Z1f" + "I" * 4000, "_RINvC1a1b" + "R" * 4000 + "uE", "_Z" + "N" * 9000],
)
def test_a_name_that_is_too_much_ends_soon_and_harms_no_later_one(name: str) -> None:
    demangler = Demangler()
    demangler.demangle("_Z1fv")
    began = time.monotonic()
    assert len(demangler.demangle(name)) <= max(len(name), 2048)
    assert demangler.demangle("_Z1gv") in ("g()", "_Z1gv" if sys.version_info < (3, 11) else "g()")
    assert time.monotonic() - began < 5
    demangler.close()


def test_names_that_are_too_much_are_given_up_after_a_few() -> None:
    demangler = Demangler()
    began = time.monotonic()
    for times in range(30, 34):
        demangler.demangle(doubling(times))
    assert demangler.deaths == (4 if sys.version_info >= (3, 11) else 0)
    assert time.monotonic() - began < 10
    demangler.deaths = 8
    assert demangler.demangle("_Z1hv") == "_Z1hv"
    demangler.close()


def test_many_open_files_are_no_hindrance(many_open_files: None) -> None:
    demangler = Demangler()
    assert demangler.demangle("_Z1fv") in ("f()", "_Z1fv" if sys.version_info < (3, 11) else "f()")
    assert not demangler.deaths
    demangler.close()


class Answering(Demangler):
    """A demangler whose worker gives known answers."""

    def __init__(self, **answers: str) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[str] = []

    def _ask(self, name: str) -> str:
        self.asked.append(name)
        return self.answers.get(name, "")


def test_the_worker_is_asked_once_for_each_name() -> None:
    demangler = Answering(_Z1f="f()")
    assert [demangler.demangle(name) for name in ("_Z1f", "_Z1f", "_Z1g", "_Z1g", "main")] == [
        "f()",
        "f()",
        "_Z1g",
        "_Z1g",
        "main",
    ]
    assert demangler.asked == ["_Z1f", "_Z1g"]


@pytest.mark.parametrize("prefix", ["_Z", "_R"])
def test_names_of_up_to_four_kib_are_demangled(prefix: str) -> None:
    demangler = Answering()
    for length in (3, 4096, 4097):
        demangler.demangle(prefix.ljust(length, "x"))
    assert [len(name) for name in demangler.asked] == [3, 4096]


LEGACY = "_ZN1a17h0123456789abcdefE"


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("a::b::h0123456789abcdef", "a::b"),
        ("a::b::h0123456789abcdef (.llvm.123)", "a::b"),
        ("a::b::h0123456789abcdef (.cold)", "a::b (.cold)"),
        ("a::h0123456789abcdef::b", "a::h0123456789abcdef::b"),
        ("a::h0123456789abcde", "a::h0123456789abcde"),
        ("_$LT$a$GT$..b", "<a>::b"),
        ("$SP$$BP$$RF$$LT$$GT$$LP$$RP$$C$", "@*&<>(),"),
        ("$u20$$u7e$$u10ffff$", " ~\U0010ffff"),
        ("$u1f$$u0$$u110000$$XX$", "$u1f$$u0$$u110000$$XX$"),
    ],
)
def test_rust_s_older_names_lose_their_hash_and_escapes(answer: str, name: str) -> None:
    assert Answering(**{LEGACY: answer}).demangle(LEGACY) == name
    assert Answering(**{f"{LEGACY}.llvm.7": answer}).demangle(f"{LEGACY}.llvm.7") == name


def test_other_names_keep_what_looks_like_rust_s_but_lose_llvm_s_numbers() -> None:
    for mangled in ("_ZN1a1bE", "_RNvC1a1b", f"{LEGACY}x"):
        demangler = Answering(**{mangled: "a::h0123456789abcdef..$LT$ (.llvm.0123456789ABCDEF)"})
        assert demangler.demangle(mangled) == "a::h0123456789abcdef..$LT$"
        demangler = Answering(**{mangled: "a (.llvm.xyz) (.llvm.1) b"})
        assert demangler.demangle(mangled) == "a (.llvm.xyz) (.llvm.1) b"


def test_the_worker_writes_a_line_for_each_name_and_cuts_names_at_two_kib() -> None:
    by_name: dict[str, str | Exception] = {
        "_Z1": "x" * 2048,
        "_Z2": "y" * 2049,
        "_Z3": "two\nlines",
        "_Z4": ValueError(),
        "_Z5": MemoryError(),
        "_Z6": "",
        "_Z7": "f()",
    }

    def answer(name: str) -> str:
        found = by_name[name]
        if isinstance(found, Exception):
            raise found
        return found

    answers = io.BytesIO()
    names = io.BytesIO(b"".join(b"%s\n" % name.encode() for name in by_name) + b"\xff\n")
    demangle._serve(answer, names, answers)
    assert answers.getvalue().decode().split("\n") == [
        "ready",
        "x" * 2048,
        "y" * 2048,
        "two lines",
        "",
        "",
        "",
        "f()",
        "",
        "",
    ]


def test_without_its_library_the_worker_knows_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycxxfilt", None)
    assert demangle._library()("_Z1fv") is None


def test_the_worker_has_no_right_and_little_of_everything() -> None:
    demangler = Demangler()
    demangler.demangle("_Z1fv")
    assert demangler._worker is not None
    status = Path(f"/proc/{demangler._worker.pid}/status").read_bytes()
    assert [status_field(status, name) for name in (b"CapPrm", b"CapEff", b"CapInh")] == [[b"0" * 16]] * 3
    assert status_field(status, b"NoNewPrivs") == [b"1"]
    if has_capability(CAP_SETUID):
        assert status_field(status, b"Uid") == [b"65534"] * 4
    if importlib.util.find_spec("seccomp"):
        assert status_field(status, b"Seccomp") == [b"2"]  # a filter
    limits = Path(f"/proc/{demangler._worker.pid}/limits").read_text()
    for name, most in (("file size", 0), ("core file size", 0), ("open files", 3), ("address space", 512 << 20)):
        assert re.search(f"^Max {name} +{most} +{most} ", limits, re.MULTILINE), limits
    demangler.close()


def test_a_worker_that_dies_is_replaced_and_the_names_that_killed_it_stay() -> None:
    demangler = Demangler()
    demangler.demangle("_Z1fv")
    assert demangler._worker is not None
    first = demangler._worker
    first.kill()
    first.wait()
    assert demangler.demangle("_Z1gv") == "_Z1gv"
    assert demangler.deaths == 1
    assert demangler.demangle("_Z1hv") in ("h()", "_Z1hv")
    assert demangler._worker is not first
    demangler.close()
    demangler.close()


@pytest.mark.parametrize(("deaths", "asks"), [(7, True), (8, False)])
def test_after_eight_deaths_no_worker_is_started(monkeypatch: pytest.MonkeyPatch, deaths: int, asks: bool) -> None:
    started: list[bool] = []

    def start() -> None:
        started.append(True)
        raise OSError

    monkeypatch.setattr(demangle, "_start", start)
    demangler = Demangler()
    demangler.deaths = deaths
    assert (demangler.demangle("_Z1fv"), started, demangler.deaths) == ("_Z1fv", [True] * asks, 8)
