"""What scripts/fuzz.py tries on the readers of saved profiles, folded stacks and demanglers' answers."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _checkout import CHECKOUT
from _fuzz_target import Target

sys.path.insert(0, str(CHECKOUT))  # the profiles that the tests make

from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.file import UnusableProfileError, load_profile, save_profile
from pyflame_ebpf.profile.folded_file import load_folded
from pyflame_ebpf.profile.json_text import parsed
from pyflame_ebpf.profile.model import Profile
from pyflame_ebpf.symbols.demangle import _polished
from tests.altered_profiles import VALUES, altered, document, fields, packed, write_every_output
from tests.profiles import hostile_profile, realistic_profile

_HEAD = 4  # bytes of an input that choose, before what is read
_CONTENTS = [document(realistic_profile()), document(hostile_profile())]
_FIELDS = [list(fields(content)) for content in _CONTENTS]


def _require(promise: bool, what: str) -> None:
    if not promise:
        raise AssertionError(what)


def _read(data: bytes) -> Profile | None:
    try:
        return load_profile(io.BytesIO(data))
    except UnusableProfileError as error:
        _require(error.message.isprintable(), "a message of one line")
        return None


def read_packed(data: bytes) -> None:
    """Unpack and read a file of any bytes."""
    _read(data)


def read_json(data: bytes) -> None:
    """Read any JSON text as a profile; what is read can be saved and read again."""
    profile = _read(gzip.compress(data, compresslevel=0))
    if profile is not None:
        _check_saving(profile)
    try:
        parsed(data)
    except WrongContentError:
        return


def _check_saving(profile: Profile) -> None:
    """Save, read and save again: frames may be numbered anew once, and then nothing changes any more."""
    saved = _saved(profile)
    again = _read(saved)
    _require(again is not None and _saved(again) == saved, "a saved profile that comes back equal")


def _saved(profile: Profile) -> bytes:
    stream = io.BytesIO()
    save_profile(profile, stream)
    return stream.getvalue()


def read_altered(data: bytes) -> None:
    """Put values into fields of a saved profile, as the bytes choose, and write in every format what is read."""
    chosen = data.ljust(2, b"\0")
    which = chosen[0] % len(_CONTENTS)
    content, paths = _CONTENTS[which], _FIELDS[which]
    for at in range(1, min(len(chosen) - 2, 10), 3):
        path = paths[int.from_bytes(chosen[at : at + 2], "little") % len(paths)]
        try:
            content = altered(content, path, _value(chosen[at + 2 :]))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier value has taken the place away
    profile = _read(packed(content))
    if profile is not None:
        write_every_output(profile)


def _value(data: bytes) -> Any:
    if data[:1] < b"\x80":
        return VALUES[data[0] % len(VALUES)] if data else None
    return int.from_bytes(data[1:9], "little", signed=True)


def read_folded(data: bytes) -> None:
    """Read folded stacks of any tool; what is read can be saved and read again."""
    try:
        profile = load_folded(io.BytesIO(data), "stacks")
    except UnusableProfileError as error:
        _require(error.message.isprintable(), "a message of one line")
        return
    _check_saving(profile)


def write_folded(data: bytes) -> None:
    """Read folded stacks, and write in every format what is read."""
    try:
        profile = load_folded(io.BytesIO(data), "stacks")
    except UnusableProfileError:
        return
    write_every_output(profile)


def read_answer(data: bytes) -> None:
    """Polish what a demangler answers."""
    mangled, _, answer = data.decode("utf-8", "replace").partition("\n")
    _polished(mangled, answer)
    _polished("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", answer)


def packed_seeds(_: Path) -> Iterator[bytes]:
    """Yield saved profiles."""
    for content in _CONTENTS:
        yield packed(content)


def json_seeds(_: Path) -> Iterator[bytes]:
    """Yield the JSON text of saved profiles, and the beginnings of attacks."""
    for content in _CONTENTS:
        yield json.dumps(content).encode("ascii")
    yield b'{"format":"pyflame-ebpf profile","version":1,"version":2,"texts":[[[[1e999,-0,123456789012345678901234]]]]}'


def altered_seeds(_: Path) -> Iterator[bytes]:
    """Yield choices of fields and values."""
    for at in range(0, max(map(len, _FIELDS)), 5):
        yield bytes((at & 1,)) + at.to_bytes(2, "little") + bytes((at % 128,)) + b"\xff" * 8


def folded_seeds(_: Path) -> Iterator[bytes]:
    """Yield what each tool writes."""
    yield b"web (7);main (8);f (/srv/app.py:3);g (libc.so.6);h_[k] 5\nweb (7);[truncated: too deep];\\x3b\\u202e 1\n"
    yield b"java-7/8;[unknown];start_thread;Lcom/x_[j];inlined_[i];do_sys [nfs]_[k] 12\nperl-?/?;py::f:/a.py 1\n"
    yield b'process 7:"python app.py";thread (8): main;f (app.py:3);<module> (app.py) 9\n'
    yield b"# mode: wall\n# interval: 100\n# duration: 1000\nP7;T0:8;/a.py:f:3;/a.py:g:-1 500\nP7;T0:8 300,1,-4096\n"
    yield b"Process 7;Thread 0x7f00;f:g:1 1.000\n"
    yield b"main;work 3 4\nmain;idle 1 2\n"
    yield b"MOJ\x03\x01"


def answer_seeds(_: Path) -> Iterator[bytes]:
    """Yield mangled names with their answers."""
    yield b"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE\ncore::fmt::Formatter::pad::h0123456789abcdef"
    yield b"_ZN1a\n_$LT$impl$u20$core..fmt..Debug$u7d$ffffff$GT$..x.llvm.123"


PROFILE_TARGETS = {
    "packed": Target(read_packed, packed_seeds, ("profile.file", "profile.json_text")),
    "json": Target(
        read_json,
        json_seeds,
        ("profile.columns", "profile.file", "profile.file_reader", "profile.json_text", "profile.size_limits"),
    ),
    "altered": Target(
        read_altered,
        altered_seeds,
        ("profile.file_reader", "outputs.pprof", "outputs.firefox", "outputs.processes", "outputs.flame_tree"),
    ),
    "folded": Target(read_folded, folded_seeds, ("profile.folded_file", "profile.folded_frames", "profile.labels")),
    "foldedout": Target(write_folded, folded_seeds, ("profile.folded_file", "outputs.folded", "compare.alignment")),
    "demangler": Target(read_answer, answer_seeds, ("symbols.demangle",)),
}
