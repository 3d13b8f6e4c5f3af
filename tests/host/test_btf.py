"""Places of struct members in the kernel's type information."""

from __future__ import annotations

import struct

import pytest

from pyflame_ebpf.host.btf import Btf, NoBtf, kernel_btf

INT, STRUCT, UNION, TYPEDEF = 1, 4, 5, 8


class BtfBlob:
    """Builds BTF by hand; types are numbered from 1 in the order they are added."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""

    def string(self, text: str) -> int:
        start = len(self.strings)
        self.strings += text.encode() + b"\0"
        return start if text else 0

    def number(self, name: str) -> None:
        self.types += struct.pack("<IIII", self.string(name), INT << 24, 4, 32)

    def typedef(self, name: str, of: int) -> None:
        self.types += struct.pack("<III", self.string(name), TYPEDEF << 24, of)

    def compound(
        self, kind: int, name: str, size: int, members: list[tuple[str, int, int]], kind_flag: int = 0
    ) -> None:
        self.types += struct.pack("<III", self.string(name), kind_flag << 31 | kind << 24 | len(members), size)
        for member, type_id, bit_offset in members:
            self.types += struct.pack("<III", self.string(member), type_id, bit_offset)

    def data(self) -> bytes:
        sizes = (0, len(self.types), len(self.types), len(self.strings))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + self.types + self.strings


@pytest.fixture
def btf() -> Btf:
    blob = BtfBlob()
    blob.number("int")
    blob.compound(STRUCT, "inner", 16, [("pad", 1, 0), ("deep", 1, 96)])  # 2
    blob.typedef("inner_t", 2)  # 3
    blob.compound(UNION, "", 16, [("either", 1, 0), ("or_else", 3, 0)])  # 4
    blob.compound(STRUCT, "", 24, [("first", 1, 0), ("", 4, 64)])  # 5
    blob.compound(STRUCT, "outer", 48, [("head", 1, 0), ("", 5, 64), ("tail", 3, 256)])
    blob.compound(STRUCT, "packed", 8, [("flag", 1, 1 << 24 | 0), ("value", 1, 32)], kind_flag=1)
    return Btf(blob.data())


def test_a_member_is_at_its_byte_offset(btf: Btf) -> None:
    assert btf.struct_offset("outer", "tail") == 32


def test_a_member_of_nested_anonymous_structs_counts_from_the_named_one(btf: Btf) -> None:
    assert btf.struct_offset("outer", "either") == 16


def test_a_path_goes_through_typedefs(btf: Btf) -> None:
    assert btf.member_offset("outer", "or_else.deep") == 16 + 12


def test_the_width_of_bit_fields_is_not_part_of_an_offset(btf: Btf) -> None:
    assert btf.struct_offset("packed", "value") == 4


@pytest.mark.parametrize(("struct_name", "member"), [("outer", "none"), ("none", "head"), ("int", "head")])
def test_what_the_kernel_lacks_is_an_error(btf: Btf, struct_name: str, member: str) -> None:
    with pytest.raises(NoBtf):
        btf.struct_offset(struct_name, member)


def test_offsets_leaves_out_what_the_kernel_lacks(btf: Btf) -> None:
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
