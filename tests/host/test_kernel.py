"""Kernel facts: BTF, capabilities, CPU lists and times, symbol names."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from pyflame_ebpf.host.btf import Btf, NoBtf, kernel_btf
from pyflame_ebpf.host.capabilities import missing_capabilities
from pyflame_ebpf.host.cpus import online_cpus, parse_cpu_list, parse_host_cpu_seconds
from pyflame_ebpf.symbols.kallsyms import KernelSymbols

INT, STRUCT, UNION, TYPEDEF = 1, 4, 5, 8


class BtfBlob:
    """Builds BTF by hand; types are numbered from 1 in the order they are added."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""

    def string(self, text):
        start = len(self.strings)
        self.strings += text.encode() + b"\0"
        return start if text else 0

    def number(self, name) -> None:
        self.types += struct.pack("<IIII", self.string(name), INT << 24, 4, 32)

    def typedef(self, name, of) -> None:
        self.types += struct.pack("<III", self.string(name), TYPEDEF << 24, of)

    def compound(self, kind, name, size, members, kind_flag: int = 0) -> None:
        self.types += struct.pack("<III", self.string(name), kind_flag << 31 | kind << 24 | len(members), size)
        for member, type_id, bit_offset in members:
            self.types += struct.pack("<III", self.string(member), type_id, bit_offset)

    def data(self):
        sizes = (0, len(self.types), len(self.types), len(self.strings))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + self.types + self.strings


@pytest.fixture
def btf():
    blob = BtfBlob()
    blob.number("int")
    blob.compound(STRUCT, "inner", 16, [("pad", 1, 0), ("deep", 1, 96)])  # 2
    blob.typedef("inner_t", 2)  # 3
    blob.compound(UNION, "", 16, [("either", 1, 0), ("or_else", 3, 0)])  # 4
    blob.compound(STRUCT, "", 24, [("first", 1, 0), ("", 4, 64)])  # 5
    blob.compound(STRUCT, "outer", 48, [("head", 1, 0), ("", 5, 64), ("tail", 3, 256)])
    blob.compound(STRUCT, "packed", 8, [("flag", 1, 1 << 24 | 0), ("value", 1, 32)], kind_flag=1)
    return Btf(blob.data())


def test_a_member_is_at_its_byte_offset(btf) -> None:
    assert btf.struct_offset("outer", "tail") == 32


def test_a_member_of_nested_anonymous_structs_counts_from_the_named_one(btf) -> None:
    assert btf.struct_offset("outer", "either") == 16


def test_a_path_goes_through_typedefs(btf) -> None:
    assert btf.member_offset("outer", "or_else.deep") == 16 + 12


def test_the_width_of_bit_fields_is_not_part_of_an_offset(btf) -> None:
    assert btf.struct_offset("packed", "value") == 4


@pytest.mark.parametrize(("struct_name", "member"), [("outer", "none"), ("none", "head"), ("int", "head")])
def test_what_the_kernel_lacks_is_an_error(btf, struct_name: str, member: str) -> None:
    with pytest.raises(NoBtf):
        btf.struct_offset(struct_name, member)


def test_offsets_leaves_out_what_the_kernel_lacks(btf) -> None:
    assert btf.offsets([("outer", "head"), ("outer", "none")]) == {("outer", "head"): 0}


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb", b"\xeb\x9f" + bytes(40)])
def test_what_is_not_btf_is_an_error(data: bytes) -> None:
    with pytest.raises(NoBtf):
        Btf(data)


def test_members_of_the_running_kernel_are_found_inside_anonymous_structs() -> None:
    members = [("mm_struct", "exe_file"), ("mm_struct", "start_code"), ("task_struct", "thread"), ("inode", "i_ino")]
    found = kernel_btf().offsets(members)
    assert set(found) == set(members)
    assert all(offset % 8 == 0 and offset > 0 for offset in found.values())


def test_sys_admin_stands_for_the_capabilities_split_from_it() -> None:
    assert missing_capabilities(f"CapEff:\t{1 << 21 | 1 << 19:016x}\n") == []
    assert missing_capabilities("CapEff:\t0000000000000000\n") == ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]


@pytest.mark.parametrize(("text", "cpus"), [("0-3,5\n", [0, 1, 2, 3, 5]), ("7\n", [7]), ("\n", [])])
def test_cpu_lists(text: str, cpus: list[int] | list[Any]) -> None:
    assert parse_cpu_list(text) == cpus


def test_this_machine_has_cpus() -> None:
    assert 0 in online_cpus()


def test_guest_time_is_not_counted_twice() -> None:
    assert parse_host_cpu_seconds("cpu  100 20 30 999 5 1 2 7 50 10\ncpu0 1\n", 100) == 1.53


def kallsyms(tmp_path: Path, text):
    path = tmp_path / "kallsyms"
    path.write_text(text)
    return KernelSymbols(path)


def test_kernel_addresses_get_the_first_name_of_the_function_that_holds_them(tmp_path: Path) -> None:
    symbols = kallsyms(
        tmp_path,
        "ffffffffc0000000 t later\t[xfs]\n"
        "ffffffff81000000 T first\n"
        "ffffffff81000000 T alias\n"
        "ffffffff81000080 d data\n"
        "ffffffff81000100 W weak\n",
    )
    addresses = [0xFFFFFFFF80000000, 0xFFFFFFFF81000090, 0xFFFFFFFF81000100, 0xFFFFFFFFC0000010]
    assert [symbols.lookup(address) for address in addresses] == [
        None,
        ("first", ""),
        ("weak", ""),
        ("later", "xfs"),
    ]


def test_hidden_kernel_addresses_are_said_to_be_hidden(tmp_path: Path) -> None:
    symbols = kallsyms(tmp_path, "0000000000000000 T first\n0000000000000000 t second\n")
    assert symbols.lookup(0xFFFFFFFF81000000) is None
    assert symbols.hidden
