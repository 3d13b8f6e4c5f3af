"""Structs of CPython in the DWARF of a build: where their members are, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# The translation units that between them describe every struct that the walker reads.
UNITS = (
    "Python/pystate.c",
    "Objects/codeobject.c",
    "Objects/frameobject.c",
    "Objects/unicodeobject.c",
    "Python/ceval.c",
)
MAX_DEPTH = 32  # of typedefs and nested structs


@dataclass(frozen=True)
class Member:
    """A member's offset from the start of the outermost struct, its size in bytes, and a bit field's first bit."""

    offset: int
    size: int
    bit: int = 0  # from the start of the byte at ``offset``


class Structs:
    """The structs of one ELF file by name, each read from the DWARF of a few translation units when it is needed."""

    def __init__(self, dwarf: Any) -> None:
        self._units = [unit for unit in dwarf.iter_CUs() if _unit_name(unit).endswith(UNITS)]
        self._units.sort(key=lambda unit: next(i for i, name in enumerate(UNITS) if _unit_name(unit).endswith(name)))
        self._named: list[dict[str, list[Any]]] = []

    def member(self, struct: str, path: str) -> Member | None:
        """Return the member at the dotted ``path``; None if this release has none."""
        die = self._struct(struct)
        return _find_member(die, path.split(".")) if die is not None else None

    def size(self, struct: str) -> int:
        """Return sizeof(struct) in bytes.  Raises KeyError for a struct that is not described."""
        die = self._struct(struct)
        if die is None:
            raise KeyError(struct)
        return int(die.attributes["DW_AT_byte_size"].value)

    def _struct(self, name: str) -> Any | None:
        for index in range(len(self._units)):
            for die in self._named_in(index).get(name, []):
                struct = _strip(die)
                if struct is not None and struct.has_children and "DW_AT_byte_size" in struct.attributes:
                    return struct
        return None

    def _named_in(self, index: int) -> dict[str, list[Any]]:
        if index == len(self._named):
            named: dict[str, list[Any]] = {}
            for die in self._units[index].get_top_DIE().iter_children():
                if die.tag in ("DW_TAG_typedef", "DW_TAG_structure_type") and "DW_AT_name" in die.attributes:
                    named.setdefault(_name(die), []).append(die)
            self._named.append(named)
        return self._named[index]


def _unit_name(unit: Any) -> str:
    return _name(unit.get_top_DIE())


def _name(die: Any) -> str:
    attribute = die.attributes.get("DW_AT_name")
    return attribute.value.decode() if attribute else ""


def _strip(die: Any) -> Any | None:
    """The struct, union or base type behind typedefs and qualifiers; None for void."""
    for _ in range(MAX_DEPTH):
        if die.tag not in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_atomic_type"):
            return die
        if "DW_AT_type" not in die.attributes:
            return None
        die = die.get_DIE_from_attribute("DW_AT_type")
    return None


def _find_member(struct: Any, path: list[str]) -> Member | None:
    for child in struct.iter_children():
        if child.tag != "DW_TAG_member":
            continue
        kind = _strip(child.get_DIE_from_attribute("DW_AT_type"))
        here = _location(child, kind)
        rest = path[1:] if _name(child) == path[0] else path if not _name(child) else None
        if rest == []:
            return here
        if rest is not None and kind is not None and kind.tag in ("DW_TAG_structure_type", "DW_TAG_union_type"):
            inner = _find_member(kind, rest)
            if inner is not None:
                return Member(here.offset + inner.offset, inner.size, inner.bit)
    return None


def _location(member: Any, kind: Any | None) -> Member:
    bits = member.attributes.get("DW_AT_data_bit_offset")
    if bits is not None:
        return Member(bits.value // 8, 1, bits.value % 8)
    offset = member.attributes.get("DW_AT_data_member_location")
    return Member(offset.value if offset else 0, _size(kind))


def _size(kind: Any | None) -> int:
    """Bytes of a value of this type; an array counts as one element."""
    for _ in range(MAX_DEPTH):
        if kind is None:
            return 0
        if kind.tag == "DW_TAG_pointer_type":
            return 8
        if kind.tag != "DW_TAG_array_type":
            return int(kind.attributes["DW_AT_byte_size"].value) if "DW_AT_byte_size" in kind.attributes else 0
        kind = _strip(kind.get_DIE_from_attribute("DW_AT_type"))
    return 0
