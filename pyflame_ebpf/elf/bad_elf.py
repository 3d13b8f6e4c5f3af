"""How reading an ELF file fails."""

from __future__ import annotations

from pyflame_ebpf.errors import PyflameError


class BadElf(PyflameError):
    """A file is not a regular file, not ELF for a 64-bit little-endian machine, or contradicts itself."""

    exit_code = 12


class OverBudget(BadElf):
    """Reading a file takes more time or memory than its budget allows; what it was read for counts as absent."""


class ProcessOverBudget(OverBudget):
    """The files of a process have taken so much that no other is begun for it; nothing is said of the file itself."""
