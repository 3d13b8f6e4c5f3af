#!/usr/bin/env python3
"""Change the package's code in small ways, one at a time, and count the changes that the pure tests notice.

    scripts/mutation_score.py                                   30 mutants of each module of the rooms in ROOMS
    scripts/mutation_score.py --modules unwind stacks/weave.py --sample 0      all mutants of these modules
    scripts/mutation_score.py --quick                           5 mutants of one small module, as CI does

A mutant is killed when a test fails, or when the tests run out of time or memory. Every mutant runs in a copy of the
checkout, in a process forked from one that has imported pytest already. It meets two kinds of tests: those of the
module's own room (tests/ROOM) that call the module, and those of other rooms that call the changed function. Tests of
the changed function run first, then the quickest, --seconds in all. Docstrings, annotations, decorators and messages
of errors are not changed; scripts/mutation_equivalents.txt lists changes that a person found equivalent.

Prints the survivors as FILE:LINE: BEFORE -> AFTER when they are found, then a table by module. Status 1 if less than
--at-least percent of the mutants were killed, 2 if tests fail without any change.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from _mutant_runs import PACKAGE, judge, record_tests
from _mutants import Mutant, equivalents, mutants_of

CHECKOUT = Path(__file__).resolve().parent.parent
ROOMS = ("profile", "elf", "host", "cpython", "unwind", "symbols", "stacks", "compare", "live/totals.py")
QUICK_MODULE, QUICK_TESTS = "unwind/dwarf_numbers.py", "tests/unwind"
NEVER_COPIED = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "*.egg-info")


def table(results: dict[Mutant, str]) -> Iterator[str]:
    """Yield the lines of the table: one for each module, and one for all."""
    yield f"{'module':<50} mutants  killed    late survived  score"
    for module in [*sorted({mutant.path for mutant in results}), "all"]:
        counts = Counter(result for mutant, result in results.items() if module in (mutant.path, "all"))
        total, survived = counts.total(), counts["survived"]
        score = 100 * (total - survived) / total
        yield f"{module:<50} {total:7} {counts['killed']:7} {counts['late']:7} {survived:8} {score:5.1f}%"


def modules_of(checkout: Path, names: Iterable[str]) -> list[str]:
    """Return the paths, relative to the checkout, of the modules that are named by rooms or files."""
    found: set[Path] = set()
    for name in names:
        path = checkout / PACKAGE / name.removeprefix(f"{PACKAGE}/")
        if not path.exists():
            sys.exit(f"no such room or module: {path}")
        found |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return sorted(str(path.relative_to(checkout)) for path in found)


def sampled(checkout: Path, modules: Iterable[str], size: int, seed: int) -> list[Mutant]:
    """Select at most ``size`` mutants of each module by the seed, 0 for all, and leave out those known as equivalent.

    Before a module's mutants stands its unchanged text, which must survive.
    """
    known, chosen = equivalents(), list[Mutant]()
    for module in modules:
        mutants = mutants_of(checkout, module)
        chosen += [Mutant(module, 0, 0, "", "", (checkout / module).read_text())] if mutants else []
        places = random.Random(f"{seed} {module}").sample(range(len(mutants)), min(size or len(mutants), len(mutants)))
        selected = [mutants[place] for place in sorted(places)]
        chosen += [mutant for mutant in selected if mutant.change not in known]
    return chosen


def parsed() -> argparse.Namespace:
    """Read the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modules", nargs="+", default=ROOMS, help="rooms or files below pyflame_ebpf/")
    parser.add_argument("--sample", type=int, default=30, help="mutants of each module; 0 for all (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="another seed selects other mutants (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="mutants that are tested at once (default: 1)")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="where tests are chosen from (default: tests)")
    parser.add_argument("--seconds", type=float, default=10, help="CPU time of a mutant's tests (default: 10)")
    parser.add_argument("--checkout", type=Path, default=CHECKOUT, help="whose code and tests (default: this one)")
    parser.add_argument("--at-least", type=float, default=0, help="the score in percent that is asked for")
    parser.add_argument("--quick", action="store_true", help=f"5 mutants of {QUICK_MODULE} and the tests of its room")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.modules, arguments.sample, arguments.tests = [QUICK_MODULE], 5, [QUICK_TESTS]
    return arguments


def main() -> int:
    """Sample mutants, test them and print the report; returns the exit status."""
    arguments = parsed()
    checkout = arguments.checkout.resolve()
    modules = modules_of(checkout, arguments.modules)
    with tempfile.TemporaryDirectory(prefix="mutants.") as workspace:
        trees = [Path(workspace) / str(number) for number in range(arguments.jobs + 1)]
        shutil.copytree(checkout, trees[0], ignore=NEVER_COPIED)
        mutants = sampled(trees[0], modules, arguments.sample, arguments.seed)
        record = record_tests(trees[0], arguments.tests)
        for tree in trees[1:]:
            shutil.copytree(trees[0], tree)
        results = {}
        for mutant, result in judge(mutants, record, trees, arguments.seconds):
            if not mutant.line and result != "survived":
                print(f"the tests of {mutant.path} fail without any change; run its mutants again")
                return 2
            if mutant.line:
                results[mutant] = result
            if mutant.line and result == "survived":
                print(mutant, flush=True)
    print(*table(results), sep="\n")
    survived = sum(result == "survived" for result in results.values())
    return int(100 * (len(results) - survived) < arguments.at_least * len(results))


if __name__ == "__main__":
    sys.exit(main())
