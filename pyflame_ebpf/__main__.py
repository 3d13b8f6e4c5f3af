"""The command ``pyflame-ebpf``, also as ``python -m pyflame_ebpf``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line; ends the process."""
    try:
        from pyflame_ebpf.commands.cli import run  # noqa: PLC0415 - so that Ctrl-C is quiet while modules are imported

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        os._exit(130)
    sys.exit(code)


if __name__ == "__main__":
    main()
