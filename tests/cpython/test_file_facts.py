"""What a file says about the interpreter in it, of libraries that are compiled here."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pyflame_ebpf.cpython.file_facts import FileFactsCache, RuntimeFacts, examine, unpack_version
from pyflame_ebpf.elf.image import ElfImage, open_regular
from pyflame_ebpf.elf.symbols import ElfSymbols

RUNTIME = '__attribute__((section(".PyRuntime"), visibility("%s"))) char _PyRuntime[64] = {1};\n'
HIDDEN, SHOWN = RUNTIME % "hidden", RUNTIME % "default"
VERSION = "const unsigned int Py_Version = 0x030c01f0;\n"

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile a library; ``strip`` takes its symbol table away."""

    def run(source: str, *, strip: bool = False) -> Path:
        target = tmp_path / f"{len(list(tmp_path.iterdir()))}.so"
        flags = ["-shared", "-fPIC", "-nostdlib", "-w", *["-s"] * strip]
        subprocess.run(["gcc", "-x", "c", "-", "-o", str(target), *flags], input=source.encode(), check=True)
        return target

    return run


def runtime_of(path: Path) -> RuntimeFacts | None:
    """The interpreter in a file."""
    with open_regular(str(path)) as file:
        return examine(ElfImage(file)).runtime


def address(path: Path, name: str) -> int:
    """The address of a symbol or a section."""
    with open_regular(str(path)) as file:
        image = ElfImage(file)
        found = ElfSymbols(image).symbol(name) or image.section(name)
    assert found
    return found.vaddr


def version_of(path: Path) -> tuple[tuple[int, ...], str]:
    """Release and version."""
    facts = runtime_of(path)
    assert facts
    return facts.release, facts.version


def constant(text: str) -> str:
    """A string among the constants."""
    return f'const char said[] = "{text}";\n'


def test_a_file_that_only_refers_to_an_interpreter_has_none(build: Build) -> None:
    assert runtime_of(build("extern char _PyRuntime[];\nchar *f(void) { return _PyRuntime; }\n")) is None


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("source", [SHOWN, HIDDEN], ids=["shown", "hidden"])
def test_a_runtime_is_found_by_symbol_or_section(build: Build, source: str, strip: bool) -> None:
    path = build(source + VERSION, strip=strip)
    assert runtime_of(path) == RuntimeFacts(address(path, ".PyRuntime"), 0, 0, (3, 12), "3.12.1")


@pytest.mark.parametrize("visibility", ["default", "hidden"])
def test_a_runtime_without_a_section_is_found_by_its_symbol(build: Build, visibility: str) -> None:
    path = build(f'__attribute__((visibility("{visibility}"))) char _PyRuntime[64] = {{1}};\n' + VERSION)
    assert runtime_of(path) == RuntimeFacts(address(path, "_PyRuntime"), 0, 0, (3, 12), "3.12.1")


@pytest.mark.parametrize("visibility", ["default", "hidden"])
def test_variables_of_releases_before_the_runtime_are_found(build: Build, visibility: str) -> None:
    shown = f'__attribute__((visibility("{visibility}"))) void *_PyThreadState_Current;\n'
    path = build(shown + "static void *interp_head __attribute__((used));\n" + constant("3.6.15"))
    expected = RuntimeFacts(0, address(path, "interp_head"), address(path, "_PyThreadState_Current"), (3, 6), "3.6.15")
    assert runtime_of(path) == expected


def test_a_list_of_interpreters_without_a_thread_state_is_no_interpreter(build: Build) -> None:
    assert runtime_of(build("void *interp_head;\n")) is None


def test_a_stripped_file_of_an_old_release_has_one_root(build: Build) -> None:
    path = build("void *_PyThreadState_Current;\nstatic void *interp_head __attribute__((used));\n", strip=True)
    facts = runtime_of(path)
    assert facts == RuntimeFacts(0, 0, address(path, "_PyThreadState_Current"), (), "")


ADDED_IN = [
    ("PyType_FromMetaclass", (3, 12)),
    ("PyModule_AddObjectRef", (3, 10)),
    ("PyFrame_GetCode", (3, 9)),
    ("PyCode_NewWithPosOnlyArgs", (3, 8)),
    ("PyThread_tss_create", (3, 7)),
    ("PyOS_FSPath", (3, 6)),
]


@pytest.mark.parametrize(("function", "release"), ADDED_IN)
def test_a_release_is_told_by_the_functions_that_came_with_it(
    build: Build, function: str, release: tuple[int, int]
) -> None:
    source = SHOWN + "void PyOS_FSPath(void) {}\n"
    source += f"void {function}(void) {{}}\n" if function != "PyOS_FSPath" else ""
    assert version_of(build(source)) == (release, ".".join(map(str, release)))


def test_python_2_is_told_by_a_function_that_3_does_not_have(build: Build) -> None:
    source = "void *_PyThreadState_Current;\nvoid PyString_FromString(void) {}\nvoid PyOS_FSPath(void) {}\n"
    assert version_of(build(source + constant("2.7.18"))) == ((2, 7), "2.7.18")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["3.9.18"], ((3, 9), "3.9.18")),
        (["/usr/local/python-3.9.18"], ((3, 9), "3.9.18")),
        (["3.9.18+"], ((3, 9), "3.9.18+")),
        (["3.9.0rc2"], ((3, 9), "3.9.0rc2")),
        (["3.9.0b12"], ((3, 9), "3.9.0b12")),
        (["3.9.1", "3.9.2"], ((3, 9), "3.9")),
        (["13.9.18"], ((3, 9), "3.9")),
        (["1.3.9.18"], ((3, 9), "3.9")),
        (["3.9.18 and more"], ((3, 9), "3.9")),
        (["3.8.18"], ((3, 9), "3.9")),
        (["3.9.18", "3.8.18"], ((3, 9), "3.9.18")),
    ],
)
def test_the_version_is_the_one_constant_that_looks_like_one_of_the_release(
    build: Build, texts: list[str], expected: tuple[tuple[int, ...], str]
) -> None:
    source = SHOWN + "void PyFrame_GetCode(void) {}\n"
    source += "".join(f'const char said_{number}[] = "{text}";\n' for number, text in enumerate(texts))
    assert version_of(build(source)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3.10.13", ((3, 10), "3.10.13")), ("2.7.18", ((), "")), ("4.0.0", ((), "")), ("3.100.1", ((), ""))],
)
def test_without_functions_any_version_of_3_is_believed(
    build: Build, text: str, expected: tuple[tuple[int, ...], str]
) -> None:
    assert version_of(build(HIDDEN + constant(text), strip=True)) == expected


def test_a_constant_counts_for_more_than_functions_and_strings(build: Build) -> None:
    source = SHOWN + VERSION + "void PyOS_FSPath(void) {}\n" + constant("3.6.15")
    assert version_of(build(source)) == ((3, 12), "3.12.1")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0x030C01F0, ((3, 12), "3.12.1")),
        (0x030D00A1, ((3, 13), "3.13.0a1")),
        (0x030D00B2, ((3, 13), "3.13.0b2")),
        (0x030E0AC3, ((3, 14), "3.14.10rc3")),
        (0x030E0A03, ((3, 14), "3.14.10?3")),
        (0xFFFFFFFF, ((255, 255), "255.255.255")),
    ],
)
def test_a_number_becomes_a_version(number: int, expected: tuple[tuple[int, ...], str]) -> None:
    assert unpack_version(number) == expected


def test_a_file_is_examined_once_and_again_when_it_has_changed(build: Build, tmp_path: Path) -> None:
    cache = FileFactsCache()
    path = tmp_path / "library"
    path.write_bytes(build(SHOWN + VERSION).read_bytes())
    with path.open("rb") as file:
        first = cache.of(file)
    with path.open("rb") as file:
        assert cache.of(file) is first
    path.write_bytes(b"no ELF file")
    with path.open("rb") as file:
        assert cache.of(file) is None
    assert first
    assert first.runtime


def test_a_file_s_places_are_those_of_its_headers(build: Build) -> None:
    path = build(SHOWN)
    with open_regular(str(path)) as file:
        image = ElfImage(file)
        found = examine(image)
        assert (found.machine, found.segments, found.build_id) == (62, image.segments, image.build_id)
        assert (found.first_text_vaddr, found.dynamic_vaddr) == (image.first_text_vaddr, image.dynamic_vaddr)
        assert (found.debug_entry_vaddr, found.build_id_vaddr) == (image.debug_entry_vaddr, image.build_id_vaddr)
    assert found.build_id
    assert found.dynamic_vaddr
