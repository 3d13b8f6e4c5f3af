"""How many descriptors this process may use for mapped files and for processes: a large host has thousands of both."""

from __future__ import annotations

import resource

FILES_MAX = 16384  # mapped files: 40 of each of 400 containers, whose file systems are their own
PROCESSES_MAX = 4096  # directories of processes
OTHER_FILES = 1024  # everything else: maps, programs, debug files


def allow_open_files() -> None:
    """Raises this process's limit of open files to what a large host may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX + PROCESSES_MAX + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def files_allowed() -> int:
    """How many mapped files may be open, with some left of this process's limit for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return FILES_MAX
    return min(FILES_MAX, max(soft - processes_allowed() - OTHER_FILES, soft // 2))


def processes_allowed() -> int:
    """How many directories of processes may be open: an eighth of this process's limit at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return PROCESSES_MAX if soft == resource.RLIM_INFINITY else min(PROCESSES_MAX, soft // 8)
