"""Reports of defects: an unexpected exception is written to a file, and the user sees one line."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from pathlib import Path

from pyflame_ebpf import __version__
from pyflame_ebpf.host.output_directory import save_elsewhere

EXIT_CODE = 70


def save_defect_report(error: BaseException) -> Path | None:
    """Write versions, arguments and traceback to a new file of mode 0600.  Returns None if it cannot be written."""
    text = "".join(
        (
            f"pyflame-ebpf {__version__}, Python {platform.python_version()}, kernel {platform.release()}\n",
            f"arguments: {sys.argv[1:]!r}\n\n",
            *traceback.format_exception(error),
        )
    )
    try:
        places = (tempfile.gettempdir(),)
    except OSError:  # none of those that can be is writable
        return None
    written = text.encode("utf-8", "backslashreplace")
    return save_elsewhere(lambda stream: stream.write(written), ".txt", "pyflame-ebpf-defect-", places)
