"""Byte offsets of struct members in the running kernel, from its type information (BTF)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyflame_ebpf.errors import PyflameError

BTF_PATH = Path("/sys/kernel/btf/vmlinux")

# include/uapi/linux/btf.h
_BTF_MAGIC = 0xEB9F
_BTF_HEADER = struct.Struct("<HBBIIIII")
_KIND_STRUCT, _KIND_UNION, _KIND_TYPEDEF, _KIND_CONST, _KIND_VOLATILE = 4, 5, 8, 10, 9
_KINDS_THAT_NAME_A_TYPE = (_KIND_TYPEDEF, _KIND_CONST, _KIND_VOLATILE)
_LAST_KIND = 19
_FIXED_SIZE = {1: 16, 3: 24, 14: 16, 17: 16}  # INT, ARRAY, VAR, DECL_TAG; 12 where not listed
_SIZE_OF_ELEMENT = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64
_RESERVED_INFO_BITS = 0x60FF0000
_NESTING_MAX = 16


class NoBtf(PyflameError):
    """The kernel publishes no usable type information, or lacks a struct or member."""

    exit_code = 5


class Btf:
    """The kernel's BTF, searched for single structs and members instead of decoded.  Raises NoBtf.

    Decoding 130,000 types in Python takes longer than the whole start may take.  A struct is found by a search of the
    packed type records for the offset of its name.  Type numbers are counted only as far as a lookup needs them.
    """

    def __init__(self, data: bytes) -> None:
        try:
            magic, _version, _flags, header, type_start, type_size, string_start, string_size = _BTF_HEADER.unpack_from(
                data
            )
        except struct.error as error:
            raise NoBtf("the kernel's type information (BTF) is cut short") from error
        if magic != _BTF_MAGIC:
            raise NoBtf("the kernel's type information (BTF) is not in this machine's byte order, or not BTF")
        self._types = data[header + type_start : header + type_start + type_size]
        self._strings = data[header + string_start : header + string_start + string_size]
        self._positions = [-1]  # of the records of types 0 (void), 1, 2, … as far as counted
        self._counted_to = 0

    def has_name(self, name: str) -> bool:
        """Whether the kernel has a type, member or enumerator of this name, as each helper of BPF programs is one."""
        return f"\0{name}\0".encode() in self._strings

    def struct_offset(self, struct_name: str, member: str) -> int:
        """Byte offset of a member, also of one inside anonymous structs and unions.  Raises NoBtf."""
        return self.member_offset(struct_name, member)

    def member_offset(self, struct_name: str, path: str) -> int:
        """Byte offset of ``a.b.c``, where ``b`` is a member of the struct of ``a``, and so on.  Raises NoBtf."""
        try:
            return self._member_offset(struct_name, path)
        except (struct.error, IndexError) as error:
            raise NoBtf("the kernel's type information (BTF) is damaged") from error

    def _member_offset(self, struct_name: str, path: str) -> int:
        first, *rest = path.split(".")
        total, type_id = self._locate(struct_name, first)
        for step in rest:
            inner = self._record_of_struct(type_id)
            found = self._find_member(inner, step.encode() + b"\0") if inner >= 0 else None
            if found is None:
                raise NoBtf(f"struct {struct_name} has no member {path} in this kernel")
            total, type_id = total + found[0], found[1]
        return total

    def offsets(self, members: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Byte offsets by (struct, member or path).  Members that this kernel lacks are left out."""
        found = {}
        for struct_name, path in members:
            try:
                found[struct_name, path] = self.member_offset(struct_name, path)
            except NoBtf:  # noqa: PERF203 - each member may be missing
                continue
        return found

    def _locate(self, struct_name: str, member: str) -> tuple[int, int]:
        """(byte offset, type number) of a member, from the first struct of this name that has it."""
        known = False
        for record in self._records_named(struct_name.encode()):
            known = True
            found = self._find_member(record, member.encode() + b"\0")
            if found is not None:
                return found
        missing = f"struct {struct_name} has no member {member}" if known else f"there is no struct {struct_name}"
        raise NoBtf(f"{missing} in this kernel", "please report it with the output of: uname -r")

    def _records_named(self, name: bytes) -> Iterator[int]:
        """Positions of the records of structs and unions with this name."""
        start = self._strings.find(b"\0" + name + b"\0")
        if start < 0:
            return
        wanted = struct.pack("<I", start + 1)
        position = self._types.find(wanted)
        while position >= 0:
            if position % 4 == 0 and self._is_struct(position):
                yield position
            position = self._types.find(wanted, position + 1)

    def _is_struct(self, position: int) -> bool:
        """Whether the bytes here, which may lie in the middle of another record, are a struct's or union's record."""
        if position + 12 > len(self._types):
            return False
        _name, info, size = struct.unpack_from("<III", self._types, position)
        count = info & 0xFFFF
        if info & _RESERVED_INFO_BITS or info >> 24 & 31 not in (_KIND_STRUCT, _KIND_UNION) or not (count and size):
            return False
        bits = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        return all(
            name < len(self._strings) and kind and (offset & bits) <= size * 8
            for name, kind, offset in self._members(position, count)
        )

    def _members(self, position: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(offset of name, type number, raw offset) of each member."""
        return struct.iter_unpack("<III", self._types[position + 12 : position + 12 + 12 * count])

    def _find_member(
        self, position: int, name_and_nul: bytes, depth: int = 0, seen: set[int] | None = None
    ) -> tuple[int, int] | None:
        """(byte offset, type number) of a member: first among the named ones here, then inside anonymous ones.

        ``seen`` has the structs that were searched already; each is searched once.
        """
        seen = set() if seen is None else seen
        seen.add(position)
        info = struct.unpack_from("<I", self._types, position + 4)[0]
        bits = 0xFFFFFF if info >> 31 else 0xFFFFFFFF  # with kind_flag the top byte is a bit field's width
        members = list(self._members(position, info & 0xFFFF))
        for name, kind, offset in members:
            if self._strings.startswith(name_and_nul, name):
                return (offset & bits) // 8, kind
        for name, kind, offset in members if depth < _NESTING_MAX else ():
            inner = -1 if name and self._strings[name] else self._record_of_struct(kind)
            if inner < 0 or inner in seen:
                continue
            found = self._find_member(inner, name_and_nul, depth + 1, seen)
            if found is not None:
                return (offset & bits) // 8 + found[0], found[1]
        return None

    def _record_of_struct(self, type_id: int) -> int:
        """Position of the struct behind a type number, through typedefs and qualifiers; -1 for another type."""
        for _ in range(_NESTING_MAX):
            position = self._record(type_id)
            if position < 0:
                return -1
            info, type_id = struct.unpack_from("<II", self._types, position + 4)
            kind = info >> 24 & 31
            if kind in (_KIND_STRUCT, _KIND_UNION):
                return position
            if kind not in _KINDS_THAT_NAME_A_TYPE:
                return -1
        return -1

    def _record(self, type_id: int) -> int:
        """Position of a type's record, -1 for a number too high.  Counts on from where the last call stopped."""
        positions, position, types = self._positions, self._counted_to, self._types
        sizes = [(_FIXED_SIZE.get(kind, 12), _SIZE_OF_ELEMENT.get(kind, 0)) for kind in range(32)]
        info_of = struct.Struct("<I").unpack_from
        while len(positions) <= type_id and position + 12 <= len(types):
            (info,) = info_of(types, position + 4)
            fixed, element = sizes[info >> 24 & 31]
            if info >> 24 & 31 > _LAST_KIND:
                break  # a kind of a later kernel, whose size is unknown
            positions.append(position)
            position += fixed + element * (info & 0xFFFF)
        self._counted_to = position
        return positions[type_id] if type_id < len(positions) else -1


def kernel_btf(path: Path = BTF_PATH) -> Btf:
    """The running kernel's BTF.  Raises NoBtf."""
    try:
        return Btf(path.read_bytes())
    except OSError as error:
        raise NoBtf(
            f"this kernel publishes no type information ({path}: {error.strerror})",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF; those of Debian 11, Ubuntu 20.10 and later are",
        ) from error
