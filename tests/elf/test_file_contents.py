"""Which files are the same, and what is held in memory to know it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pyflame_ebpf.elf import file_contents
from pyflame_ebpf.elf.file import BadElf
from pyflame_ebpf.elf.file_contents import FilesByContents, hold_names, hold_rows
from pyflame_ebpf.elf.symbols import ElfSymbols
from tests.elf.libraries import LIBRARY, SHARED, Build, image_of, run, symbols_of


@dataclass
class Opened:
    """A file by its contents, or by the error that comes of reading it."""

    contents: bytes | Exception
    build_id: bytes = b"id"
    file_size: int = 10
    reads: int = 0


@dataclass
class Files:
    """Files by number, with what was joined."""

    joined: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known: FilesByContents[str, Opened] = FilesByContents(self._hold, self._join)

    def _hold(self, opened: Opened) -> bytes:
        opened.reads += 1
        if isinstance(opened.contents, Exception):
            raise opened.contents
        return opened.contents

    def _join(self, file: str, opened: Opened, digest: bytes) -> None:
        assert opened.contents == digest
        self.joined.append((file, digest))

    def met(self, name: str, opened: Opened, other: str | None = None, *, gone: bool = False) -> str:
        """The file that stands for this one, which is kept if there is none."""
        same, digest = self.known.same_as(opened, other)
        if same is None:

            @contextmanager
            def reopened() -> Iterator[Opened]:
                if gone:
                    raise FileNotFoundError
                yield opened

            self.known.add(opened, name, digest, reopened, other)
        return same or name


def test_a_file_with_a_build_id_of_its_own_is_not_read() -> None:
    files, first, other = Files(), Opened(b"a"), Opened(b"a", build_id=b"other")
    assert [files.met("first", first), files.met("other", other)] == ["first", "other"]
    assert (first.reads, other.reads, files.joined) == (0, 0, [])


def test_files_of_the_same_contents_are_one_from_the_second_on() -> None:
    files, first = Files(), Opened(b"a")
    names = [files.met("first", first), files.met("second", Opened(b"a")), files.met("third", Opened(b"a"))]
    assert (names, first.reads, files.joined) == (["first"] * 3, 1, [("first", b"a")])


def test_files_of_other_contents_are_told_apart_and_known_again() -> None:
    files = Files()
    contents = (b"a", b"b", b"c", b"a", b"b", b"c")
    names = [files.met(str(number), Opened(each)) for number, each in enumerate(contents)]
    assert names == ["0", "1", "2", "0", "1", "2"]
    assert files.joined == [("0", b"a")]


@pytest.mark.parametrize("second", [Opened(b"a", build_id=b""), Opened(b"a", file_size=11)])
def test_a_file_without_build_id_or_of_another_size_is_compared_with_none(second: Opened) -> None:
    files, first = Files(), Opened(b"a", build_id=second.build_id)
    assert [files.met("first", first), files.met("second", second)] == ["first", "second"]
    assert (first.reads, second.reads) == (0, 0)


def test_what_else_must_be_the_same_tells_files_apart() -> None:
    files = Files()
    names = [files.met(f"{number}", Opened(b"a"), other) for number, other in enumerate(("x", "y", "x", "y"))]
    assert names == ["0", "1", "0", "1"]


@pytest.mark.parametrize("error", [BadElf("large"), OSError(), struct.error()])
def test_a_file_that_cannot_be_held_stands_for_itself_and_no_other(error: Exception) -> None:
    files = Files()
    names = [files.met("first", Opened(b"a")), files.met("bad", Opened(error)), files.met("second", Opened(b"a"))]
    assert names == ["first", "bad", "first"]
    assert files.met("again", Opened(error)) == "again"


def test_a_first_file_that_is_gone_or_cannot_be_held_stands_for_no_other() -> None:
    errors = (BadElf("large"), OSError(), struct.error())
    for first, gone in ((Opened(b"a"), True), *((Opened(error), False) for error in errors)):
        files = Files()
        names = [files.met("first", first, gone=gone), *(files.met(name, Opened(b"a")) for name in ("second", "third"))]
        assert (names, files.joined) == (["first", "second", "second"], [])


def test_files_that_were_dropped_stand_for_no_other() -> None:
    files = Files()
    files.met("alone", Opened(b"a"))
    files.known.drop(["alone"])
    assert [files.met("second", Opened(b"a")), files.met("third", Opened(b"a"))] == ["second", "second"]
    files.known.drop(["second"])
    assert [files.met("fourth", Opened(b"a")), files.met("fifth", Opened(b"a"))] == ["fourth", "fourth"]


# What is held


def names_digest(path: Path) -> bytes:
    with symbols_of(path) as symbols:
        return hold_names(symbols)


def rows_digest(path: Path) -> bytes:
    with image_of(path) as image:
        return hold_rows(image)


def test_other_names_have_another_digest_with_the_same_rows(build: Build) -> None:
    first, second = (
        build(LIBRARY.replace("hidden", name), *SHARED, "-Wl,--build-id=0x12", name=name)
        for name in ("one123", "two456")
    )
    assert names_digest(first) != names_digest(second)
    assert rows_digest(first) == rows_digest(second)


def patched(path: Path, section: str, name: str) -> Path:
    """A copy in which the last byte of a section is another one."""
    with image_of(path) as image:
        place = image.section(section)
    assert place is not None
    data = bytearray(path.read_bytes())
    data[place.offset + place.size - 1] ^= 1
    copy = path.with_name(name)
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize(
    ("section", "of_names", "of_rows"),
    [
        (".symtab", True, False),
        (".strtab", True, False),
        (".dynsym", True, False),
        (".dynstr", True, False),
        (".rela.plt", True, False),
        (".rela.dyn", True, False),
        (".plt", True, False),
        (".gnu_debuglink", True, False),
        (".gnu_debugdata", True, False),
        (".eh_frame", False, True),
        (".eh_frame_hdr", False, True),
        (".comment", False, False),
    ],
)
def test_the_digests_are_of_what_names_and_rows_are_made_of(
    build: Build, section: str, of_names: bool, of_rows: bool
) -> None:
    library = build(LIBRARY, *SHARED, "-fcf-protection=none")
    (library.parent / "link").write_bytes(b"linked\0\0abcd")
    for name in (".gnu_debuglink", ".gnu_debugdata"):
        run("objcopy", f"--add-section={name}={library.parent / 'link'}", library)
    copy = patched(library, section, "copy")
    assert (names_digest(copy) != names_digest(library)) == of_names
    assert (rows_digest(copy) != rows_digest(library)) == of_rows


def test_the_digest_of_rows_is_of_the_code_at_the_entry_point_too(build: Build) -> None:
    program = build("int main(void) { return 0; }")
    with image_of(program) as image:
        place = image.extent(image.entry, 16).offset
    for offset, changes in ((15, True), (16, False)):
        data = bytearray(program.read_bytes())
        data[place + offset] ^= 1
        copy = program.with_name("copy")
        copy.write_bytes(data)
        assert (rows_digest(copy) != rows_digest(program)) == changes


def test_a_file_without_section_headers_has_no_rows_that_could_be_held(build: Build) -> None:
    library = build(LIBRARY, *SHARED)
    data = bytearray(library.read_bytes())
    struct.pack_into("<Q", data, 40, 0)
    struct.pack_into("<HHH", data, 58, 0, 0, 0)
    library.write_bytes(data)
    with image_of(library) as image, pytest.raises(BadElf, match=r"where its \.eh_frame ends is not known"):
        hold_rows(image)
    with image_of(library) as image:
        assert len(hold_names(ElfSymbols(image))) == 20


@pytest.mark.parametrize("limit", ["NAMES_MAX", "ROWS_MAX"])
def test_what_is_larger_than_the_limit_is_not_compared(
    build: Build, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    library = build(LIBRARY, *SHARED)
    digest = {"NAMES_MAX": names_digest, "ROWS_MAX": rows_digest}[limit]
    with symbols_of(library) as symbols:
        (hold_names(symbols) if limit == "NAMES_MAX" else hold_rows(symbols.image))
        held = symbols.image.held
    monkeypatch.setattr(file_contents, limit, held)
    assert len(digest(library)) == 20
    monkeypatch.setattr(file_contents, limit, held - 1)
    with pytest.raises(BadElf, match="too large to be compared"):
        digest(library)


def test_of_rows_8_mib_are_compared_and_of_names_64() -> None:
    assert (file_contents.ROWS_MAX, file_contents.NAMES_MAX) == (8 * 1024 * 1024, 32 * 1024 * 1024)
