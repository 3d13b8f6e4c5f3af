"""The function names that were found in one file so far."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from pyflame_ebpf.elf.file import FileIdentity
from pyflame_ebpf.elf.file_contents import Digest
from pyflame_ebpf.elf.function_table import Hit
from pyflame_ebpf.elf.image import PF_X, Segment


@dataclass(slots=True, eq=False)
class FileNames:
    """The names of a file, or of several files with the same contents, at the addresses that were asked for."""

    segments: tuple[Segment, ...] = ()
    readable: bool = False
    lack: str = ""  # why names are missing; "" if none are
    debug: FileIdentity | None = None  # the separate debug file
    digest: Digest | None = None  # of the contents, once several files share them
    rests_until: float = 0.0  # seconds on the monotonic clock: when a live view may read a large file again
    expected: set[int] = field(default_factory=set)  # addresses that will be asked for
    kept: int = 0  # characters of all names
    _by_vaddr: dict[int, str] = field(default_factory=dict)  # "": no name
    _starts: list[int] = field(default_factory=list)  # of the functions that were found, rising
    _spans: dict[int, tuple[int, str]] = field(default_factory=dict)  # start → (last address looked up, name)

    def vaddr_of(self, offset: int) -> int | None:
        """The address in the image of code at a file offset, None if no executable segment has the offset."""
        for segment in self.segments:
            if segment.flags & PF_X and segment.offset <= offset < segment.offset + segment.file_size:
                return segment.vaddr - segment.offset + offset
        return None

    def expect(self, offsets: Iterable[int]) -> None:
        """Note code offsets that will be asked for, except those whose names are known."""
        vaddrs = {vaddr for offset in offsets if (vaddr := self.vaddr_of(offset)) is not None}
        self.expected |= vaddrs - self._by_vaddr.keys()

    def name_at(self, vaddr: int) -> str | None:
        """The name at an address: "" if the file has none there, None if the file has yet to be read for it."""
        name = self._by_vaddr.get(vaddr)
        if name is None and (between := self._between(vaddr)):
            name = self._by_vaddr[vaddr] = between
        return name

    def _between(self, vaddr: int) -> str:
        """The function that was found at its start or before this address and again after it; "" for none.

        A live view asks for new addresses of the same functions each second; this spares reading their file again.
        """
        index = bisect_right(self._starts, vaddr) - 1
        if index < 0:
            return ""
        last, name = self._spans[self._starts[index]]
        return name if vaddr <= last else ""

    @property
    def asked(self) -> bool:
        """True if any address was looked up."""
        return bool(self._by_vaddr)

    def add(self, vaddrs: Iterable[int], hits: dict[int, Hit]) -> int:
        """Keep what the file says of these addresses.  Returns the characters of the new names."""
        self._by_vaddr |= dict.fromkeys(vaddrs, "")
        self.expected = set()
        for vaddr, (name, offset) in hits.items():
            self._by_vaddr[vaddr] = name
            start = vaddr - offset
            if start not in self._spans:
                insort(self._starts, start)
            self._spans[start] = max(self._spans.get(start, (vaddr, name)), (vaddr, name))
        added = sum(len(name) for name, _ in hits.values())
        self.kept += added
        return added

    def begin_anew(self, segments: tuple[Segment, ...], digest: Digest) -> None:
        """Forget all names: from now on they come from the contents with this digest."""
        if segments != self.segments:  # the expected addresses were computed by the old ones
            self.expected = set()
        self._by_vaddr, self._starts, self._spans, self.kept = {}, [], {}, 0
        self.lack, self.rests_until = "", 0.0
        self.segments, self.digest = segments, digest
