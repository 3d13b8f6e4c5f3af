"""ELF files as gcc makes them, as strip leaves them, and as an attacker would write them."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from pyflame_ebpf.elf.image import BadElf, ElfImage, ElfType, open_regular
from pyflame_ebpf.host import proc
from pyflame_ebpf.symbols.native_symbols import NativeSymbols

SOURCE = """
#include <unistd.h>
int shared_data = 7;
extern int elsewhere(void);
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
__attribute__((noinline)) int visible(int x) { return hidden(x) + shared_data; }
int alias_of_visible(int) __attribute__((alias("visible")));
"""
PROGRAM = SOURCE + 'int main(void) { write(1, "ready\\n", 6); return visible(1) + (int)read(0, &shared_data, 1); }'


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("elf")

    def run(name, source, *flags):
        target = folder / name
        subprocess.run(["gcc", "-O1", "-x", "c", "-", "-o", target, *flags], input=source.encode(), check=True)
        return target

    return run


@pytest.fixture(scope="module")
def library(build):
    return build("lib.so", SOURCE, "-shared", "-fPIC", "-Wl,--build-id=0x0123456789abcdef0123")


def strip_section_headers(path, target):
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 40, 0)  # e_shoff
    struct.pack_into("<HHH", data, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    target.write_bytes(data)
    return target


def nm(path):
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[2]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}


def test_symbols_are_where_nm_says(library) -> None:
    expected = nm(library)
    with open_regular(str(library)) as file:
        image = ElfImage(file)
        found = {name: image.symbol(name).vaddr for name in ("visible", "hidden", "shared_data")}
    assert found == {name: expected[name] for name in found}


def test_local_symbols_are_not_dynamic(library) -> None:
    with open_regular(str(library)) as file:
        assert ElfImage(file).dynamic_symbol("hidden") is None


def test_a_symbol_that_is_only_referred_to_is_not_found(build) -> None:
    library = build("refers.so", "extern int elsewhere; int *f(void) { return &elsewhere; }", "-shared", "-fPIC")
    with open_regular(str(library)) as file:
        assert ElfImage(file).symbol("elsewhere") is None


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_dynamic_symbols_survive_the_loss_of_section_headers(build, tmp_path: Path, style: str) -> None:
    whole = build(f"{style}.so", SOURCE, "-shared", "-fPIC", f"-Wl,--hash-style={style}")
    with open_regular(str(strip_section_headers(whole, tmp_path / "stripped.so"))) as file:
        image = ElfImage(file)
        address = nm(whole)["visible"]
        assert image.sections == ()
        assert image.symbol("visible").vaddr == address
        assert image.symbol_at(address + 1) == ("visible", 1)


def test_an_address_is_named_by_the_function_that_holds_it_and_no_other(library) -> None:
    with open_regular(str(library)) as file:
        image = ElfImage(file)
        visible = image.symbol("visible")
        assert image.symbol_at(visible.vaddr) == ("visible", 0)
        assert image.symbol_at(image.symbol("hidden").vaddr + 2) == ("hidden", 2)
        assert image.symbol_at(1) is None


def test_the_build_id_is_in_memory_where_the_image_says(library) -> None:
    with open_regular(str(library)) as file:
        image = ElfImage(file)
        assert image.build_id.hex() == "0123456789abcdef0123"
        assert image.read_virtual(image.build_id_vaddr, 10) == image.build_id


@pytest.mark.parametrize(("flag", "kind"), [("-pie", ElfType.DYN), ("-no-pie", ElfType.EXEC)])
def test_executables_say_how_they_are_loaded_and_where_the_linker_reports(build, flag: str, kind: ElfType) -> None:
    with open_regular(str(build(f"program{flag}", PROGRAM, flag))) as file:
        image = ElfImage(file)
        assert (image.type, image.interpreted) == (kind, True)
        tag = image.read_virtual(image.debug_entry_vaddr - 8, 8)
    assert int.from_bytes(tag, "little") == 21  # DT_DEBUG


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadElf):
        open_regular(str(tmp_path / "fifo"))


def ask_everything(data, path):
    path.write_bytes(data)
    with open_regular(str(path)) as file:
        image = ElfImage(file)
        image.symbol("visible")
        image.symbol("no such symbol")
        image.symbol_at(0x1100)
        return image.build_id, image.sections, image.debug_entry_vaddr, image.dynamic_vaddr


def test_a_file_cut_anywhere_is_at_worst_bad(library, tmp_path: Path) -> None:
    data = library.read_bytes()
    for size in range(0, len(data), 97):
        with suppress(BadElf):
            ask_everything(data[:size], tmp_path / "cut")


def test_a_damaged_file_is_at_worst_bad(library, tmp_path: Path) -> None:
    chance = random.Random(5)
    whole = library.read_bytes()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(6):
            place = chance.randrange(64 + 56 * 12) if chance.random() < 0.6 else chance.randrange(len(data))
            data[place] = chance.randrange(256)
        with suppress(BadElf):
            ask_everything(data, tmp_path / "damaged")


def test_an_elf_file_in_memory_only_is_not_accepted() -> None:
    with pytest.raises((BadElf, io.UnsupportedOperation)):
        ElfImage(io.BytesIO(b"\x7fELF"))


def test_native_addresses_of_a_live_process_are_named(build) -> None:
    program = build("named", PROGRAM, "-pie")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        mappings = proc.mappings(process.pid)
        symbols = NativeSymbols()
        base = next(mapping.start for mapping in mappings if mapping.path == str(program))

        def name(address):
            return symbols.lookup(
                process.pid, mappings, address, lambda mapping: proc.open_mapped_file(process.pid, mapping)
            )

        assert name(base + nm(program)["hidden"] + 1) == (str(program), "hidden")
        assert name(base) == (str(program), "named+0x0")
        assert name(8) == ("", "0x8")
        process.stdin.close()


def test_native_names_do_without_a_file_that_is_gone() -> None:
    mapping = proc.Mapping(4096, 8192, 0, True, 1, 1, "/no/such/lib.so")

    def refuse(_mapping) -> None:
        raise FileNotFoundError

    assert NativeSymbols().lookup(1, [mapping], 4097, refuse) == ("/no/such/lib.so", "lib.so+0x1")
