"""Places of struct members in the kernel's type information."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pyflame_ebpf.host.btf import Btf, NoBtf, kernel_btf

INT, ARRAY, STRUCT, UNION, TYPEDEF = 1, 3, 4, 5, 8


class BtfBlob:
    """Builds BTF by hand; types are numbered from 1 in the order they are added."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""

    def string(self, text: str) -> int:
        """Where a text is, which is there once."""
        if (found := self.strings.find(f"\0{text}\0".encode()) + 1) > 0:
            return found
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1 if text else 0

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

    def other(self, kind: int, elements: int) -> None:
        """A record of another kind, as include/uapi/linux/btf.h lays it out."""
        element = {STRUCT: 12, UNION: 12, 6: 8, 13: 8, 15: 12, 19: 12}.get(kind, 0)
        count = elements if element else 0
        behind = {INT: 4, ARRAY: 12, 14: 4, 17: 4}.get(kind, element * count)
        self.types += struct.pack("<III", 0, kind << 24 | count, 1) + bytes(behind)

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


def test_a_name_is_known_as_a_whole_only(btf: Btf) -> None:
    names = ("outer", "or_else", "ou", "ter", "outer_t")
    assert [name for name in names if btf.has_name(name)] == ["outer", "or_else"]


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


def test_the_first_struct_of_a_name_that_has_the_member_counts() -> None:
    blob = BtfBlob()
    blob.number("int")
    blob.compound(STRUCT, "twice", 8, [("one", 1, 0)])
    blob.compound(STRUCT, "twice", 8, [("one", 1, 32), ("two", 1, 32)])
    assert Btf(blob.data()).offsets([("twice", "one"), ("twice", "two")]) == {
        ("twice", "one"): 0,
        ("twice", "two"): 4,
    }


@pytest.mark.parametrize("kind", range(1, 20))
def test_types_of_every_kind_are_passed_over_in_their_size(kind: int) -> None:
    blob = BtfBlob()
    blob.other(kind, elements=2)  # 1
    blob.compound(STRUCT, "inner", 16, [("deep", 1, 96)])  # 2
    blob.compound(STRUCT, "outer", 16, [("member", 2, 0)])
    assert Btf(blob.data()).member_offset("outer", "member.deep") == 12


def test_behind_a_kind_of_a_later_kernel_nothing_is_known() -> None:
    blob = BtfBlob()
    blob.compound(STRUCT, "before", 16, [("deep", 1, 96)])  # 1
    blob.compound(STRUCT, "outer", 16, [("first", 1, 0), ("second", 4, 0)])  # 2
    blob.other(20, elements=0)  # 3
    blob.compound(STRUCT, "behind", 16, [("deep", 1, 96)])  # 4
    btf = Btf(blob.data())
    assert btf.offsets([("outer", "first.deep"), ("outer", "second.deep"), ("outer", "second")]) == {
        ("outer", "first.deep"): 12,
        ("outer", "second"): 0,
    }


def test_types_that_name_each_other_in_a_circle_are_no_struct() -> None:
    blob = BtfBlob()
    blob.typedef("around", 1)  # 1
    blob.compound(STRUCT, "outer", 16, [("member", 1, 0), ("", 3, 0)])  # 2
    blob.compound(STRUCT, "", 16, [("", 3, 0)])  # 3
    with pytest.raises(NoBtf):
        Btf(blob.data()).member_offset("outer", "member.deep")
    with pytest.raises(NoBtf):
        Btf(blob.data()).member_offset("outer", "deep")


@pytest.mark.parametrize(
    ("info", "size", "member"),
    [
        (STRUCT << 24 | 1, 0, (0, 1, 0)),  # nothing fits into no bytes
        (STRUCT << 24, 8, (0, 1, 0)),  # no members
        (INT << 24 | 1, 8, (0, 1, 0)),
        (STRUCT << 24 | 1 << 16 | 1, 8, (0, 1, 0)),  # bits that are always 0
        (STRUCT << 24 | 1, 8, (1 << 20, 1, 0)),  # a name behind the strings
        (STRUCT << 24 | 1, 8, (0, 0, 0)),  # no type
        (STRUCT << 24 | 1, 8, (0, 1, 65)),  # behind the end
        (1 << 31 | STRUCT << 24 | 1, 8, (0, 1, 65)),
    ],
)
def test_bytes_in_the_middle_of_a_record_that_cannot_be_a_structs_are_none(
    info: int, size: int, member: tuple[int, int, int]
) -> None:
    blob = BtfBlob()
    name = blob.string("target")
    found = blob.string("found")
    # A member has the wanted name where a struct's record would have it, and its own member would be found first.
    member = (found if member[0] == 0 else member[0], *member[1:])
    blob.types += struct.pack("<IIIIII", name, info, size, *member)
    blob.compound(STRUCT, "target", 8, [("found", 1, 32)])
    assert Btf(blob.data()).struct_offset("target", "found") == 4


def test_a_record_that_does_not_begin_at_a_word_is_none() -> None:
    blob = BtfBlob()
    blob.types += bytes(2) + struct.pack(
        "<IIIIII", blob.string("target"), STRUCT << 24 | 1, 8, blob.string("found"), 1, 0
    )
    blob.types += bytes(2)
    blob.compound(STRUCT, "target", 8, [("found", 1, 32)])
    assert Btf(blob.data()).struct_offset("target", "found") == 4


def test_a_host_without_btf_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(NoBtf, match="No such file") as error:
        kernel_btf(tmp_path / "vmlinux")
    assert error.value.exit_code == 5
    assert "CONFIG_DEBUG_INFO_BTF" in error.value.hint
