"""Frames of native addresses, named by what each process had mapped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import PurePosixPath

from pyflame_ebpf.cpython.plumbing import is_plumbing
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.host.maps import Mapping
from pyflame_ebpf.host.process_directory import ProcessGone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import Frame, FrameKind
from pyflame_ebpf.symbols.mapped_file import MappedFile, is_without_file
from pyflame_ebpf.symbols.native_symbols import ANONYMOUS, JIT, NativeSymbols
from pyflame_ebpf.symbols.perf_map import PerfMaps
from pyflame_ebpf.tracking.tracked_processes import ProcessTable


class NativeFrames:
    """Names native frames by the files that their process had mapped, and by the perf maps of JIT compilers."""

    def __init__(self, table: ProcessTable, *, live: bool) -> None:
        self._table = table
        self._symbols = NativeSymbols(live=live)
        self._perf_maps = PerfMaps()
        self._alive: dict[Identity, bool] = {}  # at the first name that was asked for

    def watch(self, identity: Identity) -> None:
        """Opens the perf map of a process that has code of no file, for the process may end before names are asked."""
        if any(is_without_file(mapping) for mapping in self._table.mappings_of(identity)):
            with contextlib.suppress(ProcessGone):
                self._perf_maps.watch(identity, self._table.directories.of(identity))

    def expect(self, identity: Identity, addresses: Iterable[int]) -> None:
        """Notes addresses that will be named: names in one file are found together."""
        wanted: dict[Mapping, list[int]] = {}
        for address in addresses:
            if (mapping := self._table.mapping_of(identity, address)) is not None:
                wanted.setdefault(mapping, []).append(address)
        for mapping, found in wanted.items():
            self._symbols.expect(self._file(identity, mapping), found)

    def name(self, identity: Identity, address: int) -> Frame | None:
        """The function at an address, None where the process had no code."""
        mapping = self._table.mapping_of(identity, address)
        if mapping is None:
            return None
        mapped = self._file(identity, mapping)
        if is_without_file(mapping) and (name := self._perf_maps.at(identity, address)):
            return Frame(FrameKind.NATIVE, name, JIT)
        file, name = self._symbols.lookup(mapped, address)
        of_interpreter = file == self._table.interpreter_file(identity)
        return Frame(FrameKind.NATIVE, name, file, plumbing=of_interpreter and is_plumbing(name))

    def place(self, identity: Identity, address: int) -> Frame | None:
        """The mapped file and the offset of an address, without looking into any file; None where was no code."""
        mapping = self._table.mapping_of(identity, address)
        if mapping is None:
            return None
        offset, name = address - mapping.start + mapping.offset, PurePosixPath(mapping.path).name
        return Frame(FrameKind.NATIVE, f"{name or ANONYMOUS}+{offset:#x}", mapping.path or ANONYMOUS)

    def _file(self, identity: Identity, mapping: Mapping) -> MappedFile:
        return MappedFile(self._pid(identity), mapping, self._table.open_again)

    def _pid(self, identity: Identity) -> int:
        """The process's PID while it runs, 0 after."""
        if identity not in self._alive:
            self._alive[identity] = self._table.directories.is_running(identity)
            if self._alive[identity]:
                self.watch(identity)  # the map may be new
        return identity.tgid if self._alive[identity] else 0

    @property
    def build_ids(self) -> dict[str, str]:
        """Build ids in hex by mapped file, of the files that were opened."""
        return self._symbols.build_ids

    def look_again(self) -> None:
        """Asks anew which processes run, at the next name of each."""
        self._alive.clear()

    def forget(self, gone: Gone) -> None:
        """Drop the processes that are gone."""
        for identity in gone.processes:
            self._alive.pop(identity, None)
            self._perf_maps.forget(identity)

    def begin_anew(self) -> None:
        """Forgets all names, and leaves the process that demangles to the recording that started it."""
        self._symbols = NativeSymbols()
        self._perf_maps.read_again()

    def close(self) -> None:
        """Lets go of files and of the process that demangles."""
        self._perf_maps.close()
        self._symbols.close()
