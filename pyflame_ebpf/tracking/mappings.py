"""The executable mappings of processes: those of now, and all that there ever were."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice

from pyflame_ebpf.errors import PyflameError
from pyflame_ebpf.host import maps
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.tracking.directories import Directories

READ_AGAIN, READ_AGAIN_MAX = 0.001, 5.0  # seconds
MAPPED_MAX = 1 << 16  # mappings of one process, of all times; at one time the kernel allows 65,530 (vm.max_map_count)
_PAGE_BITS = 12


@dataclass(slots=True)
class _Mapped:
    """What one process has mapped and had mapped."""

    now: list[Mapping] = field(default_factory=list)
    ever: dict[Mapping, None] = field(default_factory=dict)  # the newest last
    places: dict[int, Mapping | None] = field(default_factory=dict)  # by page: the newest mapping of it
    read_at: float = 0.0  # monotonic seconds
    wait: float = READ_AGAIN  # seconds that must pass before they are read again


class Mappings:
    """The executable mappings of each process that was met."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._processes: dict[Identity, _Mapped] = {}

    def met(self, identity: Identity) -> None:
        """A process was met."""
        self._processes.setdefault(identity, _Mapped())

    def read(self, identity: Identity) -> list[Mapping]:
        """What a process has mapped executable now, empty if that cannot be read any more."""
        self._processes[identity].read_at = time.monotonic()
        try:
            found = maps.mappings(self._directories.of(identity))
        except (PyflameError, OSError):
            return []
        return [mapping for mapping in found if mapping.executable]

    def replace(self, identity: Identity, code: list[Mapping]) -> bool:
        """Keeps what was read.  Returns whether it is other than before."""
        mapped = self._processes[identity]
        if code == mapped.now:
            return False
        mapped.now = code
        _add(mapped.ever, code)
        mapped.places.clear()
        return True

    def unmap(self, identity: Identity) -> None:
        """The programs have lost what they were told, so that whatever is read next is new."""
        self._processes[identity].now = []

    def may_have_changed(self, identity: Identity, address: int) -> bool:
        """Whether an address that the programs missed is a reason to read a process's mappings again."""
        mapped = self._processes.get(identity)
        if mapped is None or time.monotonic() - mapped.read_at < mapped.wait:
            return False
        # One that is mapped was missed before the programs were last told.
        return not any(mapping.start <= address < mapping.end for mapping in mapped.now)

    def were_read_again(self, identity: Identity, *, changed: bool) -> None:
        """Lengthens the wait of a process that misses addresses and maps nothing new."""
        mapped = self._processes[identity]
        mapped.wait = READ_AGAIN if changed else min(2 * mapped.wait, READ_AGAIN_MAX)

    def at(self, identity: Identity, address: int) -> Mapping | None:
        """The executable mapping that held an address of a process, the newest one if there were several."""
        mapped = self._processes.get(identity)
        if mapped is None:
            return None
        page = address >> _PAGE_BITS
        if page not in mapped.places:
            newest_first = reversed(mapped.ever)
            mapped.places[page] = next((each for each in newest_first if each.start <= address < each.end), None)
        return mapped.places[page]

    def now(self, identity: Identity) -> list[Mapping]:
        """The executable mappings of a process, as last read."""
        mapped = self._processes.get(identity)
        return mapped.now if mapped else []

    def forget(self, gone: Collection[Identity]) -> None:
        """Forgets processes that nobody will ask about."""
        for identity in gone:
            self._processes.pop(identity, None)


def _add(ever: dict[Mapping, None], code: Iterable[Mapping]) -> None:
    """Adds what is mapped now; what a process had longest ago makes room."""
    for mapping in code:
        ever.pop(mapping, None)
        ever[mapping] = None
    for mapping in list(islice(ever, max(0, len(ever) - MAPPED_MAX))):
        del ever[mapping]
