"""Recipes by which the programs find interpreters by themselves."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pyflame_ebpf.cpython.fixed_layouts import LAYOUTS
from pyflame_ebpf.cpython.interpreter import Interpreter
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.cpython.recipe import Recipe
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.sampling.abi import PROCESS_PYTHON
from pyflame_ebpf.tracking.recipes import Recipes, executable_entry
from tests.tracking.live_processes import met
from tests.tracking.written_maps import WrittenMaps

RECIPE = Recipe(
    first_text_vaddr=0x1000,
    interpreters_head=0x5000,
    tstate_current=0x6000,
    in_library=True,
    debug_entry_vaddr=0x2000,
    library_dynamic_vaddr=0x3000,
    library_build_id_vaddr=0x300,
    library_build_id_start=bytes(range(8)),
)
PYTHON = Interpreter(
    release=(3, 11),
    version="3.11.2",
    file="/usr/lib/libpython3.11.so",
    layout=LAYOUTS[3, 11],
    bias=0x7000000,
    interpreters_head=0x7005000,
    tstate_current=0x7006000,
    shared=True,
    build_id=bytes(range(20)),
    recipe=RECIPE,
)
OLD = replace(PYTHON, release=(3, 8), version="3.8.1", layout=LAYOUTS[3, 8])
FILE, OTHER_FILE = (1, 2, 3), (4, 5, 6)


@pytest.fixture
def written() -> WrittenMaps:
    return WrittenMaps()


@pytest.fixture
def recipes(written: WrittenMaps) -> Recipes:
    return Recipes(written)


def test_recipe_becomes_an_entry() -> None:
    entry = executable_entry(RECIPE, 3)
    assert (entry.text, entry.debug_entry, entry.library_dynamic, entry.layout) == (0x1000, 0x2000, 0x3000, 3)
    assert (entry.interpreters_head, entry.tstate_current) == (0x5000, 0x6000)
    assert (entry.build_id, entry.build_id_start) == (0x300, 0x0706050403020100)


def test_interpreter_in_the_executable_needs_no_list_of_libraries() -> None:
    assert executable_entry(replace(RECIPE, in_library=False), 0).debug_entry == 0


@pytest.mark.parametrize("start", [b"", b"short"])
def test_build_id_that_is_too_short_to_compare_is_not_compared(start: bytes) -> None:
    assert executable_entry(replace(RECIPE, library_build_id_start=start), 0).build_id == 0


def test_an_executable_is_told_once_with_the_number_of_its_layout(recipes: Recipes, written: WrittenMaps) -> None:
    recipes.add(FILE, OLD)
    recipes.add(OTHER_FILE, PYTHON)
    recipes.add(FILE, replace(PYTHON, recipe=replace(RECIPE, first_text_vaddr=7)))
    assert written.layouts == [OLD.layout, PYTHON.layout]
    assert {key: bytes(entry) for key, entry in written.executables.items()} == {
        FILE: bytes(executable_entry(RECIPE, 0)),
        OTHER_FILE: bytes(executable_entry(RECIPE, 1)),
    }
    assert [recipes.layout(index) for index in range(2)] == written.layouts
    assert [file in recipes for file in (FILE, OTHER_FILE, (7, 8, 9))] == [True, True, False]


def test_a_recipe_that_leads_nowhere_is_not_told(recipes: Recipes, written: WrittenMaps) -> None:
    recipes.add(FILE, replace(PYTHON, recipe=replace(RECIPE, debug_entry_vaddr=0)))
    assert not written.executables
    assert FILE not in recipes


def test_a_layout_that_was_never_given_has_no_index(recipes: Recipes) -> None:
    with pytest.raises(KeyError):
        recipes.layout(0)


def test_whether_there_is_room_is_known_before_an_interpreter_is_kept(
    recipes: Recipes, written: WrittenMaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_layout: CPythonLayout) -> int:
        raise PyflameError("more kinds of interpreter than there is room for")

    assert recipes.has_room_for(PYTHON)
    monkeypatch.setattr(written, "add_layout", refuse)
    assert not recipes.has_room_for(OLD)


@pytest.mark.parametrize(("head", "current"), [(0x9005000, 0x9006000), (0x9005000, 0), (0, 0x9006000)])
def test_what_the_programs_found_is_the_files_interpreter_at_its_place_in_the_process(
    recipes: Recipes, head: int, current: int
) -> None:
    recipes.add(FILE, PYTHON)
    event = met(os.getpid(), executable=FILE, state=PROCESS_PYTHON, interpreters_head=head, tstate_current=current)
    assert recipes.followed(event) == replace(PYTHON, bias=0x9000000, interpreters_head=head, tstate_current=current)
    assert recipes.followed(replace(event, executable=OTHER_FILE)) is None
