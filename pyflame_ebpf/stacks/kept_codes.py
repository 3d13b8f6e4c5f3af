"""Names and packed line tables of code objects, shared by contents, within bounds of memory.

A service that generates code for each request shows new code objects in each sample.  Most of them have equal contents,
so names and tables are kept once for all that have them.  Where they differ, those that are needed least are given up:
line tables first, whose code objects then have no lines, and names only beyond a bound of their own.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from pyflame_ebpf.cpython.code_objects import Code
from pyflame_ebpf.cpython.line_table import LineTable

TABLES_MAX = 32 << 20  # bytes of all line tables; CPython's whole standard library has 6 MB
NAMES_MAX = 48 << 20  # bytes of all names, with what Python takes to find them: some 90,000 different functions
IDS_MAX = 1 << 19  # code objects that are told apart; 110 bytes each, for they share the rest
_TABLE_SIZE = 400  # bytes of a table besides its contents: a key, an object, an entry of an ordered dict
_NAMED_SIZE = 450  # bytes of a named code object besides its characters
_CHARACTER = 4  # bytes at the most

_Digest = bytes  # of a line table with its format and first line
_NamedKey = tuple[str, str, int, int, _Digest | None]  # name, file, first line, identity of the layout, table


_NO_KEY: _NamedKey = "", "", 0, 0, None  # of names that were given up, to keep nothing of them


class _Table:
    """A line table and how many named code objects have it; ``lines`` is None once it was given up."""

    __slots__ = ("digest", "lines", "uses")

    def __init__(self, digest: _Digest, lines: LineTable) -> None:
        self.digest = digest
        self.lines: LineTable | None = lines
        self.uses = 0


class _Named:
    """What code objects with equal contents share; ``code`` has no lines, and is None once its names were given up."""

    __slots__ = ("code", "key", "table", "uses")

    def __init__(self, code: Code, key: _NamedKey, table: _Table | None) -> None:
        self.code: Code | None = code
        self.key = key
        self.table = table
        self.uses = 0


class KeptCodes:
    """Code objects by id.

    ``lines_given_up`` counts line tables, ``given_up`` code objects that were dropped because there were too many.
    """

    def __init__(self, tables_max: int = TABLES_MAX, names_max: int = NAMES_MAX, ids_max: int = IDS_MAX) -> None:
        self._tables_max = tables_max
        self._names_max = names_max
        self._ids_max = ids_max
        self._by_id: dict[int, _Named] = {}  # the ones that are needed least first, as far as that was told
        self._named: OrderedDict[_NamedKey, _Named] = OrderedDict()  # likewise
        self._tables: OrderedDict[_Digest, _Table] = OrderedDict()  # likewise
        self._names_size = 0  # bytes
        self._tables_size = 0  # bytes
        self.lines_given_up = 0
        self.given_up = 0

    def __contains__(self, code_id: int) -> bool:
        """Whether a code object is kept."""
        named = self._by_id.get(code_id)
        return named is not None and named.code is not None

    def get(self, code_id: int) -> Code | None:
        """A code object by its id, None if it never came or was dropped."""
        named = self._by_id.get(code_id)
        if named is None or named.code is None:
            return None
        lines = named.table.lines if named.table else None
        return replace(named.code, lines=lines) if lines else named.code

    @property
    def crowded(self) -> bool:
        """True once half of a bound is reached: tell then which code objects new stacks need."""
        return (
            2 * self._tables_size > self._tables_max
            or 2 * self._names_size > self._names_max
            or 2 * len(self._by_id) > self._ids_max
        )

    @property
    def size(self) -> int:
        """Bytes of names and tables, about."""
        return self._names_size + self._tables_size

    def add(self, code_id: int, code: Code, packed: bytes | None) -> None:
        """Keep a code object; ``code`` has no lines yet, ``packed`` is its line table if it could be read."""
        self._drop_id(code_id)
        digest = None if packed is None else _digest(code, packed)
        # A layout has 60 fields to hash; there is one object of each, which lives as long as its code objects.
        key = code.name, code.file, code.first_line, id(code.layout), digest
        named = self._named.get(key)
        if named is None:
            table = None if digest is None or packed is None else self._table(digest, code, packed)
            named = self._named[key] = _Named(code, key, table)
            self._names_size += _size_of_names(code)
        elif packed is not None and digest is not None and named.table is not None and named.table.lines is None:
            named.table.uses -= 1
            named.table = self._table(digest, code, packed)  # it was given up, and came again
        named.uses += 1
        self._by_id[code_id] = named
        self._need(named)
        self._bound()

    def _table(self, digest: _Digest, code: Code, packed: bytes) -> _Table:
        """The table with this digest, for one more named code object."""
        table = self._tables.get(digest)
        if table is None:
            lines = LineTable(code.layout.line_table_format, packed, code.first_line)
            table = self._tables[digest] = _Table(digest, lines)
            self._tables_size += _size_of_table(lines)
        table.uses += 1
        return table

    def need(self, code_ids: Iterable[int]) -> None:
        """Note that a new stack has these code objects: the others are given up before them."""
        for code_id in code_ids:
            if (named := self._by_id.pop(code_id, None)) is not None:
                self._by_id[code_id] = named
                self._need(named)

    def _need(self, named: _Named) -> None:
        if named.code is not None:
            self._named.move_to_end(named.key)
        if named.table is not None and named.table.lines is not None:
            self._tables.move_to_end(named.table.digest)

    def _bound(self) -> None:
        while self._tables_size > self._tables_max:
            self._give_up_lines(next(iter(self._tables.values())))
            self.lines_given_up += 1
        while self._names_size > self._names_max:
            named = next(iter(self._named.values()))
            self.given_up += named.uses
            self._give_up_names(named)
        if len(self._by_id) > self._ids_max:
            # Half of them at once, for the first entries of a dict are slow to take one by one.
            for code_id in list(islice(self._by_id, self._ids_max // 2)):
                self.given_up += code_id in self
                self._drop_id(code_id)

    def drop(self, code_ids: Iterable[int]) -> None:
        """Drop code objects that nothing refers to any more."""
        for code_id in code_ids:
            self._drop_id(code_id)

    def _drop_id(self, code_id: int) -> None:
        named = self._by_id.pop(code_id, None)
        if named is None:
            return
        named.uses -= 1
        if not named.uses:
            self._give_up_names(named)

    def _give_up_names(self, named: _Named) -> None:
        """Let go of names, and of a line table that nothing else has."""
        if named.code is None:
            return
        del self._named[named.key]
        self._names_size -= _size_of_names(named.code)
        table, named.code, named.table, named.key = named.table, None, None, _NO_KEY
        if table is not None:
            table.uses -= 1
            if not table.uses:
                self._give_up_lines(table)

    def _give_up_lines(self, table: _Table) -> None:
        if table.lines is not None:
            del self._tables[table.digest]
            self._tables_size -= _size_of_table(table.lines)
            table.lines = None


def _digest(code: Code, packed: bytes) -> _Digest:
    facts = f"{code.layout.line_table_format.name} {code.first_line} ".encode()
    return hashlib.blake2b(facts + packed, digest_size=16).digest()


def _size_of_table(lines: LineTable) -> int:
    return _TABLE_SIZE + len(lines.packed)


def _size_of_names(code: Code) -> int:
    return _NAMED_SIZE + _CHARACTER * (len(code.name) + len(code.file))
