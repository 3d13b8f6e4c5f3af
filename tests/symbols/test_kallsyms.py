"""Names of kernel addresses, from a list as the kernel writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyflame_ebpf.symbols.kallsyms import KernelSymbols


def kallsyms(tmp_path: Path, text: str) -> KernelSymbols:
    path = tmp_path / "kallsyms"
    path.write_text(text)
    return KernelSymbols(path)


def test_an_address_has_the_name_of_the_last_function_that_begins_before_it(tmp_path: Path) -> None:
    symbols = kallsyms(tmp_path, "ffffffff81000000 T first\nffffffff81000100 t second\nffffffff81000180 D data\n")
    places = (0xFFFFFFFF80FFFFFF, 0xFFFFFFFF81000000, 0xFFFFFFFF810000FF, 0xFFFFFFFF81000100, (1 << 64) - 1)
    names = [None, ("first", ""), ("first", ""), ("second", ""), ("second", "")]
    assert [symbols.lookup(address) for address in places] == names
    assert not symbols.hidden


@pytest.mark.parametrize("kind", "tTwW")
def test_functions_count(tmp_path: Path, kind: str) -> None:
    assert kallsyms(tmp_path, f"ffffffff81000000 {kind} f\n").lookup(0xFFFFFFFF81000000) == ("f", "")


@pytest.mark.parametrize("kind", "aAbBdDrRvV")
def test_what_is_no_function_does_not_count(tmp_path: Path, kind: str) -> None:
    assert kallsyms(tmp_path, f"ffffffff81000000 {kind} f\n").lookup(0xFFFFFFFF81000000) is None


def test_functions_of_modules_are_said_to_be_theirs(tmp_path: Path) -> None:
    symbols = kallsyms(tmp_path, "ffffffffc0000000 t ext4_read\t[ext4]\n")
    assert symbols.lookup(0xFFFFFFFFC0000001) == ("ext4_read", "ext4")


def test_the_list_is_read_once(tmp_path: Path) -> None:
    symbols = kallsyms(tmp_path, "ffffffff81000000 T first\n")
    assert symbols.lookup(0xFFFFFFFF81000000) == ("first", "")
    (tmp_path / "kallsyms").unlink()
    assert symbols.lookup(0xFFFFFFFF81000000) == ("first", "")


@pytest.mark.parametrize("text", ["", "0000000000000000 T first\n", "no list"])
def test_a_list_without_addresses_is_hidden(tmp_path: Path, text: str) -> None:
    symbols = kallsyms(tmp_path, text)
    assert (symbols.lookup(0xFFFFFFFF81000000), symbols.hidden) == (None, True)


def test_a_list_that_cannot_be_read_is_hidden(tmp_path: Path) -> None:
    symbols = KernelSymbols(tmp_path / "none")
    assert (symbols.lookup(0), symbols.hidden) == (None, True)


def test_of_functions_at_one_address_the_first_of_the_list_counts(tmp_path: Path) -> None:
    text = "ffffffffc0000000 t later\t[xfs]\nffffffff81000000 T first\nffffffff81000000 T alias\n"
    assert kallsyms(tmp_path, text).lookup(0xFFFFFFFF81000001) == ("first", "")


def test_functions_at_address_zero_hide_nothing_while_others_have_addresses(tmp_path: Path) -> None:
    symbols = kallsyms(tmp_path, "0000000000000000 T first\nffffffff81000000 T second\n")
    assert (symbols.lookup(0xFFFFFFFF81000001), symbols.hidden) == (("second", ""), False)
