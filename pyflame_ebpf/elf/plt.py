"""The stubs of the procedure linkage table, named ``function@plt``; x86-64.

A file calls the functions of other files through stubs.  A stub jumps through a slot of the global offset table, and a
relocation names the function whose address that slot takes.  Only the stubs at wanted addresses are decoded, since a
large library has 40,000 stubs.

Source: System V ABI, AMD64 supplement, 5.2 and "Procedure Linkage Table"; binutils' bfd/elfxx-x86.c for the variants.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import compress, count
from typing import NamedTuple

from pyflame_ebpf.elf.function_table import Hit
from pyflame_ebpf.elf.image import BadElf, ElfImage, Extent, Section
from pyflame_ebpf.elf.symbols import ElfSymbols

_MACHINE_X86_64 = 62
PLT_SECTIONS = (".plt", ".plt.sec", ".plt.got")
_RELOCATION = struct.Struct("<QQq")
_DT_RELA, _DT_RELASZ, _DT_JMPREL, _DT_PLTRELSZ = 7, 8, 23, 2
RELOCATION_TABLES = (_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)
_GLOB_DAT, _JUMP_SLOT, _IRELATIVE = _KINDS = 6, 7, 37
_SIZE, _SMALL = 16, 8  # bytes of a stub; in .plt.got without endbr64 it takes 8

_JUMP = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25(....)", re.DOTALL)  # endbr64; bnd jmp *slot(%rip)
_LAZY = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\x68(....)\xf2?\xe9", re.DOTALL)  # endbr64; push $index; bnd jmp .plt


class _Stub(NamedTuple):
    """A stub's address, with the slot that it jumps through or the number of the relocation that it pushes."""

    start: int
    slot: int = -1  # address in the global offset table; -1: unknown
    number: int = -1  # in DT_JMPREL; -1: unknown


class _Relocation(NamedTuple):
    """What a slot of the global offset table is filled with."""

    kind: int  # R_X86_64_*
    symbol: int  # number in .dynsym
    addend: int  # for IRELATIVE: address of the function that chooses


class PltStubs:
    """The stubs that hold the wanted addresses; none if the file's tables are damaged."""

    def __init__(self, symbols: ElfSymbols, vaddrs: Iterable[int]) -> None:
        self._symbols = symbols
        image = symbols.image
        self._stubs: dict[int, list[_Stub]] = {}  # by wanted address; the nearest first
        self._by_slot: dict[int, _Relocation] = {}
        self._by_number: dict[int, _Relocation] = {}
        if image.machine == _MACHINE_X86_64:
            # One of each name: a hostile file may have thousands, and each would be read for every address.
            sections = [section for name in PLT_SECTIONS if (section := image.section(name)) and section.vaddr]
            for vaddr in vaddrs:
                if found := sorted(_stubs_before(image, sections, vaddr), reverse=True):
                    self._stubs[vaddr] = found
        if self._stubs:
            self._resolve()

    def _resolve(self) -> None:
        stubs = [stub for found in self._stubs.values() for stub in found]
        slots = {stub.slot for stub in stubs if stub.slot >= 0}
        lazy = self._relocations(_DT_JMPREL, _DT_PLTRELSZ)
        numbers = {stub.number for stub in stubs if 0 <= stub.number < lazy.size // _RELOCATION.size}
        for number in numbers:
            place = Extent(lazy.offset + number * _RELOCATION.size, _RELOCATION.size)
            with suppress(BadElf):
                _, target = _relocation(self._symbols.image.read_extent(place, "relocations"), 0)
                if target.kind in _KINDS:
                    self._by_number[number] = target
        self._by_slot = dict(self._filling(lazy, slots))
        if slots - self._by_slot.keys():
            others = self._filling(self._relocations(_DT_RELA, _DT_RELASZ), slots)
            self._by_slot |= {slot: found for slot, found in others if found.kind == _GLOB_DAT}

    def _relocations(self, table_tag: int, size_tag: int) -> Extent:
        with suppress(BadElf):
            return self._symbols.image.table_extent(table_tag, size_tag)
        return Extent(0, 0)

    def _filling(self, relocations: Extent, slots: set[int]) -> Iterator[tuple[int, _Relocation]]:
        """(slot, relocation) for each relocation that fills one of these slots; none of a table that is over budget."""
        with suppress(BadElf):
            for piece in self._symbols.image.pieces(relocations, "relocations", _RELOCATION.size) if slots else ():
                yield from _filling(piece, slots)

    @property
    def choosers(self) -> set[int]:
        """Addresses of the functions that choose, at the program's start, where some of these stubs lead."""
        wanted = (self._target(stub) for found in self._stubs.values() for stub in found)
        return {target.addend for target in wanted if target and target.kind == _IRELATIVE}

    def _target(self, stub: _Stub) -> _Relocation | None:
        return self._by_slot.get(stub.slot) if stub.slot >= 0 else self._by_number.get(stub.number)

    def at(self, vaddr: int, functions: Mapping[int, Hit]) -> Hit | None:
        """(``function@plt``, offset in the stub in bytes), None outside of stubs.  ``functions`` names the choosers."""
        for stub in self._stubs.get(vaddr, ()):
            target = self._target(stub)
            name = self._name(target, functions) if target else ""
            if name:
                return f"{name}@plt", vaddr - stub.start
        return None

    def _name(self, target: _Relocation, functions: Mapping[int, Hit]) -> str:
        """The function a slot leads to; the choosing function if the address is chosen at the program's start."""
        if target.kind == _IRELATIVE:
            return functions.get(target.addend, ("", 0))[0]
        with suppress(BadElf):
            return self._symbols.dynamic_name(target.symbol).partition("@")[0]
        return ""


def _stubs_before(image: ElfImage, sections: Iterable[Section], vaddr: int) -> Iterator[_Stub]:
    """The stubs that may hold an address, decoded from their code."""
    for section in sections:
        inside = vaddr - section.vaddr
        if not 0 <= inside < section.size:
            continue
        nearest = inside - inside % _SMALL
        for place in (nearest, nearest - _SMALL):
            if place < 0:
                continue
            with suppress(BadElf):
                code = image.section_part(section, place, _SIZE)
                if jump := _JUMP.match(code):
                    next_instruction = section.vaddr + place + jump.end()
                    yield _Stub(section.vaddr + place, slot=next_instruction + _signed(jump[1]))
                elif push := _LAZY.match(code):
                    yield _Stub(section.vaddr + place, number=int.from_bytes(push[1], "little"))


def _signed(number: bytes) -> int:
    return int.from_bytes(number, "little", signed=True)


def _filling(relocations: bytes, slots: set[int]) -> Iterator[tuple[int, _Relocation]]:
    """(slot, relocation) for each relocation that fills one of these slots."""
    places = array("Q", relocations)[:: _RELOCATION.size // 8]
    for number in compress(count(), map(slots.__contains__, places)):
        slot, found = _relocation(relocations, number)
        if found.kind in _KINDS:
            yield slot, found


def _relocation(relocations: bytes, number: int) -> tuple[int, _Relocation]:
    slot, info, addend = _RELOCATION.unpack_from(relocations, number * _RELOCATION.size)
    return slot, _Relocation(info & 0xFFFFFFFF, info >> 32, addend)
