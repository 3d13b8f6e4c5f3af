"""Native addresses of files → names, and why there are none."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest

from pyflame_ebpf.elf.image import BadElf, ElfImage, open_regular
from pyflame_ebpf.elf.symbols import ElfSymbols
from pyflame_ebpf.host import maps
from pyflame_ebpf.host.mapped_files import open_code
from pyflame_ebpf.symbols import known_files, native_symbols
from pyflame_ebpf.symbols.file_functions import STRIPPED
from pyflame_ebpf.symbols.mapped_file import MappedFile
from pyflame_ebpf.symbols.native_symbols import ANONYMOUS, NativeSymbols
from tests.elf.libraries import (
    LIBRARY,
    SHARED,
    Build,
    address_of,
    image_of,
    known,
    libc,
    objdump_stubs,
    run,
)
from tests.symbols.mapped import mapped, mapped_at, name_of, never_opened, opened_by_path

PROGRAM = 'int main(void) { write(1, "ready\\n", 6); char c; return hidden((int)read(0, &c, 1)); }'
HEAD = "#include <unistd.h>\nstatic __attribute__((noinline, used)) int hidden(int x) { return x * 3; }\n"


@pytest.fixture
def symbols() -> Iterator[NativeSymbols]:
    symbols = NativeSymbols()
    yield symbols
    symbols.close()


def with_compressed_symbols(library: Path) -> None:
    """Give a file the section .gnu_debugdata with all of its symbols."""
    run("xz", "-k", library)
    run("strip", "-s", library)
    run("objcopy", f"--add-section=.gnu_debugdata={library}.xz", library)


def test_a_stripped_file_keeps_the_names_of_what_it_exports_and_says_why_not_more(
    build: Build, symbols: NativeSymbols
) -> None:
    library = build(LIBRARY, *SHARED)
    visible, hidden = address_of(library, "visible"), address_of(library, "hidden")
    run("strip", "-s", library)
    assert symbols.lookup(mapped(library), visible) == (str(library), "visible")
    assert symbols.lookup(mapped(library), hidden) == (str(library), f"built+{hidden:#x}")
    assert symbols.why_unnamed(mapped(library)) == STRIPPED


def test_a_file_with_all_symbols_lacks_nothing(build: Build, symbols: NativeSymbols) -> None:
    assert symbols.why_unnamed(mapped(build(LIBRARY, *SHARED))) == ""


def test_compressed_symbols_name_what_is_not_exported(build: Build, symbols: NativeSymbols) -> None:
    library = build(LIBRARY, *SHARED)
    visible, hidden = address_of(library, "visible"), address_of(library, "hidden")
    with_compressed_symbols(library)
    symbols.expect(mapped(library), [visible])
    assert [name_of(symbols, library, vaddr) for vaddr in (hidden, visible)] == ["hidden", "visible"]
    assert symbols.why_unnamed(mapped(library)) == ""


def test_a_function_without_size_reaches_to_the_end_of_its_section_and_no_further(
    build: Build, symbols: NativeSymbols
) -> None:
    library = build(LIBRARY, *SHARED, "-fno-toplevel-reorder")
    with image_of(library) as image:
        section = image.section(".text")
    assert section is not None
    end = section.vaddr + section.size
    assert name_of(symbols, library, address_of(library, "sizeless") + 2) == "sizeless"
    assert [name_of(symbols, library, vaddr) for vaddr in (end - 1, end)] == ["sizeless", f"built+{end:#x}"]


def test_an_exported_function_without_size_claims_nothing_of_a_stripped_file(
    build: Build, symbols: NativeSymbols
) -> None:
    library = build(LIBRARY, *SHARED)
    begin = address_of(library, "sizeless")
    run("strip", "-s", library)
    assert name_of(symbols, library, begin + 2) == f"built+{begin + 2:#x}"


def test_a_file_without_the_segment_of_an_address_counts_by_the_offset(build: Build, symbols: NativeSymbols) -> None:
    library = build(LIBRARY, *SHARED)
    file = mapped(library)
    with image_of(library) as image:
        code = next(segment for segment in image.segments if segment.flags & 1)
    before, after = file.mapping.start - file.mapping.offset, code.vaddr + code.file_size
    assert symbols.lookup(file, before) == (str(library), "built+0x0")
    assert symbols.lookup(file, after)[1] == f"built+{after:#x}"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no demangler for Python 3.10")
def test_names_of_cpp_are_demangled_in_stubs_too(build: Build, symbols: NativeSymbols) -> None:
    source = (
        "namespace a { int far(int); template<class T> T near(T t) { return far(t); } template int near<int>(int); }"
    )
    library = build(source, *SHARED, "-fcf-protection=none", language="c++")
    stub = next(address for address, name in objdump_stubs(library).items() if name == "_ZN1a3farEi@plt")
    assert name_of(symbols, library, address_of(library, "_ZN1a4nearIiEET_S1_")) == "int a::near<int>(int)"
    assert name_of(symbols, library, stub) == "a::far(int)@plt"


def test_the_stub_of_a_function_that_is_chosen_at_the_start_has_the_chooser_s_name(symbols: NativeSymbols) -> None:
    path = libc()
    stub, name = next((address, name) for address, name in objdump_stubs(path).items() if "@plt" in name)
    assert name_of(symbols, path, stub + 4) == name


CHOSEN = """
static int one(int x) { return x; }
static void *choose(void) { return one; }
static int chosen_at_the_start(int) __attribute__((ifunc("choose")));
int caller(int x) { return chosen_at_the_start(x) + chosen_at_the_start(x + 1); }
"""


@pytest.mark.parametrize("live", [False, True])
def test_a_chooser_that_is_not_exported_names_its_stub_too(build: Build, live: bool) -> None:
    library = build(CHOSEN, *SHARED)
    listing = subprocess.run(["objdump", "-d", library], capture_output=True, text=True, check=True).stdout
    stub = next(
        int(line.split()[0], 16) for line in listing.splitlines() if line.endswith("@plt>:") and "*ABS*" in line
    )
    symbols = NativeSymbols(live=live)
    assert name_of(symbols, library, stub) == "choose@plt"
    symbols.close()


def test_functions_of_the_vdso_are_named(symbols: NativeSymbols) -> None:
    pid = os.getpid()
    mapping = next(mapping for mapping in maps.mappings(pid) if mapping.path == "[vdso]")
    with open_code(pid, mapping) as file:
        function = known(ElfSymbols(ElfImage(file)).dynamic_symbol("__vdso_clock_gettime"))
    vdso = MappedFile(pid, mapping, lambda mapping: open_code(pid, mapping))
    assert symbols.lookup(vdso, mapping.start + function.vaddr) == ("[vdso]", "clock_gettime")
    assert symbols.why_unnamed(vdso) == ""


def test_code_of_no_file_is_counted_by_its_place_and_says_why(symbols: NativeSymbols) -> None:
    made = MappedFile(1, maps.Mapping(0x7000, 0x9000, 0, True, 0, 0, ""), never_opened)
    assert symbols.lookup(made, 0x7123) == (ANONYMOUS, "[anonymous]+0x123")
    assert symbols.why_unnamed(made) == (
        "no file holds this code (a JIT compiler's?), and only a perf map could name it"
    )


def test_a_file_that_is_gone_counts_by_the_offset_and_the_error_says_why(symbols: NativeSymbols) -> None:
    def refuse(_mapping: maps.Mapping) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory")

    gone = MappedFile(1, maps.Mapping(4096, 8192, 0x2000, True, 1, 1, "/no/such/lib.so"), refuse)
    assert symbols.lookup(gone, 4097) == ("/no/such/lib.so", "lib.so+0x2001")
    assert symbols.why_unnamed(gone) == "No such file or directory"


def test_a_file_that_is_no_elf_file_says_so(symbols: NativeSymbols, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    mapping = maps.Mapping(4096, 8192, 0, True, 1, 1, str(tmp_path / "x"))
    reason = symbols.why_unnamed(MappedFile(0, mapping, opened_by_path))
    assert reason == "not an ELF file for a 64-bit little-endian machine"


def test_build_ids_are_those_of_the_files_that_were_opened(build: Build, symbols: NativeSymbols) -> None:
    with_id = build(LIBRARY, *SHARED, "-Wl,--build-id=0x0123ab", name="with")
    without = build(LIBRARY, *SHARED, "-Wl,--build-id=none", name="without")
    for path in (with_id, without):
        symbols.lookup(mapped(path), address_of(path, "visible"))
    assert symbols.build_ids == {str(with_id): "0123ab"}


def test_what_was_expected_is_found_in_one_read(build: Build, symbols: NativeSymbols) -> None:
    library = build(LIBRARY, *SHARED)
    visible, hidden = address_of(library, "visible"), address_of(library, "hidden")
    symbols.expect(mapped(library), [visible, hidden])
    assert name_of(symbols, library, hidden) == "hidden"
    assert symbols.lookup(mapped(library, never_opened), visible)[1] == "visible"


def test_a_mapping_is_opened_once_and_read_once_for_each_address(build: Build, symbols: NativeSymbols) -> None:
    library = build(LIBRARY, *SHARED)
    hidden = address_of(library, "hidden")
    opened: list[maps.Mapping] = []

    def counting(mapping: maps.Mapping) -> BinaryIO:
        opened.append(mapping)
        return opened_by_path(mapping)

    names = [symbols.lookup(mapped(library, counting), hidden)[1] for _ in range(3)]
    assert (names, len(opened)) == (["hidden"] * 3, 2)


def test_an_address_between_two_of_a_function_needs_no_file(symbols: NativeSymbols) -> None:
    path = libc()
    start = address_of(path, "qsort")
    assert name_of(symbols, path, start + 4) == "qsort"
    unread = mapped(path, never_opened)
    assert [symbols.lookup(unread, start + offset)[1] for offset in (0, 1, 4)] == ["qsort"] * 3
    for outside in (start - 1, start + 5):
        with pytest.raises(AssertionError):
            symbols.lookup(unread, outside)


def test_mappings_that_are_too_many_are_opened_again(
    build: Build, symbols: NativeSymbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "PLACES_MAX", 2)
    paths = [build(LIBRARY, *SHARED, name=f"built{number}") for number in range(3)]
    for path in paths:
        assert name_of(symbols, path, address_of(path, "hidden")) == "hidden"
    assert len(symbols._known._places) == 1


@pytest.mark.parametrize(("more", "expected"), [(0, "hidden"), (1, "+0x")])
def test_symbols_beyond_the_memory_bound_are_left_out(
    build: Build, symbols: NativeSymbols, monkeypatch: pytest.MonkeyPatch, more: int, expected: str
) -> None:
    monkeypatch.setattr(native_symbols, "KEPT_MAX", len("visible") - more)
    library = build(LIBRARY, *SHARED)
    assert name_of(symbols, library, address_of(library, "visible")) == "visible"
    assert expected in name_of(symbols, library, address_of(library, "hidden"))
    lack = f"the names of all files take more than {(len('visible') - more) >> 20} MB" if more else ""
    assert symbols.why_unnamed(mapped(library)) == lack


def set_size_of_section(path: Path, name: str, size: int) -> None:
    """Make a file say that a section is larger than it is."""
    with path.open("r+b") as file:
        sections = ElfImage(file).sections
        (headers,) = struct.unpack("<Q", os.pread(file.fileno(), 8, 40))
        number = next(number for number, section in enumerate(sections) if section.name == name)
        os.pwrite(file.fileno(), struct.pack("<Q", size), headers + 64 * number + 32)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("section", [".symtab", ".strtab"])
def test_a_file_whose_symbols_are_too_large_keeps_the_names_of_what_it_exports(
    build: Build, section: str, live: bool
) -> None:
    library = build(LIBRARY, *SHARED)
    visible = address_of(library, "visible")
    set_size_of_section(library, section, 200 << 20)
    symbols = NativeSymbols(live=live)
    assert name_of(symbols, library, visible) == "visible"
    symbols.close()


@pytest.mark.parametrize("live", [False, True])
def test_a_file_whose_symbols_are_too_large_is_named_by_its_compressed_ones(build: Build, live: bool) -> None:
    library = build(LIBRARY, *SHARED)
    hidden = address_of(library, "hidden")
    run("xz", "-k", library)
    run("objcopy", f"--add-section=.gnu_debugdata={library}.xz", library)
    set_size_of_section(library, ".symtab", 200 << 20)
    symbols = NativeSymbols(live=live)
    assert name_of(symbols, library, hidden) == "hidden"
    symbols.close()


@pytest.mark.parametrize("damage", [b"no xz", b""])
def test_compressed_symbols_that_are_damaged_count_as_none(
    build: Build, symbols: NativeSymbols, tmp_path: Path, damage: bytes
) -> None:
    library = build(LIBRARY, *SHARED)
    visible = address_of(library, "visible")
    (tmp_path / "damaged").write_bytes(damage)
    run("strip", "-s", library)
    run("objcopy", f"--add-section=.gnu_debugdata={tmp_path / 'damaged'}", library)
    assert name_of(symbols, library, visible) == "visible"
    assert symbols.why_unnamed(mapped(library)) == STRIPPED


def test_native_addresses_of_a_live_process_are_named(build: Build, symbols: NativeSymbols) -> None:
    program = build(HEAD + PROGRAM, "-pie", name="named")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        base = next(mapping.start for mapping in maps.mappings(process.pid) if mapping.path == str(program))
        hidden = base + address_of(program, "hidden") + 1
        found = [symbols.lookup(mapped_at(process.pid, address), address) for address in (hidden, base)]
        process.communicate()
    assert found == [(str(program), "hidden"), (str(program), "named+0x0")]


def test_what_the_readers_of_the_fuzzer_promise_is_bad_elf_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF\x02\x01" + b"\xff" * 200)
    with open_regular(str(tmp_path / "x")) as file, pytest.raises(BadElf):
        ElfImage(file)
