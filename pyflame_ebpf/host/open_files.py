"""How many files this process may have open: a large host has thousands mapped."""

from __future__ import annotations

import resource

FILES_MAX = 16384  # open at the same time: 40 of each of 400 containers, whose file systems are their own
OTHER_FILES = 1024  # descriptors for everything else: maps, programs, debug files


def allow_open_files() -> None:
    """Raises this process's limit of open files to what the mapped files of a large host may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def files_allowed() -> int:
    """How many mapped files may be open, with some left of this process's limit for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES_MAX if soft == resource.RLIM_INFINITY else min(FILES_MAX, max(soft - OTHER_FILES, soft // 2))
