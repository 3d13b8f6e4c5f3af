"""The program to record: started as the user who ran sudo, and held until sampling has begun."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import signal
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host.output_directory import sudo_user

_RESTORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)
_SENT_BY_TERMINALS = (signal.SIGINT, signal.SIGQUIT)  # to the whole foreground group: termios(3), ISIG
_ERRNO = struct.Struct("i")
_NEVER_RELEASED = 125


class ProgramNotFound(PyflameError):
    """The program to record does not exist."""

    exit_code = 127


class ProgramNotExecutable(PyflameError):
    """The program to record exists and cannot be run."""

    exit_code = 126


def _user_environment(uid: int) -> dict[str, str]:
    """The profiler's environment as the user's own shell would have it, as far as the user database tells."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    with contextlib.suppress(KeyError):  # a uid without a name
        user = pwd.getpwuid(uid)
        environment |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell}
    return environment


def _become(uid: int, gid: int) -> None:
    """Takes on a user's identity for good, in the child only."""
    try:
        os.initgroups(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


def _cannot_run(program: str, number: int) -> PyflameError:
    if number == errno.ENOENT:
        return ProgramNotFound(
            f"the program {program!r} was not found",
            "Give its path; sudo searches its own secure_path, not your PATH.",
        )
    return ProgramNotExecutable(
        f"the program {program!r} cannot be run: {os.strerror(number)}",
        "It must be executable by the user who ran sudo; scripts need a first line with #!.",
    )


def find_program(program: str) -> str:
    """The file that ``program`` names, found as a shell does.  Raises ProgramNotFound, ProgramNotExecutable."""
    found = shutil.which(program)
    if found is not None:
        return found
    if "/" in program and os.path.exists(program):  # noqa: PTH110 - as given
        raise _cannot_run(program, errno.EISDIR if os.path.isdir(program) else errno.EACCES)  # noqa: PTH112
    raise _cannot_run(program, errno.ENOENT)


class HeldProgram:
    """A child process that becomes the program at ``release``, or ends if it is never released.

    ``output`` is a descriptor for the program's standard output, None for this process's own.
    """

    def __init__(self, command: Sequence[str], output: int | None = None) -> None:
        self.command = tuple(command)
        self._program = find_program(command[0])
        self._status: int | None = None
        held, self._hold = os.pipe2(os.O_CLOEXEC)
        self._failure, failure = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._hold)  # so that the end of the profiler ends the wait
            self._run_program(held, failure, output)
        os.close(held)
        os.close(failure)

    def _run_program(self, held: int, failure: int, output: int | None) -> NoReturn:
        """Waits for the release and becomes the program, in the child only."""
        try:
            for number in _RESTORED:
                signal.signal(number, signal.SIG_DFL)
            if output is not None:
                os.dup2(output, 1)
            user = sudo_user()
            environment = dict(os.environ) if user is None else _user_environment(user[0])
            if user is not None:
                _become(*user)
            if os.read(held, 1):
                os.execve(self._program, self.command, environment)  # noqa: S606 - what the user asked for
        except OSError as error:
            os.write(failure, _ERRNO.pack(error.errno or errno.EINVAL))
        finally:
            os._exit(_NEVER_RELEASED)

    def release(self) -> None:
        """Lets the program start.  Raises ProgramNotFound, ProgramNotExecutable."""
        with contextlib.suppress(BrokenPipeError):  # the child failed before; its reason is in the other pipe
            os.write(self._hold, b"x")
        reason = os.read(self._failure, _ERRNO.size)
        if reason:
            raise _cannot_run(self.command[0], _ERRNO.unpack(reason)[0])

    def has_ended(self) -> bool:
        """Whether the program has ended.  It stays a zombie, whose name and CPU time can still be read."""
        if self._status is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> int:
        """Waits for the end.  Returns the exit status, or the negated number of the signal that ended the program."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def send(self, number: int) -> None:
        """Passes a signal on, unless the terminal has sent it to the program as well."""
        if number in _SENT_BY_TERMINALS and _in_foreground():
            return
        if not self.has_ended():
            os.kill(self.pid, number)

    def fate(self) -> str:
        """How the program ended, in words."""
        status = self.wait()
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        return f"{self.command[0]} (PID {self.pid}) ended with {how}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends a program that was never released."""
        os.close(self._hold)
        os.close(self._failure)


def _in_foreground() -> bool:
    """Whether a terminal sends its interrupt and quit keys to this process group, which is the program's too."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp():
                return True
    return False
