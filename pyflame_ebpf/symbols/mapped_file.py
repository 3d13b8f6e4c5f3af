"""A file as a process has it mapped: where look-ups of native functions begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from pyflame_ebpf.host.maps import Mapping

OpenMapped = Callable[[Mapping], BinaryIO]  # raises OSError or PyflameError if the file cannot be opened

VDSO = "[vdso]"
_FILES_OF_NO_PROGRAM = ("/memfd:", "/dev/zero", "//anon", "/SYSV", "[anon:", "[heap]", "[stack]")


class MappedFile(NamedTuple):
    """A file that a process has mapped, or memory of the process that no file backs."""

    pid: int  # 0 once the process is gone: its root can no longer be searched for debug files
    mapping: Mapping
    open_mapped: OpenMapped

    @property
    def path(self) -> str:
        """The file's path in the process's root, "" for anonymous memory."""
        return self.mapping.path

    def open(self) -> BinaryIO:
        """Open the file.  Raises OSError and PyflameError."""
        return self.open_mapped(self.mapping)

    def offset_of(self, address: int) -> int:
        """The file offset, in bytes, that is mapped at an address."""
        return address - self.mapping.start + self.mapping.offset


def is_without_file(mapping: Mapping) -> bool:
    """True if the program itself made the mapping's code, as JIT compilers do."""
    return not mapping.path.startswith("[v") and (not mapping.inode or mapping.path.startswith(_FILES_OF_NO_PROGRAM))
