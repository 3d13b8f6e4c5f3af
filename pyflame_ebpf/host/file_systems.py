"""Which file systems answer by themselves, and which ask a server or a program that may never answer."""

from __future__ import annotations

import ctypes
import os

# File systems that no server and no program stands behind, by f_type (include/uapi/linux/magic.h and their sources).
_OVERLAY = 0x794C7630
_LOCAL = frozenset((
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # xfs
    0x9123683E,  # btrfs
    0xCA451A4E,  # bcachefs
    0xF2F52010,  # f2fs
    0x2FC12FC1,  # zfs
    0x01021994,  # tmpfs
    0x858458F6,  # ramfs
    0x73717368,  # squashfs
    0xE0F5E1E2,  # erofs
    0x28CD3D45,  # cramfs
    0x9660,  # isofs
    0x4D44,  # vfat
    0x2011BAB0,  # exfat
    0x958458F6,  # hugetlbfs
))  # fmt: skip
_LOCAL_NAMES = frozenset(
    b"ext2 ext3 ext4 xfs btrfs bcachefs f2fs zfs tmpfs ramfs rootfs squashfs erofs cramfs iso9660 vfat exfat".split()
)
_STATFS_SIZE = 256  # bytes, more than struct statfs has

_libc = ctypes.CDLL(None, use_errno=True)


def may_stall(file: int) -> bool:
    """Whether a server or a program stands behind a file's file system, as far as can be told."""
    kind = _kind_of(file)
    if kind != _OVERLAY:
        return kind not in _LOCAL
    device = os.fstat(file).st_dev
    return (os.major(device), os.minor(device)) not in _trusted_overlays()


def _kind_of(file: int) -> int:
    """f_type of a file's file system."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(file, buffer) < 0:
        raise OSError(ctypes.get_errno(), "fstatfs")
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF


def _trusted_overlays() -> set[tuple[int, int]]:
    """Devices of the overlays that are mounted where this process sees them, and lie on local file systems.

    Anybody can mount an overlay in a user namespace of their own, over a file system of a program of theirs.
    """
    with open("/proc/self/mountinfo", "rb") as mounts:  # noqa: PTH123 - a program without pathlib
        return trusted_overlays(mounts.read())


def trusted_overlays(mounts: bytes) -> set[tuple[int, int]]:
    """Devices (major, minor) of the overlays in a text of /proc/PID/mountinfo whose layers do not stall."""
    places: dict[bytes, bytes] = {}
    overlays = []
    for line in mounts.split(b"\n"):
        fields, _, rest = line.partition(b" - ")
        words, kinds = fields.split(b" "), rest.split(b" ")
        if len(words) > 4 and len(kinds) > 2:  # noqa: PLR2004 - to the mount point; to the superblock's options
            places[words[4]] = kinds[0]
            if kinds[0] == b"overlay":
                overlays.append((words[2], kinds[2]))
    return {_device(device) for device, options in overlays if _is_local(options, places)}


def _device(number: bytes) -> tuple[int, int]:
    major, _, minor = number.partition(b":")
    return int(major), int(minor)


def _is_local(options: bytes, places: dict[bytes, bytes]) -> bool:
    layers: list[bytes] = []
    for option in options.split(b","):
        key, _, value = option.partition(b"=")
        if key.startswith((b"lowerdir", b"upperdir", b"datadir")):
            layers += [layer for layer in value.split(b":") if layer.startswith(b"/")]
    return all(_kind_at(layer, places) in _LOCAL_NAMES for layer in layers)


def _kind_at(path: bytes, places: dict[bytes, bytes]) -> bytes:
    """The type of the file system that is mounted nearest above a path."""
    while path not in places and path:
        path = path.rpartition(b"/")[0]
    return places.get(path or b"/", b"")
