"""Names out of str objects of every release, and positions as byte offsets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflame_ebpf.cpython.code_objects import NAME_MAX, byte_offset, decode_str
from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.layout import InstructionKind
from tests.stacks.records import LAYOUT, str_object

# ---- strings ----


@pytest.mark.parametrize("release", LAYOUTS)
@pytest.mark.parametrize("text", ["", "parse", "é", "名前", "näme😀.py", "\udce9 surrogate", "\ud83d\ue000"])
def test_str_object_of_every_width_is_decoded(release: tuple[int, int], text: str) -> None:
    layout = LAYOUTS[release]
    assert decode_str(layout, str_object(text, layout)) == text


@given(st.text(st.characters(codec="utf-16", exclude_categories=["Cs"]) | st.characters(max_codepoint=0xFF)))
def test_any_text_survives(text: str) -> None:
    assert decode_str(LAYOUT, str_object(text)) == text


@given(st.binary(max_size=200))
def test_memory_that_is_no_str_gives_text_or_none(data: bytes) -> None:
    assert isinstance(decode_str(LAYOUT, data), str | None)


@given(st.sampled_from([1, 2, 4]), st.binary(max_size=64))
def test_any_characters_behind_a_right_header_are_decoded(kind: int, characters: bytes) -> None:
    header = bytearray(str_object("\u0100"))[: LAYOUT.str_compact_data]
    length = len(characters) // kind
    header[LAYOUT.str_length : LAYOUT.str_length + 8] = length.to_bytes(8, "little")
    header[LAYOUT.str_state] = kind << LAYOUT.str_kind_shift | 1 << LAYOUT.str_compact_shift
    assert isinstance(decode_str(LAYOUT, bytes(header) + characters), str)


def test_incomplete_str_object_is_not_decoded() -> None:
    assert decode_str(LAYOUT, str_object("parse")[:-1]) is None


def test_str_longer_than_any_name_is_not_decoded() -> None:
    assert decode_str(LAYOUT, str_object("x" * (NAME_MAX + 1))) is None


# ---- positions ----


@pytest.mark.parametrize(
    ("release", "kind", "position", "offset"),
    [
        ((3, 9), InstructionKind.LASTI_BYTES, 6, 6),
        ((3, 9), InstructionKind.LASTI_BYTES, -1, -1),
        ((3, 10), InstructionKind.LASTI_UNITS, 6, 12),
        ((3, 12), InstructionKind.PREV_INSTR, LAYOUTS[3, 12].code_instructions + 8, 8),
        ((3, 12), InstructionKind.PREV_INSTR, LAYOUTS[3, 12].code_instructions - 2, -2),
    ],
)
def test_position_becomes_a_byte_offset(
    release: tuple[int, int], kind: InstructionKind, position: int, offset: int
) -> None:
    assert LAYOUTS[release].instruction_kind == kind
    assert byte_offset(LAYOUTS[release], position) == offset
