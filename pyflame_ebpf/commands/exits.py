"""How a command ends: errors are printed here and nowhere else, and become exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from pyflame_ebpf.errors import Interrupted, PyflameError

_READER_GONE = 141
_INTERRUPTED = 130


def exit_after(command: Callable[[], int | None]) -> NoReturn:
    """Run a command, and end the program with its exit code.

    Ctrl-C raises KeyboardInterrupt only while the command runs: before and after it there is nothing to put in order.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        if before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = exit_code_of(command)
    except KeyboardInterrupt:  # another one, while the first was told
        code = _INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    raise typer.Exit(code)


def exit_code_of(command: Callable[[], int | None]) -> int:
    """Run a command, and print its error if it fails.  Returns the exit code; raises nothing but SystemExit."""
    try:
        code = command() or 0
        _flush()
    except PyflameError as error:
        _say_error(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:
        _discard_standard_output()
        return _READER_GONE
    except Interrupted as error:
        _say_error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _say_error("interrupted", "")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches the user
        return _defect(error)
    return code


def _say_error(message: str, hint: str) -> None:
    from pyflame_ebpf.commands.terminal import say_error  # noqa: PLC0415 - only when there is an error

    say_error(message, hint)


def _defect(error: Exception) -> int:
    from pyflame_ebpf.commands.defect_report import EXIT_CODE, save_defect_report  # noqa: PLC0415 - only when there is one

    path = save_defect_report(error)
    hint = f"What is known of it is in {path}; please send it to the project." if path else ""
    _say_error(f"a defect in pyflame-ebpf: {type(error).__name__}: {error}", hint)
    return EXIT_CODE


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_standard_output() -> None:
    """Give the interpreter's own flush at exit a file that can be written."""
    with contextlib.suppress(OSError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
