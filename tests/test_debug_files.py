"""Where symbols are that were stripped, and what only claims to be them."""

import lzma
import subprocess
import time

import pytest

from pyflame_ebpf import debug_files
from pyflame_ebpf.debug_files import separate_debug_file, unpack_debug_data
from pyflame_ebpf.elf_image import BadElf, ElfImage, open_regular

SOURCE = """
static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }
int visible(int x) { return hidden(x); }
"""
BUILD_ID = "-Wl,--build-id=0x0123456789abcdef"


def run(*command):
    subprocess.run(command, check=True)


def build(folder, *flags):
    target = folder / "lib.so"
    command = ["gcc", "-O1", "-x", "c", "-", "-shared", "-fPIC", "-o", target, *flags]
    subprocess.run(command, input=SOURCE.encode(), check=True)
    return target


def split(library, debug, *, link=False):
    """Move a library's symbols into a debug file of their own."""
    debug.parent.mkdir(parents=True, exist_ok=True)
    run("objcopy", "--only-keep-debug", library, debug)
    run("strip", "-s", library)
    if link:
        run("objcopy", f"--add-gnu-debuglink={debug}", library)


def hidden_address(library, debug_of=separate_debug_file):
    """The address of ``hidden`` in the debug file that is found, -1 for none."""
    with open_regular(str(library)) as file, debug_of(ElfImage(file), str(library), None) as found:
        functions = found.static_functions(range(0x4000)) if found else {}
        return next((vaddr for vaddr, hit in functions.items() if hit == ("hidden", 0)), -1)


def test_a_debug_file_is_found_by_build_id(tmp_path, monkeypatch):
    monkeypatch.setattr(debug_files, "_DEBUG_ROOT", str(tmp_path / "debug"))
    library = build(tmp_path, BUILD_ID)
    with open_regular(str(library)) as file:
        expected = ElfImage(file).symbol("hidden").vaddr
    split(library, tmp_path / "debug/.build-id/01/23456789abcdef.debug")
    assert hidden_address(library) == expected


def test_a_debug_file_with_another_build_id_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(debug_files, "_DEBUG_ROOT", str(tmp_path / "debug"))
    other = build(tmp_path, "-Wl,--build-id=0xffff")
    split(other, tmp_path / "debug/.build-id/01/23456789abcdef.debug")
    assert hidden_address(build(tmp_path, BUILD_ID, "-s")) == -1


@pytest.mark.parametrize("place", [".debug/lib.debug", "lib.debug"])
def test_a_debug_file_without_build_id_is_found_by_link_and_checksum(tmp_path, place):
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / place, link=True)
    assert hidden_address(library) > 0


def test_a_debug_file_with_another_checksum_is_refused(tmp_path):
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    with (tmp_path / "lib.debug").open("ab") as file:
        file.write(b"\0")
    assert hidden_address(library) == -1


def test_a_fifo_in_place_of_a_debug_file_is_refused_without_waiting(tmp_path):
    library = build(tmp_path, "-Wl,--build-id=none")
    split(library, tmp_path / "lib.debug", link=True)
    (tmp_path / "lib.debug").unlink()
    run("mkfifo", tmp_path / "lib.debug")
    assert hidden_address(library) == -1


def with_debug_data(folder, packed):
    library = build(folder, "-s")
    (folder / "packed").write_bytes(packed)
    run("objcopy", f"--add-section=.gnu_debugdata={folder / 'packed'}", library)
    return library


def unpacked_address(library):
    with open_regular(str(library)) as file:
        unpacked = unpack_debug_data(ElfImage(file))
        assert unpacked is not None
        with unpacked:
            return ElfImage(unpacked).symbol("hidden").vaddr


def test_compressed_symbols_are_unpacked(tmp_path):
    whole = build(tmp_path)
    with open_regular(str(whole)) as file:
        expected = ElfImage(file).symbol("hidden").vaddr
    assert unpacked_address(with_debug_data(tmp_path, lzma.compress(whole.read_bytes()))) == expected


@pytest.mark.parametrize("packed", [b"", b"no xz", lzma.compress(b"x" * 1000)[:40], lzma.compress(b"not ELF")])
def test_compressed_symbols_that_are_damaged_are_bad(tmp_path, packed):
    with pytest.raises(BadElf):
        unpacked_address(with_debug_data(tmp_path, packed))


def test_compressed_symbols_that_unpack_to_gigabytes_are_bad_soon(tmp_path):
    packed = lzma.compress(bytes(256 << 20), preset=0)
    library = with_debug_data(tmp_path, packed)
    began = time.process_time()
    with pytest.raises(BadElf, match="too much"):
        unpacked_address(library)
    assert time.process_time() - began < 3


def test_compressed_symbols_that_want_much_memory_are_bad(tmp_path):
    packed = lzma.compress(b"\x7fELF", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}])
    with pytest.raises(BadElf, match="cannot be unpacked"):
        unpacked_address(with_debug_data(tmp_path, packed))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", ""])
def test_a_debug_link_that_leads_elsewhere_counts_for_nothing(tmp_path, name):
    library = build(tmp_path, "-s")
    (tmp_path / "link").write_bytes(name.encode() + b"\0" * (4 - len(name) % 4) + b"\1\2\3\4")
    run("objcopy", f"--add-section=.gnu_debuglink={tmp_path / 'link'}", library)
    with open_regular(str(library)) as file:
        assert debug_files.debug_link(ElfImage(file)) is None
