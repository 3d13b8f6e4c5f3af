"""The stubs of the procedure linkage table, through which a file calls others, as ``name@plt``; x86-64.

A stub jumps through a slot of the global offset table, and a relocation says whose address that slot takes.

Source: System V ABI, AMD64 supplement, 5.2 and "Procedure Linkage Table"; binutils' bfd/elfxx-x86.c for the variants.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right

from pyflame_ebpf.elf_image import BadElf, ElfImage
from pyflame_ebpf.function_table import FunctionTable

_MACHINE_X86_64 = 62
_SECTIONS = (".plt", ".plt.sec", ".plt.got")
_RELOCATION = struct.Struct("<QQq")
_DT_RELA, _DT_RELASZ, _DT_JMPREL, _DT_PLTRELSZ = 7, 8, 23, 2
_GLOB_DAT, _JUMP_SLOT, _IRELATIVE = 6, 7, 37
_STUBS_MAX = 1 << 16
_SECTION_MAX = 1 << 20
_SIZE, _SMALL = 16, 8  # bytes of a stub; those of .plt.got without endbr64 take 8

_JUMP = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25(....)", re.DOTALL)  # endbr64; bnd jmp *slot(%rip)
_LAZY = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\x68(....)\xf2?\xe9", re.DOTALL)  # endbr64; push $index; bnd jmp .plt


class PltTable:
    """The stubs of a file by address."""

    def __init__(self, image: ElfImage, functions: FunctionTable) -> None:
        self._image = image
        self._functions = functions
        self._starts: list[int] = []
        self._names: list[str] = []
        self._sizes: list[int] = []
        if image.machine == _MACHINE_X86_64:
            self._fill()

    def _fill(self) -> None:
        lazy = self._relocations(_DT_JMPREL, _DT_PLTRELSZ)
        sections = [section for section in self._image.sections if section.name in _SECTIONS and section.vaddr]
        if not sections:
            return
        slots = {slot: (kind, symbol, addend) for slot, kind, symbol, addend in lazy}
        for slot, kind, symbol, addend in self._relocations(_DT_RELA, _DT_RELASZ):
            if kind == _GLOB_DAT:
                slots[slot] = (kind, symbol, addend)
        stubs = []
        for section in sections:
            try:
                code = self._image.section_data(section, _SECTION_MAX)
            except BadElf:
                continue
            stubs += self._stubs(code, section.vaddr, slots, lazy)
        for start, size, name in sorted(stubs):
            self._starts.append(start)
            self._sizes.append(size)
            self._names.append(name)

    def _relocations(self, table_tag: int, size_tag: int) -> list[tuple[int, int, int, int]]:
        """(slot, kind, symbol, addend) of those that fill slots of the global offset table."""
        try:
            data = self._image.relocations(table_tag, size_tag)
        except BadElf:
            return []
        entries = _RELOCATION.iter_unpack(data[: len(data) // _RELOCATION.size * _RELOCATION.size])
        kept: list[tuple[int, int, int, int]] = []
        for slot, info, addend in entries:
            if info & 0xFFFFFFFF in (_GLOB_DAT, _JUMP_SLOT, _IRELATIVE) and len(kept) < _STUBS_MAX:
                kept.append((slot, info & 0xFFFFFFFF, info >> 32, addend))
        return kept

    def _stubs(
        self,
        code: bytes,
        vaddr: int,
        slots: dict[int, tuple[int, int, int]],
        lazy: list[tuple[int, int, int, int]],
    ) -> list[tuple[int, int, str]]:
        """(start, size, name) of the stubs in a section's code."""
        found = []
        for place in range(0, len(code), _SMALL):
            wanted: tuple[int, int, int] | None = None
            if jump := _JUMP.match(code, place):
                wanted = slots.get(vaddr + jump.end() + int.from_bytes(jump[1], "little", signed=True))
            elif push := _LAZY.match(code, place):
                index = int.from_bytes(push[1], "little")
                wanted = lazy[index][1:] if index < len(lazy) else None
            name = self._name(*wanted) if wanted else ""
            if name:
                found.append((vaddr + place, min(_SIZE, len(code) - place), f"{name}@plt"))
        return found

    def _name(self, kind: int, symbol: int, addend: int) -> str:
        """The function that a slot leads to; of one that is chosen at the start, the function that chooses."""
        if kind == _IRELATIVE:
            chooser = self._functions.at(addend)
            return chooser[0] if chooser else ""
        return self._image.dynamic_name(symbol).partition("@")[0]

    def __len__(self) -> int:
        """Count the stubs."""
        return len(self._starts)

    def at(self, vaddr: int) -> tuple[str, int] | None:
        """(name@plt, offset in the stub); None elsewhere."""
        index = bisect_right(self._starts, vaddr) - 1
        if index < 0 or vaddr - self._starts[index] >= self._sizes[index]:
            return None
        return self._names[index], vaddr - self._starts[index]
