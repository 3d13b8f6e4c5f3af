"""Executable memory of processes as the BPF programs have it: where code is, and how its frames are laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyflame_ebpf.cpython.interpreter import load_bias
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.tracking.code_files import CodeFiles, OpenMapped
from pyflame_ebpf.tracking.mapping_slots import MappingSlots
from pyflame_ebpf.tracking.program_maps import CodeMaps
from pyflame_ebpf.tracking.unwind_pages import UnwindPages
from pyflame_ebpf.unwind.page_rows import PAGE_SIZE
from pyflame_ebpf.unwind.row import UnwindRow

NO_FILE = 0
_UNUSED = bytes(abi.Mapping(abi.UNUSED_MAPPING, 0, 0, NO_FILE))


class MappedCode:
    """Tells the programs what processes have mapped, and sends rows of the pages that samples meet there."""

    def __init__(
        self, maps: CodeMaps, open_mapped: OpenMapped, over_budget: Callable[[str], None] = lambda _path: None
    ) -> None:
        self._maps = maps
        self._slots = MappingSlots()
        self.pages = UnwindPages(maps)
        self.files = CodeFiles(open_mapped, self.pages, over_budget)

    def map_process(self, identity: Identity, mappings: Iterable[Mapping]) -> Identity | None:
        """Writes a process's executable memory.  Returns the process whose memory had to make room, None for none."""
        slot, loser = self._slots.take(identity)
        if loser is not None:
            self.files.lose(loser)
        self.files.begin(identity)
        self._maps.set_mappings(slot, self._pack(identity, mappings))
        return loser

    def entry_of(self, identity: Identity) -> int:
        """What a process's entry says of its executable memory: 0 if the programs have none."""
        return self._slots.entry_of(identity)

    def process_ended(self, identity: Identity) -> None:
        """A process has ended, or runs another program: its memory makes room."""
        self.files.forget(identity)
        self._slots.give_back(identity)

    def _pack(self, identity: Identity, mappings: Iterable[Mapping]) -> bytes:
        code = [mapping for mapping in mappings if mapping.executable and mapping.end < abi.UNUSED_MAPPING]
        code.sort(key=lambda mapping: mapping.start)
        packed = b"".join(self._pack_one(identity, mapping) for mapping in code[: abi.MAPPINGS - 1])
        # The search needs a first entry below all addresses.
        return bytes(len(_UNUSED)) + packed + _UNUSED * (abi.MAPPINGS - 1 - len(packed) // len(_UNUSED))

    def _pack_one(self, identity: Identity, mapping: Mapping) -> bytes:
        number, bias = NO_FILE, 0
        file = self.files.use(identity, mapping)
        if file is not None:
            found = load_bias(mapping, file.code.image.segments)
            if found is not None:
                number, bias = file.code.number if file.code.table else NO_FILE, found
        pages = (mapping.end - mapping.start) // PAGE_SIZE
        return bytes(abi.Mapping(mapping.start, bias & 0xFFFFFFFFFFFFFFFF, pages, number))

    def row_at(self, identity: Identity, mapping: Mapping, address: int) -> UnwindRow | None:
        """The row that holds at an address of a mapping, None for code without unwind data; its page is sent."""
        file = self.files.get(identity, mapping)
        bias = load_bias(mapping, file.code.image.segments) if file else None
        if file is None or bias is None or file.code.table is None:
            return None
        page, offset = divmod(address - bias, PAGE_SIZE)
        self.pages.send(file.code, page)
        return self.pages.row_at(file.code, page, offset)

    def send_page(self, number: int, page: int) -> None:
        """Sends the rows of a page that was missed; a number that is not in use is ignored."""
        code = self.files.with_number(number)
        if code is not None:
            self.pages.send(code, page)
