"""Hands compiled programs to the kernel, several at once, and keeps what bcc and LLVM print meanwhile."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

LOADERS = 4  # programs that are verified at the same time, each on one CPU


def load_together(bpf: Any, kinds: dict[str, int]) -> dict[str, Any]:
    """Programs of a ``bcc.BPF`` by name, of these kinds; the kernel verifies the first of ``kinds`` first.

    bcc's ``load_func`` may run in several threads: it only reads what was compiled, and errno is the thread's own.
    """
    with contextlib.suppress(Exception), ThreadPoolExecutor(LOADERS) as loaders:
        list(loaders.map(lambda name: bpf.load_func(name.encode(), kinds[name]), kinds))
    # bcc keeps what is loaded; what is not fails again, alone, so that what the kernel says last is of this program.
    return {name: bpf.load_func(name.encode(), kind) for name, kind in kinds.items()}


@contextlib.contextmanager
def captured_stderr() -> Iterator[Any]:
    """Collects what libbcc and LLVM print straight to file descriptor 2."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def said(captured: Any) -> str:
    """The last lines of what was collected."""
    captured.seek(0)
    lines = captured.read().decode("utf-8", "replace").strip().splitlines()
    return "\n".join(lines[-15:])
