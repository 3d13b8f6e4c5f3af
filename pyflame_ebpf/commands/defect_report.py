"""Reports of defects: an unexpected exception is written to a file, and the user sees one line."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path

from pyflame_ebpf import __version__
from pyflame_ebpf.host.output_directory import sudo_user

EXIT_CODE = 70


def save_defect_report(error: BaseException) -> Path | None:
    """Write versions, arguments and traceback to a new temporary file.  Returns None if it cannot be written."""
    text = "".join(
        (
            f"pyflame-ebpf {__version__}, Python {platform.python_version()}, kernel {platform.release()}\n",
            f"arguments: {sys.argv[1:]!r}\n\n",
            *traceback.format_exception(error),
        )
    )
    try:
        descriptor, name = tempfile.mkstemp(prefix="pyflame-ebpf-defect-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            owner = sudo_user()
            if owner is not None:
                os.fchown(descriptor, *owner)
            file.write(text)
    except OSError:
        return None
    return Path(name)
