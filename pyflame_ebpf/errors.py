"""Every way a command can end: the exit codes in one table, and the error that carries message, hint and code.

Each kind of error is a class of its own in the room where it arises, with a code from this table that no other class
has.  They are printed in one place, ``commands/exits.py``.
"""

from __future__ import annotations

EXIT_CODES = {
    0: "done: everything asked for was written",
    1: "another failure, as the message says",
    2: "the command line is wrong",
    3: "not root, or capabilities are missing",
    4: "bcc is missing, or another package of that name is in its place",
    5: "the kernel publishes no type information (BTF)",
    6: "the compiler or the kernel refused the BPF programs",
    7: "the frequency is over the kernel's limit",
    8: "another pyflame-ebpf is recording on this host",
    9: "run inside a container, where the host's processes cannot be told apart",
    10: "a process does not exist, or has ended",
    11: "a process may not be read",
    12: "an ELF file is damaged",
    13: "the output exists already",
    14: "the output cannot be written",
    15: "the disk is full; the message says where the recording was saved",
    16: "nothing was sampled",
    17: "the Python release is not one that can be read",
    18: "the saved profile or the folded stacks cannot be read",
    19: "a Python process describes itself in a way that CPython does not",
    20: "the lock that keeps two profilers apart cannot be opened",
    21: "/proc is not mounted",
    22: "a resource limit of this process is too small",
    70: "a defect in pyflame-ebpf; the message says where its report was saved",
    126: "the program to record cannot be run",
    127: "the program to record was not found",
    130: "interrupted before anything was recorded (129 by SIGHUP, 131 by SIGQUIT, 143 by SIGTERM)",
    141: "the reader of standard output went away",
}


class PyflameError(Exception):
    """An error to be shown as ``message`` and ``hint`` (what to do next); the command ends with ``exit_code``."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PyflameError):
    """The command line asks for what does not go together."""

    exit_code = 2


class Interrupted(KeyboardInterrupt):
    """A signal ended the command before it had anything to show for; never caught by ``except Exception``."""

    def __init__(self, signal_number: int, message: str = "interrupted: nothing was recorded", hint: str = "") -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        self.message = message
        self.hint = hint
