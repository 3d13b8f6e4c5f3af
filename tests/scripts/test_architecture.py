"""ARCHITECTURE.md draws the tree as it is: every module and every header by its name, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent
PACKAGE = CHECKOUT / "pyflame_ebpf"
NO_MODULES = {"report_page", "kernel"}  # folders of other languages, named as a whole


def drawn() -> str:
    """The tree of the page, from its first line to the next heading."""
    text = (CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return text.split("## The tree\n", 1)[1].split("\n## ", 1)[0]


def modules_of(folder: Path) -> set[str]:
    """The modules of a package by their names, without those of the packages in it."""
    return {path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")}


def drawn_packages() -> dict[str, str]:
    """What stands in the tree behind and below the name of each package."""
    parts = re.split(r"^      (?:  )?([a-z]+)/ ", drawn().split("    pyflame_ebpf/\n", 1)[1], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def packages() -> dict[str, Path]:
    """Every package that the tree draws by itself, by its name."""
    folders = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    return {folder.name: folder for folder in (*folders, PACKAGE / "outputs" / "comparison")}


def test_every_package_is_drawn() -> None:
    assert set(drawn_packages()) == set(packages())


def test_every_module_is_drawn_in_its_package() -> None:
    missing = {
        name: lacking
        for name, folder in packages().items()
        if (lacking := modules_of(folder) - set(re.findall(r"[a-z0-9_]+", drawn_packages()[name])))
    }
    assert missing == {}


def test_every_name_with_an_underscore_in_the_tree_is_a_module_or_a_header() -> None:
    known = {path.stem for path in PACKAGE.rglob("*.py")} | {path.stem for path in (CHECKOUT / "bpf").glob("*.h")}
    named = set(re.findall(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b", drawn())) - {"pyflame_ebpf", "eh_frame"}
    assert named - known - NO_MODULES == set()


def test_every_file_of_the_programs_is_drawn() -> None:
    named = drawn().split("    pyflame_ebpf/\n", 1)[0]
    headers = {path.name for path in (CHECKOUT / "bpf").glob("*.h")}
    programs = {path.name.removesuffix(".bpf.c") for path in (CHECKOUT / "bpf").glob("*.bpf.c")}
    assert {name for name in headers | programs if name not in named} == set()


def test_the_page_is_short() -> None:
    assert len((CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= 200
