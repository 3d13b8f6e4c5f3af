"""Names of C++ and Rust, and names made to break what demangles them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from pyflame_ebpf.symbols.demangle import Demangler


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
