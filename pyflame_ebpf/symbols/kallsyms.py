"""Names of the kernel's functions, from /proc/kallsyms."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from pathlib import Path


class KernelSymbols:
    """Names of kernel text addresses.  /proc/kallsyms is read at the first look-up and kept."""

    def __init__(self, path: Path = Path("/proc/kallsyms")) -> None:
        self._path = path
        self._lines: list[bytes] | None = None  # of functions, by rising address
        self.hidden = False  # after the first look-up: True if the kernel shows zeros in place of addresses

    def lookup(self, address: int) -> tuple[str, str] | None:
        """(function, module) that holds an address, None if unknown; the module is "" for the kernel itself."""
        lines = self._lines if self._lines is not None else self._load()
        index = bisect_right(lines, b"%016x\xff" % address) - 1
        if index < 0:
            return None
        line = lines[bisect_left(lines, lines[index][:16])]  # of aliases the first, as the kernel itself does
        name, _, module = line[19:].decode("utf-8", "replace").partition("\t")
        return name, module.strip("[] ")

    def _load(self) -> list[bytes]:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except OSError:
            lines = []
        text = [line for line in lines if line[17:18] in (b"t", b"T", b"w", b"W")]
        text.sort(key=lambda line: line[:16])  # zero-padded hexadecimal sorts as it counts
        self.hidden = not text or text[-1].startswith(b"0000000000000000")
        self._lines = [] if self.hidden else text
        return self._lines
