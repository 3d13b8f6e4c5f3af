"""Native addresses of files and of live processes → names."""

import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fuzz
import pytest
from _recordings import record_for

from pyflame_ebpf.elf.file_contents import hold_names
from pyflame_ebpf.elf.image import BadElf, ElfImage, open_regular
from pyflame_ebpf.elf.plt import PltStubs
from pyflame_ebpf.host import proc
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.symbols import native_symbols
from pyflame_ebpf.symbols.native_symbols import ANONYMOUS, JIT, STRIPPED, NativeSymbols
from pyflame_ebpf.symbols.perf_map import open_perf_map
from pyflame_ebpf.tracking.mapped_code import MappedCode, open_code

COMPILER = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
/* mov $1000000, %ecx; 1: dec %ecx; jnz 1b; ret */
static const unsigned char loop[] = {0xb9, 0x40, 0x42, 0x0f, 0, 0xff, 0xc9, 0x75, 0xfc, 0xc3};
int main(void) {
    char name[64];
    void *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, loop, sizeof loop);
    snprintf(name, sizeof name, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(name, "w");
    fprintf(map, "%lx %zx compiled loop\\n", (unsigned long)code, sizeof loop);
    fclose(map);
    write(1, "ready\\n", 6);
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (char end; read(0, &end, 1);) ((void (*)(void))code)();
    unlink(name);
    return 0;
}
"""
LIBRARY = """
extern int elsewhere(int);
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
__attribute__((noinline)) int visible(int x) { return hidden(x) + elsewhere(x) + elsewhere(x + 1); }
asm(".globl sizeless\\n.type sizeless, @function\\nsizeless:\\n nop\\n nop\\n ret\\n");
"""
WAIT = '#include <unistd.h>\nint main(void) { write(1, "ready\\n", 6); char c; return (int)read(0, &c, 1); }'


@pytest.fixture
def symbols():
    symbols = NativeSymbols()
    yield symbols
    symbols.close()


@pytest.fixture
def build(tmp_path: Path):
    def run(source, *flags, language: str = "c", name: str = "built"):
        target = tmp_path / name
        compiler = {"c": "gcc", "c++": "g++"}[language]
        subprocess.run([compiler, "-O1", "-x", language, "-", "-o", target, *flags], input=source.encode(), check=True)
        return target

    return run


def mapping_of(path):
    """A mapping of a file's code, by itself: it begins at the code's offset."""
    with open_regular(str(path)) as file:
        segment = next(segment for segment in ElfImage(file).segments if segment.flags & 1)
    begin = segment.vaddr & ~4095
    return proc.Mapping(begin, begin + 0x10000, segment.offset & ~4095, True, 1, path.stat().st_ino, str(path))


def name_of(symbols, path, vaddr):
    return symbols.lookup(0, [mapping_of(path)], vaddr, lambda mapping: open_regular(mapping.path))


def address_of(path, name):
    with open_regular(str(path)) as file:
        return ElfImage(file).symbol(name).vaddr


def test_a_stripped_file_keeps_the_names_of_what_it_exports_and_says_why_not_more(build, symbols) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    visible, hidden = address_of(library, "visible"), address_of(library, "hidden")
    subprocess.run(["strip", "-s", library], check=True)
    assert name_of(symbols, library, visible) == (str(library), "visible")
    assert name_of(symbols, library, hidden)[1].startswith("built+0x")
    assert symbols.why_unnamed(0, mapping_of(library), lambda mapping: open_regular(mapping.path)) == STRIPPED


def test_a_file_with_all_symbols_lacks_nothing(build, symbols) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    assert symbols.why_unnamed(0, mapping_of(library), lambda mapping: open_regular(mapping.path)) == ""


def test_compressed_symbols_name_what_is_not_exported(build, symbols, tmp_path: Path) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    hidden = address_of(library, "hidden")
    subprocess.run(["xz", "-k", library], check=True)
    subprocess.run(["strip", "-s", library], check=True)
    subprocess.run(["objcopy", f"--add-section=.gnu_debugdata={library}.xz", library], check=True)
    assert name_of(symbols, library, hidden) == (str(library), "hidden")


def test_a_function_without_size_reaches_to_the_end_of_its_section_and_no_further(build, symbols) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    with open_regular(str(library)) as file:
        section = ElfImage(file).section(".text")
    begin = address_of(library, "sizeless")
    assert name_of(symbols, library, begin + 2)[1] == "sizeless"
    assert name_of(symbols, library, section.vaddr + section.size + 64)[1] != "sizeless"


def test_an_exported_function_without_size_claims_nothing_of_a_stripped_file(build, symbols) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    begin = address_of(library, "sizeless")
    subprocess.run(["strip", "-s", library], check=True)
    assert name_of(symbols, library, begin + 2)[1].startswith("built+0x")


def objdump_stubs(path):
    """Address → name@plt as binutils has them."""
    text = subprocess.run(["objdump", "-d", path], capture_output=True, text=True, check=True).stdout
    heads = [line.split(maxsplit=1) for line in text.splitlines() if line.endswith("@plt>:")]
    return {int(address, 16): name[1:-2] for address, name in heads if not name.startswith("<*ABS*")}


PLT_FLAGS = (("-fcf-protection=full",), ("-fcf-protection=none",), ("-fno-plt",), ("-Wl,-z,now",), ("-Wl,-z,lazy",))


@pytest.mark.parametrize("flags", PLT_FLAGS, ids=" ".join)
def test_stubs_are_named_as_binutils_does(build, flags: tuple[str, ...]) -> None:
    library = build(LIBRARY, "-shared", "-fPIC", *flags)
    with open_regular(str(library)) as file:
        image = ElfImage(file)
        expected = objdump_stubs(library)
        stubs = PltStubs(image, [address + 4 for address in expected])
        assert {address: stubs.at(address + 4, {}) for address in expected} == {
            address: (name, 4) for address, name in expected.items()
        }


def test_stubs_of_installed_libraries_are_named_as_binutils_does() -> None:
    path = next(mapping.path for mapping in proc.mappings(os.getpid()) if "/libc.so.6" in mapping.path)
    with open_regular(path) as file:
        image = ElfImage(file)
        expected = objdump_stubs(path)
        assert len(expected) > 5
        stubs = PltStubs(image, expected)
        choosers = image.functions(stubs.choosers)
        assert {address: stubs.at(address, choosers)[0] for address in expected} == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no demangler for Python 3.10")
def test_names_of_cpp_are_demangled_in_stubs_too(build, symbols) -> None:
    source = (
        "namespace a { int far(int); template<class T> T near(T t) { return far(t); } template int near<int>(int); }"
    )
    library = build(source, "-shared", "-fPIC", "-fcf-protection=none", language="c++")
    stub = next(address for address, name in objdump_stubs(library).items() if name == "_ZN1a3farEi@plt")
    assert name_of(symbols, library, address_of(library, "_ZN1a4nearIiEET_S1_"))[1] == "int a::near<int>(int)"
    assert name_of(symbols, library, stub)[1] == "a::far(int)@plt"


def test_functions_of_the_vdso_are_named(symbols) -> None:
    pid = os.getpid()
    mapping = next(mapping for mapping in proc.mappings(pid) if mapping.path == "[vdso]")
    with open_code(pid, mapping) as file:
        function = ElfImage(file).dynamic_symbol("__vdso_clock_gettime")
    found = symbols.lookup(pid, [mapping], mapping.start + function.vaddr, lambda mapping: open_code(pid, mapping))
    assert found == ("[vdso]", "clock_gettime")


def test_code_of_no_file_is_counted_by_its_place_and_says_why(symbols) -> None:
    mapping = proc.Mapping(0x7000, 0x9000, 0, True, 0, 0, "")
    assert symbols.lookup(1, [mapping], 0x7123, lambda _: None) == (ANONYMOUS, "[anonymous]+0x123")
    assert "perf map" in symbols.why_unnamed(1, mapping, lambda _: None)


def opened_by_path(mapping):
    return open_regular(mapping.path)


IDENTIFIED = ("-shared", "-fPIC", "-Wl,--build-id=0x1234")
FORGED = LIBRARY.replace("visible", "risible").replace("hidden", "hudden")


def test_one_read_serves_all_files_with_the_same_contents(
    build, symbols, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build(LIBRARY, *IDENTIFIED)
    copy = Path(shutil.copy(library, tmp_path / "copy"))
    visible = address_of(library, "visible")
    for file in (library, copy):
        symbols.expect(0, mapping_of(file), [visible], opened_by_path)
    assert name_of(symbols, library, visible) == (str(library), "visible")
    monkeypatch.setattr(native_symbols, "_best_functions", None)
    assert name_of(symbols, copy, visible) == (str(copy), "visible")


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("forged_first", [False, True])
def test_a_forged_file_does_not_change_the_names_of_the_true_one(build, live: bool, forged_first: bool) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    assert true.stat().st_size == forged.stat().st_size
    hidden = address_of(true, "hidden")
    assert address_of(forged, "hudden") == hidden
    symbols = NativeSymbols(live=live)
    for file in (forged, true) if forged_first else (true, forged):
        assert name_of(symbols, file, hidden)[1] == ("hudden" if file == forged else "hidden")
    assert name_of(symbols, true, address_of(true, "visible"))[1] == "visible"
    symbols.close()


class NoSampler:
    """Maps that nobody looks into."""

    def set_mappings(self, slot, packed) -> None:
        pass


@pytest.mark.parametrize("forged_first", [False, True])
def test_a_forged_file_with_the_rows_of_the_true_one_does_not_change_its_names_either(
    build, symbols, forged_first: bool
) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    hidden = address_of(true, "hidden")
    code = MappedCode(NoSampler(), lambda _identity, mapping: open_regular(mapping.path))
    for pid, file in enumerate((forged, true) if forged_first else (true, forged)):
        code.map_process(Identity(pid, pid, 0), [mapping_of(file)])
    assert len(code._files) == 1
    names = {file: symbols.lookup(0, [mapping_of(file)], hidden, code.open_again)[1] for file in (true, forged)}
    assert names == {true: "hidden", forged: "hudden"}


@pytest.mark.parametrize("live", [False, True])
def test_a_true_copy_that_is_forged_later_names_nothing_for_others(build, tmp_path: Path, live: bool) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    copy = Path(shutil.copy(true, tmp_path / "copy"))
    visible, hidden = address_of(true, "visible"), address_of(true, "hidden")
    symbols = NativeSymbols(live=live)
    for file in (copy, true):
        symbols.expect(0, mapping_of(file), [visible], opened_by_path)
    shutil.copyfile(forged, copy)
    assert name_of(symbols, copy, hidden)[1].startswith("copy+0x")
    assert [name_of(symbols, true, address)[1] for address in (visible, hidden)] == ["visible", "hidden"]
    symbols.close()


def test_names_that_were_forged_before_the_true_file_came_are_forgotten(build, symbols, tmp_path: Path) -> None:
    true, forged = build(LIBRARY, *IDENTIFIED, name="true"), build(FORGED, *IDENTIFIED, name="forged")
    copy = Path(shutil.copy(forged, tmp_path / "copy"))
    hidden = address_of(true, "hidden")
    assert name_of(symbols, copy, hidden)[1] == "hudden"
    shutil.copyfile(true, copy)
    assert name_of(symbols, true, hidden)[1] == "hidden"


def shift_code(path, distance) -> None:
    """Makes a file say that its code is loaded at other addresses."""
    with path.open("r+b") as file:
        kinds = [(segment.kind, segment.flags & 1) for segment in ElfImage(file).all_segments]
        field = 64 + 56 * kinds.index((1, 1)) + 16  # p_vaddr
        (vaddr,) = struct.unpack("<Q", os.pread(file.fileno(), 8, field))
        os.pwrite(file.fileno(), struct.pack("<Q", vaddr + distance), field)


@pytest.mark.parametrize("expected", [False, True])
def test_segments_that_were_forged_before_the_true_file_came_are_forgotten(
    build, symbols, tmp_path: Path, expected: bool
) -> None:
    true = build(LIBRARY, *IDENTIFIED, name="true")
    copy = Path(shutil.copy(true, tmp_path / "copy"))
    visible, hidden = address_of(true, "visible"), address_of(true, "hidden")
    shift_code(copy, visible - hidden)
    mapping = replace(mapping_of(true), path=str(copy), inode=copy.stat().st_ino)
    if expected:
        symbols.expect(0, mapping, [hidden], opened_by_path)
    else:
        assert symbols.lookup(0, [mapping], hidden, opened_by_path)[1] == "visible"
    shutil.copyfile(true, copy)
    assert name_of(symbols, true, hidden)[1] == "hidden"
    assert symbols.lookup(0, [mapping], hidden, opened_by_path)[1] == "hidden"


def test_addresses_that_were_expected_in_forged_segments_are_not_looked_up(
    build, symbols, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = build(LIBRARY, *IDENTIFIED, name="true")
    copy = Path(shutil.copy(true, tmp_path / "copy"))
    hidden = address_of(true, "hidden")
    shift_code(copy, 0x100000)
    mapping = replace(mapping_of(true), path=str(copy), inode=copy.stat().st_ino)
    symbols.expect(0, mapping, [hidden], opened_by_path)
    shutil.copyfile(true, copy)
    symbols.expect(0, mapping_of(true), [hidden], opened_by_path)
    asked = []
    monkeypatch.setattr(native_symbols, "_functions_in_file", lambda *args: asked.append(args[1]) or ({}, ""))
    name_of(symbols, true, hidden)
    assert asked == [{hidden}]


def test_names_that_were_forgotten_are_no_longer_counted(build, symbols, tmp_path: Path) -> None:
    library = build(LIBRARY, *IDENTIFIED)
    copy = Path(shutil.copy(library, tmp_path / "copy"))
    hidden = address_of(library, "hidden")
    for file in (library, copy, library):
        assert name_of(symbols, file, hidden)[1] == "hidden"
    assert symbols._kept == len("hidden")


def test_what_was_expected_is_found_in_one_read(build, symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    visible, hidden = address_of(library, "visible"), address_of(library, "hidden")
    symbols.expect(0, mapping_of(library), [visible, hidden], lambda mapping: open_regular(mapping.path))
    assert name_of(symbols, library, hidden)[1] == "hidden"
    monkeypatch.setattr(native_symbols, "_best_functions", None)
    assert name_of(symbols, library, visible)[1] == "visible"


def live_symbols_of_pairs(build, tmp_path: Path, count):
    """A live view's names of so many libraries that are there twice, and the libraries."""
    symbols = NativeSymbols(live=True)
    libraries = []
    for number in range(count):
        library = build(LIBRARY, "-shared", "-fPIC", f"-Wl,--build-id=0x{number + 1:04x}", name=f"library{number}")
        copy = Path(shutil.copy(library, tmp_path / f"copy{number}"))
        for file in (library, copy):
            symbols.expect(0, mapping_of(file), [], opened_by_path)
        libraries.append(library)
    return symbols, libraries


def test_indexes_hold_no_more_contents_than_is_allowed_and_all_files_are_named(
    build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols, libraries = live_symbols_of_pairs(build, tmp_path, 3)
    with open_regular(str(libraries[0])) as file:
        image = ElfImage(file)
        hold_names(image)
    monkeypatch.setattr(native_symbols, "_INDEXES_HOLD_MAX", 2 * image.held)
    hidden = address_of(libraries[0], "hidden")
    assert [name_of(symbols, library, hidden)[1] for library in libraries] == ["hidden"] * 3
    indexes = [names.index for names in {id(names): names for names in symbols._files.values()}.values()]
    assert [index is not None for index in indexes] == [True, True, False]
    assert sum(index.held for index in indexes if index) == symbols._held == 2 * image.held
    symbols.close()


def test_contents_of_an_index_that_is_dropped_make_room_for_others(build, tmp_path: Path) -> None:
    library = build(LIBRARY, "-shared", "-fPIC", IDENTIFIED[-1])
    subprocess.run(["xz", "-k", library], check=True)
    unpacked = library.stat().st_size
    hidden = address_of(library, "hidden")
    subprocess.run(["strip", "-s", library], check=True)
    subprocess.run(["objcopy", f"--add-section=.gnu_debugdata={library}.xz", library], check=True)
    symbols = NativeSymbols(live=True)
    assert name_of(symbols, library, hidden)[1] == "hidden"
    assert symbols._held == unpacked
    copy = Path(shutil.copy(library, tmp_path / "copy"))
    symbols.expect(0, mapping_of(copy), [], opened_by_path)
    assert symbols._held == 0
    symbols.close()


def test_symbols_beyond_the_memory_bound_are_left_out(build, symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_symbols, "KEPT_MAX", 0)
    library = build(LIBRARY, "-shared", "-fPIC")
    assert name_of(symbols, library, address_of(library, "visible"))[1] == "visible"
    assert name_of(symbols, library, address_of(library, "hidden"))[1].startswith("built+0x")


def set_size_of_section(path, name, size) -> None:
    with path.open("r+b") as file:
        image = ElfImage(file)
        field = image._sections_at + 64 * image.sections.index(image.section(name)) + 32  # sh_size
        os.pwrite(file.fileno(), struct.pack("<Q", size), field)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("section", [".symtab", ".strtab"])
def test_a_file_whose_symbols_are_too_large_keeps_the_names_of_what_it_exports(build, section: str, live: bool) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    visible = address_of(library, "visible")
    set_size_of_section(library, section, 200 << 20)
    symbols = NativeSymbols(live=live)
    assert name_of(symbols, library, visible)[1] == "visible"
    symbols.close()


@pytest.mark.parametrize("live", [False, True])
def test_a_file_whose_symbols_are_too_large_is_named_by_its_compressed_ones(build, live: bool) -> None:
    library = build(LIBRARY, "-shared", "-fPIC")
    hidden = address_of(library, "hidden")
    subprocess.run(["xz", "-k", library], check=True)
    subprocess.run(["objcopy", f"--add-section=.gnu_debugdata={library}.xz", library], check=True)
    set_size_of_section(library, ".symtab", 200 << 20)
    symbols = NativeSymbols(live=live)
    assert name_of(symbols, library, hidden)[1] == "hidden"
    symbols.close()


@pytest.mark.root
def test_files_of_a_process_in_another_root_are_looked_for_there(build, symbols, tmp_path: Path) -> None:
    root = tmp_path / "root"
    debug = root / "usr/lib/debug/.build-id/ab/cdef0123.debug"
    for folder in (debug.parent, root / "tmp"):
        folder.mkdir(parents=True)
    program = build(WAIT, "-static", "-Wl,--build-id=0xabcdef0123", name="root/program")
    main = address_of(program, "main")
    subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
    subprocess.run(["strip", "-s", program], check=True)
    with subprocess.Popen(["chroot", root, "/program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        mappings = proc.mappings(process.pid)
        (root / f"tmp/perf-{process.pid}.map").write_bytes(b"10 10 x\n")

        def open_it(mapping):
            return proc.open_mapped_file(process.pid, mapping)

        assert symbols.lookup(process.pid, mappings, main, open_it)[1] == "main"
        with open_perf_map(process.pid) as file:
            assert file.read() == b"10 10 x\n"
        process.stdin.close()


@pytest.mark.root
def test_a_debug_file_in_a_process_s_root_names_nothing_for_processes_elsewhere(build, symbols, tmp_path: Path) -> None:
    root = tmp_path / "root"
    debug = root / "usr/lib/debug/.build-id/ab/cdef0123.debug"
    debug.parent.mkdir(parents=True)
    program = build(WAIT, "-static", "-Wl,--build-id=0xabcdef0123", name="root/program")
    main = address_of(program, "main")
    subprocess.run(["objcopy", "--redefine-sym", "main=evil", program, debug], check=True)
    subprocess.run(["strip", "-s", program], check=True)
    with subprocess.Popen(["chroot", root, "/program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        mappings = proc.mappings(process.pid)

        def open_it(mapping):
            return proc.open_mapped_file(process.pid, mapping)

        names = [symbols.lookup(pid, mappings, main, open_it)[1] for pid in (process.pid, os.getpid())]
        assert names[0] == "evil"
        assert names[1].startswith("program+0x")
        process.stdin.close()


@pytest.mark.root
def test_a_debug_file_that_a_process_has_mounted_names_nothing_for_others_with_the_same_root(
    build, symbols, tmp_path: Path
) -> None:
    program = build(WAIT, "-static", "-Wl,--build-id=none", name="program")
    main = address_of(program, "main")
    debug, mounted = tmp_path / "mounted/x.debug", tmp_path / ".debug"
    for folder in (debug.parent, mounted):
        folder.mkdir()
    subprocess.run(["objcopy", "--redefine-sym", "main=evil", program, debug], check=True)
    subprocess.run(["strip", "-s", program], check=True)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={debug}", program], check=True)
    mount = f"mount --bind {debug.parent} {mounted} && exec {program}"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", mount], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        mappings = proc.mappings(process.pid)

        def open_it(mapping):
            return proc.open_mapped_file(process.pid, mapping)

        names = [symbols.lookup(pid, mappings, main, open_it)[1] for pid in (process.pid, os.getpid())]
        process.stdin.close()
    assert names[0] == "evil"
    assert names[1].startswith("program+0x")


@pytest.mark.root
def test_code_that_a_program_made_is_named_though_program_and_perf_map_are_gone(build) -> None:
    program = build(COMPILER, name="compiler")
    started = []

    def start() -> None:
        started.append(subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        started[0].stdout.readline()

    def end() -> None:
        started[0].communicate()

    profile = record_for(3, 199, started=start, stopping=end)
    pid = started[0].pid
    named = Counter(
        any((frame.name, frame.file) == ("compiled loop", JIT) for frame in profile.frames_of(key.stack))
        for key in profile.samples.elements()
        if profile.processes[key.process].pid == pid
    )
    assert not Path(f"/tmp/perf-{pid}.map").exists()
    assert named[True] > 0.8 * named.total()


@pytest.mark.root
def test_links_of_a_process_in_another_root_lead_nowhere_else(build, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    program = build(WAIT, "-static", name="root/program")
    (tmp_path / "secret").write_bytes(b"10 10 x\n")
    with subprocess.Popen(
        ["chroot", root, f"/{program.name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        (root / f"tmp/perf-{process.pid}.map").symlink_to(tmp_path / "secret")
        with pytest.raises(OSError, match="symbolic link"):
            open_perf_map(process.pid)
        process.stdin.close()


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_readers_survive_damage(reader, tmp_path: Path) -> None:
    """The fuzzer's readers over its seeds, each with a byte changed or cut; the fuzzer itself runs for longer."""
    read, seeds = fuzz.READERS[reader]
    for data in seeds(tmp_path):
        read(data)
        for place in range(0, len(data), max(len(data) // 60, 1)):
            read(data[:place])
            read(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])


def test_what_the_readers_of_the_fuzzer_promise_is_bad_elf_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF\x02\x01" + b"\xff" * 200)
    with open_regular(str(tmp_path / "x")) as file, pytest.raises(BadElf):
        ElfImage(file)
