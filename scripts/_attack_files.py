"""ELF files and saved profiles that are small on disk and large for whoever reads them as they ask."""

from __future__ import annotations

import gzip
import json
import lzma
import struct
from collections.abc import Sequence
from pathlib import Path

HEADER, SEGMENT, SECTION = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), struct.Struct("<IIQQQQIIQQ")
LOOP = bytes.fromhex("b940420f00ffc975fcc3").ljust(4096, b"\x90")  # mov $1000000, %ecx; 1: dec %ecx; jnz 1b; ret
CODE_AT, SECTIONS_AT, NAMES_AT = 0x1000, 0x400, 0x800
SYMTAB, STRTAB, PROGBITS, LOAD, DYNAMIC, EH_FRAME = 2, 3, 1, 1, 2, 0x6474E550
MIB = 1 << 20

Section = tuple[bytes, int, int, int, int]  # name, type, offset and address, size, link
Segment = tuple[int, int, int]  # type, offset and address, size


def elf(
    segments: Sequence[Segment], sections: Sequence[Section], blobs: dict[int, bytes], path: Path, size: int
) -> None:
    """Write a sparse ELF file whose page of code is at offset and address 4096."""
    heads, names = [bytes(SECTION.size)], b"\0"
    for name, kind, offset, length, link in (*sections, (b".shstrtab", STRTAB, NAMES_AT, 0x100, 0)):
        heads.append(SECTION.pack(len(names), kind, 0, offset, offset, length, link, 0, 0, 0))
        names += name + b"\0"
    loaded = SEGMENT.pack(LOAD, 5, 0, 0, 0, 0x2000, 0x2000, 4096)
    others = [SEGMENT.pack(kind, 4, at, at, 0, length, length, 8) for kind, at, length in segments]
    magic = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    counts = (64, 56, 1 + len(others), 64, len(heads), len(heads) - 1)
    head = HEADER.pack(magic, 3, 62, 1, 0, 64, SECTIONS_AT, 0, *counts)
    with path.open("wb") as file:
        file.write(head + loaded + b"".join(others))
        for at, data in {SECTIONS_AT: b"".join(heads), NAMES_AT: names, CODE_AT: LOOP, **blobs}.items():
            file.seek(at)
            file.write(data)
        file.truncate(max(size, file.seek(0, 2)))
    path.chmod(0o644)


def symbol_scan(path: Path) -> None:
    """256 strings of a wanted name, none of which is a symbol's, and 127 MB of symbols to seek them in."""
    wanted = b"\0" + (b"_PyRuntime\0" + b"_PyThreadState_Current\0") * 256
    sections = ((b".symtab", SYMTAB, 4 * MIB, 127 * MIB // 24 * 24, 2), (b".strtab", STRTAB, 160 * MIB, 8 * MIB, 0))
    elf((), sections, {160 * MIB: wanted}, path, 170 * MIB)


def hash_buckets(path: Path) -> None:
    """A .gnu_hash of 32 million buckets."""
    dynamic = struct.pack("<8Q", 0x6FFFFEF5, 4 * MIB, 6, 0x3800, 5, 0x3900, 0, 0)
    segments = ((LOAD, 4 * MIB, 140 * MIB), (DYNAMIC, 0x3000, 64), (LOAD, 0x3000, 0x1000))
    elf(segments, (), {0x3000: dynamic, 4 * MIB: struct.pack("<4I", 32 * MIB - 64, 1, 1, 0)}, path, 145 * MIB)


def unwind_entries(path: Path) -> None:
    """An .eh_frame of 15 MB of small entries, without a table to search them by."""
    entry = struct.pack("<II", 13, 0) + b"\x01zR\0\x01\x78\x10\x01\x1b"
    entry = struct.pack("<I", len(entry) - 4) + entry[4:]
    head = b"\x01\x1b\xff\xff" + struct.pack("<i", 0x10000 - 0x8004)
    segments = ((LOAD, 0x8000, 24 * MIB), (EH_FRAME, 0x8000, 8))
    blobs = {0x8000: head, 0x10000: entry * (15 * MIB // len(entry))}
    elf(segments, ((b".eh_frame", PROGBITS, 0x10000, 15 * MIB, 0),), blobs, path, 25 * MIB)


def packed_symbols(path: Path) -> None:
    """Symbols of 60 MB in a .gnu_debugdata of some KB."""
    inner = bytearray(60 * MIB)
    inner[:4] = b"\x7fELF"
    packed = lzma.compress(bytes(inner), preset=0)
    elf((), ((b".gnu_debugdata", PROGBITS, 4 * MIB, len(packed), 0),), {4 * MIB: packed}, path, 0)


ELF_FILES = {
    "symbol scan": symbol_scan,
    "hash buckets": hash_buckets,
    "unwind entries": unwind_entries,
    "packed symbols": packed_symbols,
}


def _gzip_of(pieces: Sequence[bytes], times: int) -> bytes:
    """Return pieces, the middle one repeated, compressed."""
    first, middle, last = pieces
    return gzip.compress(first + middle * times + last, 1)


def profiles() -> dict[str, bytes]:
    """Return files that are given to ``report`` by name; none is a profile."""
    start = b'{"format":"pyflame-ebpf profile","version":'
    return {
        "zeros": _gzip_of((b"", bytes(MIB), b""), 600),
        "texts": _gzip_of((start + b'3,"texts":["x"', b',"x"' * 65536, b"]}"), 300),
        "nesting": gzip.compress(b"[" * 200_000),
        "digits": gzip.compress(start + b"9" * 1_000_000 + b"}"),
        "huge time": gzip.compress(json.dumps({"format": "pyflame-ebpf profile", "started": 1e308}).encode()),
        "twice": gzip.compress(start + b"3}") * 2,
        "wrong encoding": gzip.compress(b'{"format":"\xff"}'),
        "long stack": b";".join(b"f%d" % number for number in range(100_000)) + b" 3\n",
        "long text": b"a" * (64 * MIB) + b" 1\n",
        "huge count": b"a;b 99999999999999999999999\n",
        "escapes": b"\x1b[2J;b\x1b]0;x\x07 nonsense\n",
        "nothing": b"",
    }
