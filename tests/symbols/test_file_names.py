"""What is remembered of a file's names."""

from __future__ import annotations

from pyflame_ebpf.elf.image import Segment
from pyflame_ebpf.symbols.file_names import FileNames

CODE = Segment(1, 5, 0x1000, 0x5000, 0x100, 0x200)
DATA = Segment(1, 6, 0x1000, 0x9000, 0x100, 0x100)


def test_code_has_an_address_as_far_as_the_file_has_its_segment() -> None:
    names = FileNames((DATA, CODE))
    places = (0xFFF, 0x1000, 0x10FF, 0x1100)
    assert [names.vaddr_of(offset) for offset in places] == [None, 0x5000, 0x50FF, None]
    assert FileNames((DATA,)).vaddr_of(0x1000) is None


def test_what_is_expected_is_what_is_not_known_and_has_an_address() -> None:
    names = FileNames((CODE,))
    names.add([0x5001, 0x5002], {0x5001: ("f", 1)})
    names.expect([0x1001, 0x1002, 0x1003, 0x2000])
    names.expect([0x1004])
    assert names.expected == {0x5003, 0x5004}
    names.add([0x5003], {})
    assert names.expected == set()


def test_an_address_between_two_of_a_function_has_its_name() -> None:
    names = FileNames((CODE,))
    assert (names.asked, names.name_at(0x5000)) == (False, None)
    names.add([0x5010, 0x5020, 0x5030], {0x5010: ("f", 0x10), 0x5020: ("f", 0x20)})
    names.add([0x5018], {0x5018: ("f", 0x18)})  # the span stays as wide as it was
    places = (0x4FFF, 0x5000, 0x5001, 0x5010, 0x501F, 0x5020, 0x5021, 0x5030)
    assert [names.name_at(vaddr) for vaddr in places] == [None, "f", "f", "f", "f", "f", None, ""]
    assert names.asked


def test_of_functions_the_one_that_begins_last_before_an_address_is_asked() -> None:
    names = FileNames((CODE,))
    names.add([0x5010, 0x5050], {0x5050: ("outer", 0x50), 0x5010: ("inner", 0)})
    assert [names.name_at(vaddr) for vaddr in (0x5008, 0x5010, 0x5011)] == ["outer", "inner", None]


def test_the_characters_of_new_names_are_counted() -> None:
    names = FileNames((CODE,))
    assert names.add([0x5000, 0x5001, 0x5002], {0x5000: ("abc", 0), 0x5001: ("abcd", 0)}) == 7
    assert names.add([0x5003], {0x5003: ("x", 0)}) == 1
    assert names.kept == 8


def test_to_begin_anew_forgets_names_and_what_was_expected_at_other_addresses() -> None:
    for segments, expected in (((CODE,), {0x5003}), ((DATA,), set())):
        names = FileNames((CODE,), lack="lost", rests_until=5.0)
        names.add([0x5000, 0x5001], {0x5000: ("f", 0)})
        names.expect([0x1003])
        names.begin_anew(segments, b"digest")
        assert (names.asked, names.kept, names.lack, names.rests_until) == (False, 0, "", 0.0)
        assert (names.name_at(0x5000), names.segments, names.digest) == (None, segments, b"digest")
        assert names.expected == expected
