"""Code objects by id, as the programs sent them.

What the walker could not copy is read from the process at once, while the process lives.  A code object that a stack
names and that was not sent at all is read the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyflame_ebpf.cpython.code_objects import Code, decode_str, read_bytes, read_str
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import CodeEvent, StackEvent
from pyflame_ebpf.stacks.kept_codes import KeptCodes
from pyflame_ebpf.tracking.mishaps import Mishaps

ReadMemory = Callable[[Identity, int, int], bytes]  # (process, address, size) → memory, b"" if it cannot be read

UNREADABLE_NAME = "[unreadable name]"
_EVERYTHING = abi.CODE_NO_NAME | abi.CODE_NO_FILE | abi.CODE_NO_LINE_TABLE


class CodeTable:
    """Code objects by id.

    ``unnamed`` counts code objects whose name, ``without_lines`` those whose line table could not be read.
    """

    def __init__(self, read: ReadMemory, kept: KeptCodes | None = None, mishaps: Mishaps | None = None) -> None:
        self._read = read
        self._mishaps = mishaps or Mishaps()
        self._codes = kept or KeptCodes()
        self._unsettled: list[tuple[StackEvent, CPythonLayout]] = []
        self.unnamed = 0
        self.without_lines = 0

    def __contains__(self, code_id: int) -> bool:
        """Whether a code object is known."""
        return code_id in self._codes

    def get(self, code_id: int) -> Code | None:
        """A code object by its id, None if it never came, was forgotten or was given up."""
        return self._codes.get(code_id)

    def add(self, event: CodeEvent, layout: CPythonLayout) -> None:
        """Keep a code object as it first came; what the walker could not copy is read from the process now."""
        if event.code_id in self._codes:
            return

        def read(address: int, size: int) -> bytes:
            return self._read(event.identity, address, size) if address else b""

        missing = event.missing
        name = (
            read_str(layout, read, event.name_address) if missing & abi.CODE_NO_NAME else decode_str(layout, event.name)
        )
        file = (
            read_str(layout, read, event.file_address) if missing & abi.CODE_NO_FILE else decode_str(layout, event.file)
        )
        table = (
            read_bytes(layout, read, event.line_table_address) if missing & abi.CODE_NO_LINE_TABLE else event.line_table
        )
        if name is None:
            self.unnamed += 1
        if table is None:
            self.without_lines += 1
        code = Code(name or UNREADABLE_NAME, file or "", event.first_line, None, layout)
        self._codes.add(event.code_id, code, table)

    @property
    def crowded(self) -> bool:
        """True once so many code objects are kept that ``need`` must be told which of them new stacks have."""
        return self._codes.crowded

    def need(self, code_ids: Iterable[int]) -> None:
        """Note the code objects of a new stack: others are given up before them."""
        self._codes.need(code_ids)

    @property
    def given_up(self) -> int:
        """Code objects that were dropped because there were too many."""
        return self._codes.given_up

    @property
    def lines_given_up(self) -> int:
        """Line tables that were dropped because there were too many."""
        return self._codes.lines_given_up

    def read_later(self, event: StackEvent, layout: CPythonLayout) -> None:
        """Let the next ``settle`` read the code objects that this stack names and that have not come by then."""
        self._unsettled.append((event, layout))

    def settle(self) -> set[int]:
        """Read the code objects that were not sent with their stacks, while their processes live.

        Returns the ids of the code objects that were added.
        """
        unsettled, self._unsettled = self._unsettled, []
        added: set[int] = set()
        for event, layout in unsettled:
            try:
                self._settle(event, layout, added)
            except Exception as error:  # noqa: BLE001, PERF203 - one process's defect costs that process alone
                self._mishaps.defect(error, event.identity)
        return added

    def _settle(self, event: StackEvent, layout: CPythonLayout, added: set[int]) -> None:
        """Reads the code objects of one stack that were not sent, and adds their ids."""
        for address, code_id, _, kind in event.frames():
            if kind & abi.FRAME_KIND == abi.FRAME_PYTHON and code_id and code_id not in self._codes:
                self.add(self._read_code(event.identity, layout, address, code_id), layout)
                added.add(code_id)

    def _read_code(self, identity: Identity, layout: CPythonLayout, address: int, code_id: int) -> CodeEvent:
        def field(offset: int, size: int) -> int:
            return int.from_bytes(self._read(identity, address + offset, size), "little")

        return CodeEvent(
            identity=identity,
            layout=0,
            code_id=code_id,
            address=address,
            name_address=field(layout.code_name, 8),
            file_address=field(layout.code_filename, 8),
            line_table_address=field(layout.code_line_table, 8),
            first_line=field(layout.code_first_line, 4),
            missing=_EVERYTHING,
            name=b"",
            file=b"",
            line_table=b"",
        )

    def forget(self, gone: Gone) -> None:
        """Drop the code objects that are gone."""
        self._codes.drop(gone.codes)
