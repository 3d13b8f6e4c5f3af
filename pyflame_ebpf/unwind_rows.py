"""From an ELF file to the unwind rows of one page of its code: how each address finds its caller; x86-64.

A row is 8 bytes, as BPF reads it, and holds from its start up to the next one; the first starts at 0.  Rows are sorted
and differ from their neighbours.  Addresses that no entry covers get rows of kind NONE.  Only the entries that overlap
the page are decoded.  Files are untrusted: damage ends in BadElf or in NONE, after a bounded amount of work.

The return address is at CFA - 8, except in SIGNAL rows, and rsp in the caller is the CFA.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from pyflame_ebpf.call_frame_information import RBP, RETURN_ADDRESS, RSP, CommonEntry, How, Rule, Rules
from pyflame_ebpf.dwarf_numbers import Reader
from pyflame_ebpf.elf_image import BadElf, ElfImage
from pyflame_ebpf.frame_entries import FrameEntry, common_entry_vaddr, frame_rules, parse_common, parse_frame
from pyflame_ebpf.frame_index import NO_FRAMES, Found, FrameIndex, open_index, read_entry
from pyflame_ebpf.plain_frames import is_plain, plain_rows, rules_of

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
ROWS_MAX = 512
ROW = struct.Struct("<HBbi")

_BODY = struct.Struct("<Bbi")
_START = struct.Struct("<H")
_MACHINE_X86_64 = 62
_ADDRESS_END = 1 << 64
_PAGE_BYTES_MAX = 1 << 18  # of entries decoded for one page
_COMMON_ENTRIES_MAX = 1024
_COMMON_ENTRY_MAX = 512  # bytes; compilers write 28 at the most
_ENTRY_MIN = 8
_TOGETHER_MAX = 1 << 15  # bytes of entries read at once: those of a page lie side by side, as linkers write them
_ALIGNMENT = 16  # of functions
_GIVEN_UP_FIRST = (2, 5)  # bytes: a push; a push and the move to rbp, or at worst a call
_PLACE_MAX = 1 << 15  # offsets that share the s32 with another number
_DISTANCE_MAX = 1 << 31
_INDEXED_PLACE_MAX = 1 << 12
_REGISTER_SHIFT = 4
_SIGNAL_RIP, _SIGNAL_RBP = 8, -40  # from the saved rsp: gregs[] of ucontext_t in <sys/ucontext.h>

# x86-64 psABI, "lazy binding": DW_OP_breg7 8; breg16 0; lit15; and; litN; ge; lit3; shl; plus
_PLT = re.compile(rb"\x77\x08\x80\x00\x3f\x1a([\x30-\x3f])\x2a\x33\x24\x22", re.DOTALL)
_ENTRY_POINT = re.compile(rb"\x31\xed|\x48\x89\xe7")  # xor %ebp,%ebp: there is no caller; mov %rsp,%rdi: arguments
_SLEB = rb"([\x80-\xff]{0,4}[\x00-\x7f])"
_AT_REGISTER = re.compile(rb"([\x76\x77])" + _SLEB, re.DOTALL)  # DW_OP_breg6 or breg7
_INDEXED = re.compile(  # DW_OP_breg7, breg8 to breg15 0, lit8, mul, plus, deref, plus_uconst
    rb"\x77" + _SLEB + rb"([\x78-\x7f])\x00\x38\x1e\x22\x06\x23" + _SLEB, re.DOTALL
)
_DEREFERENCED = re.compile(  # then DW_OP_deref and perhaps DW_OP_plus_uconst
    rb"([\x76\x77])" + _SLEB + rb"\x06(?:\x23" + _SLEB + rb")?", re.DOTALL
)


class CfaKind(IntEnum):
    """How the CFA is found: the low four bits of a row's kind; "offset" is its cfa_offset."""

    NONE = 0  # no entry covers the address
    RSP = 1  # rsp + offset
    RBP = 2  # rbp + offset
    PLT = 3  # rsp + 8, and 8 more when rip & 15 is at least offset
    RBP_DEREF = 4  # *(rbp + offset): a function that realigned its stack
    ROOT = 5  # there is no caller: _start, and where threads start
    SIGNAL = 6  # CFA = *(rsp + offset), rip in *(rsp + offset + 8), rbp in *(rsp + offset - 40)
    REGISTER = 7  # OtherRegister(offset & 15) + (offset >> 4); known in the innermost frame and sometimes its caller's
    UNSUPPORTED = 8
    RSP_DEREF_PLUS = 9  # *(rsp + (s16)offset) + (offset >> 16): OpenSSL's assembly
    RBP_DEREF_PLUS = 10  # *(rbp + (s16)offset) + (offset >> 16)
    INDEXED = 11  # *(rsp + 8 * OtherRegister(offset & 15) + (offset >> 4 & 0xfff)) + (offset >> 16): OpenSSL again


class OtherRegister(IntEnum):
    """The register of a REGISTER row."""

    R8 = 0
    R9 = 1
    R10 = 2
    R11 = 3
    R12 = 4
    R13 = 5
    R14 = 6
    R15 = 7
    RDI = 8
    RSI = 9
    RBP = 10
    RBX = 11
    RDX = 12
    RAX = 13
    RCX = 14


_BY_NUMBER = ("RAX", "RDX", "RCX", "RBX", "RSI", "RDI", "RBP", "", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15")
_OTHER_REGISTERS = {number: OtherRegister[name] for number, name in enumerate(_BY_NUMBER) if name}


class RbpKind(IntEnum):
    """How the caller's rbp is found: the high four bits of a row's kind; offsets are in units of 8 bytes."""

    SAME = 0
    AT_CFA = 1  # *(CFA + 8 * rbp_offset)
    AT_RBP = 2  # *(rbp + 8 * rbp_offset)
    UNKNOWN = 3
    AT_RSP = 4  # *(rsp + 8 * rbp_offset)


class UnwindRow(NamedTuple):
    """A row, unpacked."""

    start: int  # offset in the page
    cfa: CfaKind
    cfa_offset: int
    rbp: RbpKind
    rbp_offset: int


class TooManyRows(ValueError):
    """A page has more rows than the BPF maps hold."""


def unpack_rows(rows: bytes) -> tuple[UnwindRow, ...]:
    """The rows of a page as values."""
    return tuple(unpack_row(rows, index) for index in range(len(rows) // ROW.size))


def unpack_row(rows: bytes, index: int) -> UnwindRow:
    """One row of a page as values."""
    start, kind, rbp_offset, cfa_offset = ROW.unpack_from(rows, index * ROW.size)
    return UnwindRow(start, CfaKind(kind & 15), cfa_offset, RbpKind(kind >> 4), rbp_offset)


def _body(cfa: CfaKind, cfa_offset: int = 0, rbp: RbpKind = RbpKind.SAME, rbp_offset: int = 0) -> bytes:
    """A row without its start."""
    return _BODY.pack(cfa | rbp << 4, rbp_offset, cfa_offset)


_NONE = _body(CfaKind.NONE)
_ROOT = _body(CfaKind.ROOT)
_UNSUPPORTED = _body(CfaKind.UNSUPPORTED)


class UnwindTable:
    """The unwind rows of one file, by page; reads the file when it is asked, so keep the file open.

    Opening it reads the head of .eh_frame_hdr and no more.  BadElf when that contradicts itself.
    """

    def __init__(self, image: ElfImage) -> None:
        self._image = image
        self._index: FrameIndex = open_index(image) if image.machine == _MACHINE_X86_64 else NO_FRAMES
        self._common_entries: dict[int, CommonEntry] = {}
        self._bodies: dict[tuple[Rules, bool], bytes] = {}
        self._plain_bodies: dict[tuple[int, int, int], bytes] = {}

    @property
    def empty(self) -> bool:
        """Whether all its pages are NONE: Go and JIT code, other machines."""
        return self._index is NO_FRAMES

    def rows(self, page: int) -> bytes:
        """The rows of the page at address ``page << PAGE_SHIFT`` of the image; BadElf, TooManyRows."""
        begin = page << PAGE_SHIFT
        rows = _Rows(begin)
        budget = _PAGE_BYTES_MAX
        found = self._index.find(begin, begin + PAGE_SIZE)
        limits = [*(entry.start for entry in found), begin + PAGE_SIZE][1:]
        read = self._entries(found)
        for (start, vaddr), limit in zip(found, limits, strict=True):
            try:
                frame = self._frame(vaddr, read(vaddr))
                budget -= len(frame.data)
                if budget < 0:
                    break
                if frame.start == start and limit > begin:
                    self._add(rows, frame, limit)
            except BadElf:
                continue  # the others are still good; this one's addresses stay NONE
        if begin <= self._image.entry < begin + PAGE_SIZE and self._begins_at_entry_point():
            rows.fill(self._image.entry, _ROOT)
        return rows.packed()

    def _begins_at_entry_point(self) -> bool:
        """Whether the kernel begins there: the dynamic linker and musl's programs have no entry for that code.

        In libraries some linkers give the first function as entry point.
        """
        try:
            return bool(_ENTRY_POINT.search(self._image.read_virtual(self._image.entry, _ALIGNMENT)))
        except BadElf:
            return False

    def _add(self, rows: _Rows, frame: FrameEntry, limit: int) -> None:
        """Add the rows of one entry, which hold up to address ``limit`` at most."""
        end = min(frame.end, limit)
        if end <= max(frame.start, rows.begin) or frame.end > _ADDRESS_END:
            return
        plain = self._plain(frame, rows.begin, end) if is_plain(frame.common) else None
        if plain is not None:
            rows.add_all(plain)
        elif frame.common.return_register == RETURN_ADDRESS:
            for vaddr, rules in frame_rules(frame, rows.begin, end):
                rows.add(vaddr, self._body_of(rules, frame.common.is_signal_frame))
        else:
            rows.add(frame.start, _UNSUPPORTED)
        rows.add(end, _NONE)

    def _plain(self, frame: FrameEntry, begin: int, end: int) -> list[tuple[int, bytes]] | None:
        """The rows of an ordinary function; None for others."""
        found = plain_rows(frame, begin, end)
        if found is None:
            return None
        bodies = self._plain_bodies
        if len(bodies) >= 2 * ROWS_MAX:
            bodies.clear()
        rows = []
        for vaddr, register, offset, place in found:
            key = (register, offset, place)
            body = bodies.get(key)
            if body is None:
                body = bodies[key] = row_body(rules_of(*key), is_signal_frame=False)
            rows.append((vaddr, body))
        return rows

    def _body_of(self, rules: Rules, is_signal_frame: bool) -> bytes:
        """A row by its rules, from memory: a file has few different ones."""
        body = self._bodies.get((rules, is_signal_frame))
        if body is None:
            if len(self._bodies) >= ROWS_MAX:
                self._bodies.clear()
            body = self._bodies[rules, is_signal_frame] = row_body(rules, is_signal_frame)
        return body

    def _entries(self, found: list[Found]) -> Callable[[int], bytes]:
        """Gives the FDEs by their addresses, from one read of the file where they lie side by side."""
        first = min((entry.vaddr for entry in found), default=0)
        last = max((entry.vaddr for entry in found), default=0)
        together = b""
        if 0 < last - first <= _TOGETHER_MAX:
            with suppress(BadElf):
                together = self._image.read_virtual_up_to(first, last - first + _COMMON_ENTRY_MAX)

        def read(vaddr: int) -> bytes:
            at = vaddr - first
            end = at + 4 + int.from_bytes(together[at : at + 4], "little")
            return (
                together[at:end] if end - at >= _ENTRY_MIN and end <= len(together) else read_entry(self._image, vaddr)
            )

        return read

    def _frame(self, vaddr: int, data: bytes) -> FrameEntry:
        """The FDE at an address."""
        common_vaddr = common_entry_vaddr(data, vaddr)
        common = self._common_entries.get(common_vaddr)
        if common is None:
            if len(self._common_entries) >= _COMMON_ENTRIES_MAX:
                self._common_entries.clear()
            common = parse_common(read_entry(self._image, common_vaddr, _COMMON_ENTRY_MAX), common_vaddr)
            self._common_entries[common_vaddr] = common
        return parse_frame(data, vaddr, common)


class _Rows:
    """The rows of a page while they are collected, in order of address."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self._starts = [0]
        self._bodies = [_NONE]

    def add(self, vaddr: int, body: bytes) -> None:
        """Let a row hold from an address on, in place of one that starts there too."""
        start = max(vaddr - self.begin, 0)
        if start >= PAGE_SIZE:
            return
        if self._starts and start == self._starts[-1]:
            self._starts.pop()
            self._bodies.pop()
        if not self._bodies or self._bodies[-1] != body:
            self._starts.append(start)
            self._bodies.append(body)

    def add_all(self, rows: list[tuple[int, bytes]]) -> None:
        """Add the rows of a function; a call for each would take longer than the rest."""
        starts, bodies, begin = self._starts, self._bodies, self.begin
        for vaddr, body in rows:
            start = vaddr - begin
            if start <= starts[-1] or start >= PAGE_SIZE:
                self.add(vaddr, body)
            elif body != bodies[-1]:
                starts.append(start)
                bodies.append(body)

    def fill(self, vaddr: int, body: bytes) -> None:
        """Let a row hold from an address up to the next row, if no entry covers the address."""
        start = vaddr - self.begin
        index = bisect_right(self._starts, start) - 1
        if self._bodies[index] != _NONE:
            return
        if self._starts[index] == start:
            self._bodies[index] = body
        else:
            self._starts.insert(index + 1, start)
            self._bodies.insert(index + 1, body)

    def packed(self) -> bytes:
        """As BPF reads them; TooManyRows.

        A page that would have too many does without those of padding, and if need be gives up the addresses between
        the pushes of some functions, where hardly any call returns to.
        """
        if len(self._starts) > ROWS_MAX:
            self._drop_padding()
        for size in _GIVEN_UP_FIRST:
            if len(self._starts) > ROWS_MAX:
                self._give_up(size)
        if len(self._starts) > ROWS_MAX:
            raise TooManyRows(f"the page at {self.begin:#x} has {len(self._starts)} unwind rows")
        return b"".join([_START.pack(start) + body for start, body in zip(self._starts, self._bodies, strict=True)])

    def _drop_padding(self) -> None:
        """Let the rows before the gaps that alignment leaves between functions hold in the gaps: nothing runs there."""
        for start, end, body in self._taken():
            if body != _NONE or start == 0 or end - start >= _ALIGNMENT:
                self.add(self.begin + start, body)

    def _give_up(self, size: int) -> None:
        """Make one UNSUPPORTED row of neighbours that hold for so many bytes at most, no more of them than needed."""
        excess = len(self._starts) - ROWS_MAX
        last_was_short = False
        for start, end, body in self._taken():
            short = body != _NONE and end - start <= size
            if excess and short and last_was_short:
                self._bodies[-1] = _UNSUPPORTED
                excess -= 1
            else:
                self.add(self.begin + start, body)
            last_was_short = short

    def _taken(self) -> list[tuple[int, int, bytes]]:
        """(start, end, body) of all rows, which are taken out."""
        starts, bodies = self._starts, self._bodies
        self._starts, self._bodies = [], []
        return list(zip(starts, [*starts[1:], PAGE_SIZE], bodies, strict=True))


def row_body(rules: Rules, is_signal_frame: bool) -> bytes:
    """A row without its start: kind, rbp_offset, cfa_offset."""
    if rules.return_address[0] == How.UNDEFINED:
        return _ROOT
    if is_signal_frame and (place := _signal_place(rules)) is not None:
        return _body(CfaKind.SIGNAL, place)
    if rules.return_address != (How.OFFSET, -8, b""):
        return _UNSUPPORTED
    kind, offset = _cfa(rules)
    if kind == CfaKind.UNSUPPORTED or not -_DISTANCE_MAX <= offset < _DISTANCE_MAX:
        return _UNSUPPORTED
    return _body(kind, offset, *_rbp(rules.rbp))


def _cfa(rules: Rules) -> tuple[CfaKind, int]:
    if rules.cfa_expression is not None:
        return _cfa_of_expression(rules.cfa_expression)
    register, offset = rules.cfa_register, rules.cfa_offset
    kind = {RSP: CfaKind.RSP, RBP: CfaKind.RBP}.get(register)
    if kind is not None:
        return kind, offset
    other = _OTHER_REGISTERS.get(register)
    if other is not None:
        return CfaKind.REGISTER, offset << _REGISTER_SHIFT | other
    return CfaKind.UNSUPPORTED, 0


def _cfa_of_expression(expression: bytes) -> tuple[CfaKind, int]:
    """The few expressions that compilers, linkers and OpenSSL write."""
    if plt := _PLT.fullmatch(expression):
        return CfaKind.PLT, plt[1][0] - 0x30
    if indexed := _INDEXED.fullmatch(expression):
        return _cfa_indexed(indexed)
    match = _DEREFERENCED.fullmatch(expression)
    if not match:
        return CfaKind.UNSUPPORTED, 0
    of_rbp, place = match[1] == b"\x76", Reader(match[2], 0).sleb()
    addend = Reader(match[3], 0).uleb() if match[3] else 0
    if of_rbp and not addend:
        return CfaKind.RBP_DEREF, place
    if addend >= _PLACE_MAX or not -_PLACE_MAX <= place < _PLACE_MAX:
        return CfaKind.UNSUPPORTED, 0
    return CfaKind.RBP_DEREF_PLUS if of_rbp else CfaKind.RSP_DEREF_PLUS, addend << 16 | place & 0xFFFF


def _cfa_indexed(match: re.Match[bytes]) -> tuple[CfaKind, int]:
    place, addend = Reader(match[1], 0).sleb(), Reader(match[3], 0).uleb()
    if not 0 <= place < _INDEXED_PLACE_MAX or addend >= _PLACE_MAX:
        return CfaKind.UNSUPPORTED, 0
    return CfaKind.INDEXED, addend << 16 | place << _REGISTER_SHIFT | match[2][0] - 0x78


def _rbp(rule: Rule) -> tuple[RbpKind, int]:
    how, offset, expression = rule
    if how == How.SAME:
        return RbpKind.SAME, 0
    kind = RbpKind.AT_CFA
    if how == How.EXPRESSION:
        kind, place = RbpKind.AT_RBP, _place(expression, RBP)
        if place is None:
            kind, place = RbpKind.AT_RSP, _place(expression, RSP)
        if place is None:
            return RbpKind.UNKNOWN, 0
        offset = place
    if how in (How.OFFSET, How.EXPRESSION) and offset % 8 == 0 and -128 <= offset // 8 < 128:  # noqa: PLR2004
        return kind, offset // 8
    return RbpKind.UNKNOWN, 0


def _place(expression: bytes, register: int) -> int | None:
    """The offset in an expression that is a register + offset."""
    match = _AT_REGISTER.fullmatch(expression)
    return Reader(match[2], 0).sleb() if match and match[1][0] == 0x70 + register else None


def _signal_place(rules: Rules) -> int | None:
    """Where a signal frame keeps the rsp of what it interrupted, from rsp on; None if it isn't Linux's layout."""
    match = _DEREFERENCED.fullmatch(rules.cfa_expression or b"")
    if not match or match[1] != b"\x77" or match[3]:
        return None
    place = Reader(match[2], 0).sleb()
    saved = (_place(rules.return_address[2], RSP), _place(rules.rbp[2], RSP))
    return place if saved == (place + _SIGNAL_RIP, place + _SIGNAL_RBP) else None
