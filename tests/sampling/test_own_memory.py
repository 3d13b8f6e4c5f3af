"""What the profiler gives back of its own memory."""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

from pyflame_ebpf.sampling.own_memory import give_back, unwritten_code

SMAPS = b"""\
1000000-1400000 r-xp 00001000 fe:00 77                          /lib/code.so
Rss:                4096 kB
Anonymous:             0 kB
2000000-2400000 r-xp 00001000 fe:00 78                          /lib/patched.so
Rss:                4096 kB
Anonymous:             4 kB
3000000-3400000 r--p 00001000 fe:00 79                          /lib/relocated.so
Rss:                4096 kB
Anonymous:             0 kB
4000000-4400000 r-xp 00000000 00:00 0
Rss:                4096 kB
Anonymous:             0 kB
5000000-5400000 r-xp 00001000 fe:00 80                          /lib/little.so
Rss:                   8 kB
Anonymous:             0 kB
6000000-6400000 rwxp 00001000 fe:00 81                          /lib/writable.so
Rss:                4096 kB
Anonymous:             0 kB
"""


def resident(path: str) -> int:
    """kB of a file's code in this process."""
    text = Path("/proc/self/smaps").read_text()
    found = re.search(rf"^\S+ r-xp .* {re.escape(path)}\n(?:[A-Z].*\n)*?Rss: +(\d+)", text, re.MULTILINE)
    assert found
    return int(found[1])


HOSTILE = b"""\
1000000-1400000 r-xp 00001000 fe:00 77                          /lib/\x0cAnonymous:             4 kB\x0c.so\x85
Rss:                4096 kB
Anonymous:             0 kB
"""


def test_a_file_s_name_is_no_line_of_its_own() -> None:
    assert list(unwritten_code(HOSTILE)) == [(0x1000000, 0x400000)]


def test_only_large_code_that_nobody_has_written_is_given_back() -> None:
    assert list(unwritten_code(SMAPS)) == [(0x1000000, 0x400000)]


def test_code_that_is_given_back_still_runs() -> None:
    library = ctypes.CDLL(None)
    give_back()
    assert library.abs(-3) == 3
    assert sorted([3, 1, 2]) == [1, 2, 3]


def test_mapped_code_leaves_memory(tmp_path: Path) -> None:
    path = tmp_path / "code.bin"
    path.write_bytes(b"\xc3" * (8 << 20))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    assert sum(mapped[::4096]) == 0xC3 * 2048
    before = resident(str(path))
    give_back()
    assert before >= 8192
    assert resident(str(path)) < 64
    assert mapped[5 << 20] == 0xC3
