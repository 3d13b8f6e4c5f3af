"""The limits within which the text of a saved profile is unpacked and parsed."""

from __future__ import annotations

import gzip
import io
import resource
import time
import zlib

import pytest

from pyflame_ebpf.profile import json_text
from pyflame_ebpf.profile.columns import WrongContentError
from pyflame_ebpf.profile.json_text import parsed, unpacked

MEMORY_MAX = 600 << 10  # KiB that this process may have taken, for a limit of 128 MiB


def test_a_file_that_grows_a_thousandfold_is_given_up_at_the_limit() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    bomb = b"".join([packer.compress(zeros) for _ in range(700)]) + packer.flush()
    assert len(bomb) < 800_000
    began = time.process_time()
    with pytest.raises(WrongContentError, match="unpacks to more than 128 MiB"):
        unpacked(io.BytesIO(bomb))
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MEMORY_MAX


def test_a_file_as_large_as_is_allowed_is_unpacked_and_one_byte_more_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "TEXT_BYTES_MAX", 1000)
    assert unpacked(io.BytesIO(gzip.compress(b"a" * 1000))) == b"a" * 1000
    with pytest.raises(WrongContentError, match="unpacks to more"):
        unpacked(io.BytesIO(gzip.compress(b"a" * 1001)))


def test_a_header_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "PACKED_BYTES_MAX", 1 << 20)
    with_a_name = b"\x1f\x8b\x08\x08" + bytes(6)
    with pytest.raises(WrongContentError, match="unpacks to more"):
        unpacked(io.BytesIO(with_a_name + b"n" * (2 << 20)))


@pytest.mark.parametrize("more", [b"trailing", gzip.compress(b"{}"), bytes(1 << 20)], ids=["text", "member", "zeros"])
def test_a_file_to_which_something_is_appended_is_refused(more: bytes) -> None:
    with pytest.raises(WrongContentError, match="something else follows its end"):
        unpacked(io.BytesIO(gzip.compress(b"{}") + more))


@pytest.mark.parametrize("size", [0, 1, 2, 10, 17, 40])
def test_a_file_that_is_cut_short_is_refused(size: int) -> None:
    with pytest.raises(WrongContentError, match=r"cut short|not compressed"):
        unpacked(io.BytesIO(gzip.compress(b"{" + bytes(range(256)))[:size]))


def test_a_file_whose_sum_is_wrong_is_refused() -> None:
    data = bytearray(gzip.compress(b"{}"))
    data[-5] ^= 1
    with pytest.raises(WrongContentError, match="damaged"):
        unpacked(io.BytesIO(bytes(data)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 200_000, "more than 128 lists"),
        (b'{"a":' * 100_000, "more than 64 objects"),
        (b"[" + b"{}," * 65 + b"{}]", "more than 64 objects"),
        (b'{"a":[' + b"[]," * 128 + b"[]]}", "more than 128 lists"),
        (b"{" + b",".join(b'"%d":0' % index for index in range(10_001)) + b"}", "more than 10,000 members"),
        (b'{"a":' + b"9" * 1_000_000 + b"}", "a number of more than 24 digits"),
        (b'{"a":1.' + b"0" * 25 + b"}", "a number of more than 24 digits"),
        (b'{"a":1,"b":2,"a":3}', "an object of it has 'a' twice"),
        (b'{"a":NaN}', "does not hold JSON"),
        (b'{"a":-Infinity}', "does not hold JSON"),
        ('{"a":"é"}'.encode(), "ASCII"),
        ('{"a":1}'.encode("utf-16"), "ASCII"),
        (b'{"a":"\x01"}', "does not hold JSON"),
        (b'{"a":1}{"a":1}', "does not hold JSON"),
        (b'{"a":1', "does not hold JSON"),
        (b"", "does not hold JSON"),
        (b"null", "does not hold a JSON object"),
        (b"[[1]]", "does not hold a JSON object"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_text_that_is_not_of_the_format_is_refused_at_once(text: bytes, reason: str) -> None:
    began = time.process_time()
    with pytest.raises(WrongContentError, match=reason):
        parsed(text)
    assert time.process_time() - began < 2


def test_values_are_counted_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "VALUES_MAX", 10)
    assert parsed(b'{"a":[' + b"0," * 10 + b"0]}") == {"a": [0] * 11}
    with pytest.raises(WrongContentError, match="more than 10 values"):
        parsed(b'{"a":[' + b"0," * 11 + b"0]}")
    with pytest.raises(WrongContentError, match="more than 10 values"):
        parsed(b'{"a":[' + b'""' * 11 + b"]}")


def test_what_texts_hold_is_not_counted() -> None:
    name = '[{,:"\\' * 500 + "9" * 100
    text = '{"a":"' + name.replace("\\", "\\\\").replace('"', '\\"') + '\\\\"}'
    assert parsed(text.encode()) == {"a": name + "\\"}


def test_digits_on_both_sides_of_a_text_are_no_number() -> None:
    digits = b"1" * 20
    assert parsed(b'{"a":[' + digits + b',"x",' + digits + b"]}")["a"] == [int(digits), "x", int(digits)]
