"""How the BPF programs find the interpreter by themselves in processes that run an executable file which is known."""

from __future__ import annotations

from dataclasses import replace

from pyflame_ebpf.cpython.interpreter import Interpreter
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.cpython.recipe import Recipe
from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.sampling.abi import ExecutableEntry
from pyflame_ebpf.sampling.events import ProcessEvent
from pyflame_ebpf.tracking.program_maps import FileKey, ProcessMaps

_BUILD_ID_START = 8  # bytes that are compared


def executable_entry(recipe: Recipe, layout: int) -> ExecutableEntry:
    """The recipe as the BPF programs read it."""
    return ExecutableEntry(
        text=recipe.first_text_vaddr,
        debug_entry=recipe.debug_entry_vaddr if recipe.in_library else 0,
        library_dynamic=recipe.library_dynamic_vaddr,
        build_id=recipe.library_build_id_vaddr if len(recipe.library_build_id_start) == _BUILD_ID_START else 0,
        build_id_start=int.from_bytes(recipe.library_build_id_start, "little"),
        interpreters_head=recipe.interpreters_head,
        tstate_current=recipe.tstate_current,
        layout=layout,
    )


class Recipes:
    """The recipes and layouts that the programs were given."""

    def __init__(self, maps: ProcessMaps) -> None:
        self._maps = maps
        self._layouts: dict[int, CPythonLayout] = {}
        self._interpreters: dict[FileKey, Interpreter] = {}  # the one that a file's recipe was made from

    def __contains__(self, executable: FileKey) -> bool:
        """Whether the programs know this executable file."""
        return executable in self._interpreters

    def add(self, executable: FileKey, interpreter: Interpreter) -> None:
        """Tells the programs how to find this interpreter, if its recipe is of use and the file is new."""
        if executable in self._interpreters or not interpreter.recipe.usable:
            return
        self._interpreters[executable] = interpreter
        self._maps.add_executable(executable, executable_entry(interpreter.recipe, self.layout_index(interpreter)))

    def has_room_for(self, interpreter: Interpreter) -> bool:
        """Whether its layout is or becomes known to the programs; processes that make theirs up may use up the room."""
        try:
            self.layout_index(interpreter)
        except PyflameError:
            return False
        return True

    def layout_index(self, interpreter: Interpreter) -> int:
        """The number of its layout among those that the programs have.  Raises PyflameError when there is no room."""
        index = self._maps.add_layout(interpreter.layout)
        self._layouts[index] = interpreter.layout
        return index

    def layout(self, index: int) -> CPythonLayout:
        """The layout with this index.  Raises KeyError for one that was never given to the programs."""
        return self._layouts[index]

    def followed(self, event: ProcessEvent) -> Interpreter | None:
        """The interpreter that the programs found by a recipe, None for a recipe that is not known here."""
        template = self._interpreters.get(event.executable)
        if template is None:
            return None
        root, vaddr = event.interpreters_head, template.recipe.interpreters_head
        if not root:
            root, vaddr = event.tstate_current, template.recipe.tstate_current
        return replace(
            template,
            bias=root - vaddr,
            interpreters_head=event.interpreters_head,
            tstate_current=event.tstate_current,
        )
