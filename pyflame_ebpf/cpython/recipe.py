"""How a BPF program finds the interpreter by itself in later processes that run the same executable file."""

from __future__ import annotations

from dataclasses import dataclass

from pyflame_ebpf.cpython.file_facts import FileFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The steps from a process's executable to the roots of its interpreter.

    Addresses are inside the images, as in the ELF headers.

    1. Executable's bias: mm->start_code - ``first_text_vaddr`` (0 for an EXEC file).
    2. Interpreter in the executable (``in_library`` false): roots are bias + ``interpreters_head`` and
       bias + ``tstate_current``; done.
    3. Else read the pointer at bias + ``debug_entry_vaddr``: the dynamic linker's struct r_debug, whose r_map (at 8)
       heads the list of link_map {l_addr 0, l_name 8, l_ld 16, l_next 24}; NULL until the linker has filled it.
    4. The library is the entry with l_ld - l_addr == ``library_dynamic_vaddr`` and, where the library has a build ID,
       the 8 bytes at l_addr + ``library_build_id_vaddr`` equal to ``library_build_id_start``.
    5. Roots are l_addr + ``interpreters_head`` and l_addr + ``tstate_current``.

    A root of 0 does not exist in this build.  ``library_build_id_start`` is empty for a library without a build ID.
    """

    first_text_vaddr: int
    interpreters_head: int
    tstate_current: int
    in_library: bool = False
    debug_entry_vaddr: int = 0
    library_dynamic_vaddr: int = 0
    library_build_id_vaddr: int = 0
    library_build_id_start: bytes = b""

    @property
    def usable(self) -> bool:
        """False when the steps lead nowhere: a statically linked executable has no list of libraries."""
        return not self.in_library or bool(self.debug_entry_vaddr and self.library_dynamic_vaddr)


def recipe_for(facts: FileFacts, executable: FileFacts | None, head: int, current: int) -> Recipe:
    """The recipe for an interpreter in the file of ``facts``.

    ``executable`` is the program's file where that is another file; ``head`` and ``current`` are the roots' addresses
    inside the image, 0 for none.
    """
    if executable is None:
        return Recipe(first_text_vaddr=facts.first_text_vaddr, interpreters_head=head, tstate_current=current)
    return Recipe(
        first_text_vaddr=executable.first_text_vaddr,
        interpreters_head=head,
        tstate_current=current,
        in_library=True,
        debug_entry_vaddr=executable.debug_entry_vaddr,
        library_dynamic_vaddr=facts.dynamic_vaddr,
        library_build_id_vaddr=facts.build_id_vaddr,
        library_build_id_start=facts.build_id[:8],
    )
