"""A file system in user space, of the files of one directory, which stops to answer when it is told to.

    stalling_files.py MOUNT_POINT DIRECTORY

Needs root.  Prints ``ready``; from SIGUSR1 on nothing is answered any more, and ``stalled`` is printed.  It ends with
its parent, and then everything that waited for it gets an error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
import sys
from pathlib import Path

LOOKUP, GETATTR, OPEN, READ, STATFS, FLUSH, INIT, OPENDIR, ACCESS = (
    1,
    3,
    14,
    15,
    17,
    25,
    26,
    27,
    34,
)  # include/uapi/linux/fuse.h
_NO_ANSWER = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET
_HEADER = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid
_ANSWER = struct.Struct("<IiQ")
_ROOT = 1
_FOREVER = 1 << 20  # seconds that names and attributes may be remembered
_PR_SET_PDEATHSIG = 1

_ANSWERS: dict[int, bytes] = {
    INIT: struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 16, 12, 65536, 1, 0, 0, 0),
    OPEN: struct.pack("<QII", 1, 0, 0),
    OPENDIR: struct.pack("<QII", 1, 0, 0),
    STATFS: struct.pack("<5Q4I24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0),
    ACCESS: b"",
    FLUSH: b"",
}

_libc = ctypes.CDLL(None, use_errno=True)


class Files:
    """Serves the files of a directory, by number."""

    def __init__(self, device: int, directory: Path) -> None:
        self.device = device
        self.names = sorted(each.name for each in directory.iterdir())
        self.contents = [(directory / name).read_bytes() for name in self.names]

    def attributes(self, node: int) -> bytes:
        """struct fuse_attr."""
        size = 0 if node == _ROOT else len(self.contents[node - 2])
        mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o755
        return struct.pack("<6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, opcode: int, node: int, body: bytes) -> bytes | int:
        """The answer's body, or an error number."""
        if opcode == LOOKUP:
            return self._lookup(body.rstrip(b"\0").decode())
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return self.contents[node - 2][offset : offset + size]
        if opcode == GETATTR:
            return struct.pack("<QII", _FOREVER, 0, 0) + self.attributes(node)
        return _ANSWERS.get(opcode, errno.ENOSYS)

    def _lookup(self, name: str) -> bytes | int:
        """struct fuse_entry_out of a file."""
        if name not in self.names:
            return errno.ENOENT
        number = self.names.index(name) + 2
        return struct.pack("<QQQQII", number, 0, _FOREVER, _FOREVER, 0, 0) + self.attributes(number)

    def serve(self) -> None:
        """Answers until the file system is unmounted."""
        while True:
            try:
                request = os.read(self.device, 1 << 20)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                continue
            _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
            if opcode in _NO_ANSWER:
                continue
            answer = self.answer(opcode, node, request[_HEADER.size :])
            body, number = (b"", -answer) if isinstance(answer, int) else (answer, 0)
            os.write(self.device, _ANSWER.pack(_ANSWER.size + len(body), number, unique) + body)


def _stall(*_: object) -> None:
    print("stalled", flush=True)
    while True:
        signal.pause()


def main() -> None:
    """Mounts and serves."""
    mount_point, directory = sys.argv[1:]
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if _libc.mount(b"stalling", os.fsencode(mount_point), b"fuse.stalling", 0, options.encode()):
        sys.exit(os.strerror(ctypes.get_errno()))
    signal.signal(signal.SIGUSR1, _stall)
    print("ready", flush=True)
    Files(device, Path(directory)).serve()


if __name__ == "__main__":
    main()
