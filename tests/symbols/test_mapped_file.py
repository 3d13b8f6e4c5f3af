"""What a process has mapped: files, and code that it made itself."""

from __future__ import annotations

import pytest

from pyflame_ebpf.host import maps
from pyflame_ebpf.symbols.mapped_file import MappedFile, is_without_file
from tests.symbols.mapped import never_opened


def mapping(path: str, inode: int = 1) -> maps.Mapping:
    return maps.Mapping(0x5000, 0x9000, 0x2000, True, 1, inode, path)


@pytest.mark.parametrize(
    "path", ["/memfd:jit (deleted)", "/dev/zero", "//anon", "/SYSV00000000", "[anon:jit]", "[heap]", "[stack]"]
)
@pytest.mark.parametrize("inode", [0, 1])
def test_code_in_memory_of_the_program_is_of_no_file(path: str, inode: int) -> None:
    assert is_without_file(mapping(path, inode))


def test_files_have_an_inode_and_the_kernel_s_pages_count_as_files() -> None:
    paths = (("/usr/lib/libc.so", 1), ("", 0), ("/usr/lib/libc.so", 0), ("[vdso]", 0), ("[vsyscall]", 0))
    assert [is_without_file(mapping(*each)) for each in paths] == [False, True, True, False, False]


def test_an_address_is_at_an_offset_of_the_file() -> None:
    file = MappedFile(1, mapping("/usr/lib/libc.so"), never_opened)
    assert (file.offset_of(0x5000), file.offset_of(0x5123), file.path) == (0x2000, 0x2123, "/usr/lib/libc.so")
