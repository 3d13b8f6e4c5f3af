"""ELF files written byte by byte, so that a test can say what no compiler would."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from pyflame_ebpf.elf.image import ElfImage, Section, Segment

HEADER, SEGMENT, SECTION = 64, 56, 64  # sizes in bytes


@contextmanager
def in_memory(data: bytes) -> Iterator[BinaryIO]:
    """A file that holds these bytes and is on no disk."""
    with os.fdopen(os.memfd_create("test"), "r+b", buffering=0) as file:
        file.write(data)
        yield file


@dataclass(kw_only=True)
class Handmade:
    """The fields of a file; ``body`` stands after the program headers, section headers at the end."""

    ident: bytes = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    kind: int = 3
    machine: int = 62
    entry: int = 0
    segment_size: int = SEGMENT
    section_size: int = SECTION
    segments: Sequence[Segment] = ()
    sections: Sequence[Section] = ()  # names are made of these
    names: int | None = None  # number of the section with the names; None: one after the others
    body: bytes = b""
    body_at: int = field(init=False)

    def __post_init__(self) -> None:
        self.body_at = HEADER + SEGMENT * len(self.segments)

    def bytes(self) -> bytes:
        """The file."""
        strings = b"\0" + b"".join(section.name.encode() + b"\0" for section in self.sections) + b".shstrtab\0"
        strings_at = self.body_at + len(self.body)
        sections_at = strings_at + len(strings) if self.sections else 0
        headers = [*self.sections, Section(".shstrtab", 3, 0, strings_at, len(strings), 0)] if self.sections else []
        count = len(headers)
        header = struct.pack(
            "<16sHHIQQQIHHHHHH",
            self.ident,
            self.kind,
            self.machine,
            1,
            self.entry,
            HEADER,
            sections_at,
            0,
            HEADER,
            self.segment_size,
            len(self.segments),
            self.section_size,
            count,
            (count - 1 if self.names is None else self.names) if count else 0,
        )
        segments = b"".join(
            struct.pack("<IIQQQQQQ", *each[:4], each.vaddr, each.file_size, each.memory_size, 0)
            for each in self.segments
        )
        data = header + segments + self.body
        if self.sections:
            data += strings + b"".join(
                struct.pack(
                    "<IIQQQQIIQQ",
                    strings.index(b"\0" + each.name.encode() + b"\0") + 1,
                    each.kind,
                    0,
                    each.vaddr,
                    each.offset,
                    each.size,
                    each.link,
                    0,
                    0,
                    0,
                )
                for each in headers
            )
        return data

    @contextmanager
    def opened(self) -> Iterator[ElfImage]:
        """The file as an image."""
        with in_memory(self.bytes()) as file:
            yield ElfImage(file)
