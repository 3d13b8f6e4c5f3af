"""The JSON text of a saved profile, unpacked and parsed within limits: a small file may stand for very much.

All functions raise WrongContentError.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, BinaryIO

from pyflame_ebpf.profile.columns import WrongContentError

# 200,000 stacks take 37 MB and 7 million values.  Limits of bytes are enough: a limit of how much a file grows by would
# refuse honest ones, whose columns of equal numbers shrink to a thousandth.
TEXT_BYTES_MAX = 128 << 20
PACKED_BYTES_MAX = TEXT_BYTES_MAX + (1 << 20)  # text that cannot be compressed grows a little
VALUES_MAX = 16_000_000  # numbers and texts; each takes up to 40 bytes, 640 MB in all
# Each takes some hundred bytes for two characters of text.  The layout has 11 objects and 33 lists.
OBJECTS_MAX = 64
LISTS_MAX = 128
MEMBERS_MAX = 10_000  # of all objects; the layout has 60, and one for each counter
DIGITS_MAX = 24  # in a row: those of 64 bits and of floating point have at most 20
_CHUNK = 1 << 18  # bytes
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's number for gzip with the largest window
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")


def unpacked(stream: BinaryIO) -> bytes:
    """The content of a gzip file of one member, to which nothing is appended."""
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    parts: list[bytes] = []
    size = packed_size = 0
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or stream.read(_CHUNK)
        if not packed:
            raise WrongContentError("it is cut short")
        if not packed_size and not packed.startswith(_GZIP):
            raise WrongContentError("it is not compressed with gzip, or damaged")
        packed_size += len(packed) - len(unpacker.unconsumed_tail)
        parts.append(_decompressed(unpacker, packed))
        size += len(parts[-1])
        if size > TEXT_BYTES_MAX or packed_size > PACKED_BYTES_MAX:
            raise WrongContentError(f"it unpacks to more than {TEXT_BYTES_MAX >> 20} MiB")
    if unpacker.unused_data or stream.read(1):
        raise WrongContentError("something else follows its end")
    return b"".join(parts)


def _decompressed(unpacker: Any, packed: bytes) -> bytes:
    try:
        content: bytes = unpacker.decompress(packed, _CHUNK)
    except zlib.error as error:
        raise WrongContentError("it is damaged") from error
    return content


def parsed(content: bytes) -> dict[str, Any]:
    """The JSON object; no member occurs twice in one object, and numbers are finite or of 24 digits at most."""
    if not content.isascii():
        raise WrongContentError("it does not hold JSON of ASCII characters")
    _check_counts(_outside_texts(content))
    text = content.decode("ascii")
    del content  # the values take enough memory
    try:
        document = json.loads(text, parse_constant=_refused_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise WrongContentError("it does not hold JSON") from error
    if not isinstance(document, dict):
        raise WrongContentError("it does not hold a JSON object")
    return document


def _outside_texts(content: bytes) -> bytes:
    """The JSON without what its texts hold."""
    if b"\\" in content:
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    if content.count(b'"') > 2 * VALUES_MAX:
        raise WrongContentError(_too_many(VALUES_MAX, "values"))
    return b'"'.join(content.split(b'"')[::2])


def _check_counts(structure: bytes) -> None:
    for character, most, what in (
        (b"{", OBJECTS_MAX, "objects"),
        (b"[", LISTS_MAX, "lists"),
        (b":", MEMBERS_MAX, "members of objects"),
        (b",", VALUES_MAX, "values"),
    ):
        if structure.count(character) > most:
            raise WrongContentError(_too_many(most, what))
    if b"0" * (DIGITS_MAX + 1) in structure.translate(_DIGITS_AS_ZERO):
        raise WrongContentError(f"it has a number of more than {DIGITS_MAX} digits")


def _too_many(most: int, what: str) -> str:
    return f"it has more than {most:,} {what}"


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) < len(members):
        names = [name for name, _ in members]
        twice = next(name for name in names if names.count(name) > 1)
        raise WrongContentError(f"an object of it has {twice!r:.20} twice")
    return document


def _refused_constant(name: str) -> float:
    raise ValueError(name)
