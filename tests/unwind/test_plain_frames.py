"""The quick decoder of ordinary functions says what the machine that knows every instruction says, or nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pyflame_ebpf.elf.image import BadElf
from pyflame_ebpf.unwind.call_frame_information import RSP, CommonEntry, How, Rules
from pyflame_ebpf.unwind.frame_entries import FrameEntry, frame_rules
from pyflame_ebpf.unwind.plain_frames import is_plain, plain_rows, rules_of

START, SIZE = 0x1000, 0x2000
COMMON = CommonEntry(
    code_alignment=1,
    data_alignment=-8,
    return_register=16,
    pointer_encoding=0x1B,
    augmented=True,
    is_signal_frame=False,
    initial=Rules(RSP, 8, None, (How.SAME, 0, b""), (How.OFFSET, -8, b"")),
)

INSTRUCTIONS = st.one_of(
    st.integers(0x40, 0x7F).map(lambda opcode: bytes([opcode])),
    st.integers(0, 255).map(lambda step: bytes([2, step])),
    st.integers(0, 999).map(lambda step: b"\x03" + step.to_bytes(2, "little")),
    st.sampled_from([b"\x86\x02", b"\x83\x03", b"\x8c\x80\x01", b"\xc6", b"\xc3", b"\x0a", b"\x0b", b"\x00"]),
    st.sampled_from([b"\x0e\x10", b"\x0e\x90\x01", b"\x0c\x07\x08", b"\x0c\x06\x10", b"\x0d\x06", b"\x2e\x10"]),
    st.sampled_from([b"\x0f\x03\x77\x08\x06", b"\x10\x06\x02\x76\x00", b"\x07\x10", b"\x05\x06\x02"]),
    st.binary(min_size=1, max_size=3),
)


def quick(data, begin, stop):
    rows = plain_rows(FrameEntry(COMMON, 0, START, START + SIZE, data, 0), begin, stop)
    return None if rows is None else [(vaddr, rules_of(*rule)) for vaddr, *rule in rows]


def thorough(data, begin, stop):
    return frame_rules(FrameEntry(COMMON, 0, START, START + SIZE, data, 0), begin, stop)


@settings(max_examples=2000, deadline=None)
@given(st.lists(INSTRUCTIONS, max_size=30).map(b"".join), st.integers(0, SIZE), st.integers(1, SIZE))
def test_what_both_decode_is_the_same(data, begin: int, size: int) -> None:
    rows = quick(data, START + begin, min(START + begin + size, START + SIZE))
    if rows is None:
        return
    assert rows == thorough(data, START + begin, min(START + begin + size, START + SIZE))


def test_an_ordinary_function_is_decoded_quickly() -> None:
    pushes = b"\x41\x0e\x10\x86\x02\x43\x0d\x06\x02\x80\x0c\x07\x08"
    assert quick(pushes, START, START + SIZE) == thorough(pushes, START, START + SIZE)
    assert len(quick(pushes, START, START + SIZE)) == 4


def test_an_expression_is_left_to_the_machine() -> None:
    assert quick(b"\x0f\x03\x77\x08\x06", START, START + SIZE) is None


def test_a_number_that_is_cut_short_is_left_to_the_machine() -> None:
    assert quick(b"\x0e\x80", START, START + SIZE) is None


def test_a_signal_frame_is_not_plain() -> None:
    assert is_plain(COMMON)
    assert not is_plain(COMMON._replace(is_signal_frame=True))
    assert not is_plain(COMMON._replace(data_alignment=-4))


def test_damage_that_the_machine_refuses_is_never_accepted() -> None:
    for data in (b"\x0b", b"\x0e", b"\x03\x01", b"\x3f"):
        assert quick(data, START, START + SIZE) is None
        try:
            thorough(data, START, START + SIZE)
        except BadElf:
            continue
        raise AssertionError(data)
