"""What every benchmark script answers: which machine it measured, and how another checkout does in turns with this one.

A benchmark prints its figures as lines of text.  With ``--against CHECKOUT`` the script of the same name is run from
both checkouts in turns, and the numbers that both print in the same place of the same line are compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from _checkout import CHECKOUT

TURNS = 3
# A number that is a word of its own: "3.12.1", "sid-3.14" and "p99" are names.
NUMBER = re.compile(r"(?<![\w.,-])-?\d[\d,]*(?:\.\d+)?(?![\w,-]*\d)(?!\.\d)")
MACHINE = "machine:"

Place = tuple[str, int, int]  # a line with its numbers left out, which of such lines it is, which of its numbers
Figures = dict[Place, float]


def machine() -> str:
    """Describe this host in one line: CPU model, CPUs that may be used, kernel, Python."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    cpus = len(os.sched_getaffinity(0))
    name = model[1].strip() if model else platform.machine()
    return f"{MACHINE} {name}, {cpus} CPUs, Linux {platform.release()}, Python {platform.python_version()}"


def benchmark_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of a benchmark.

    Prints the machine.  With --against the comparison is made here, and the program ends.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.allow_abbrev = False  # a shortened --against would reach the scripts that it starts
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="measure that checkout and this one in turns")
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N", help=f"turns of --against; default {TURNS}")
    options = parser.parse_args()
    print(machine(), flush=True)
    if options.against is None:
        return options
    own = CHECKOUT / "scripts" / Path(sys.argv[0]).name
    other = options.against.resolve() / "scripts" / own.name
    if not other.is_file():
        parser.error(f"{options.against} has no scripts/{own.name}")
    arguments = own_arguments(sys.argv[1:])
    sys.exit(compare_in_turns(own, other, arguments, options.turns))


def own_arguments(words: list[str]) -> list[str]:
    """The command line without the options of this module."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--against")
    parser.add_argument("--turns")
    return parser.parse_known_args(words)[1]


def compare_in_turns(own: Path, other: Path, arguments: list[str], turns: int) -> int:
    """Run both scripts so often, and print their medians; status 1 when they have no figure in common."""
    ours, theirs = [], []
    for turn in range(turns):
        ours.append(figures(output_of(own, arguments)))
        theirs.append(figures(output_of(other, arguments)))
        print(f"turn {turn + 1} of {turns} is measured", file=sys.stderr, flush=True)
    rows = compared(ours, theirs)
    print(f"{'this':>12}{'that':>12}{'ratio':>8}  medians of {turns} turns; that is {other.parent.parent}")
    for row in rows:
        print(f"{row.ours:>12,.10g}{row.theirs:>12,.10g}{row.ratio:>8.3f}  {row.label}")
    return 0 if rows else 1


def output_of(script: Path, arguments: list[str]) -> str:
    """What a script prints; its errors go to ours.  A benchmark that misses its aim has status 1 and figures."""
    return subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=False).stdout


def figures(text: str) -> Figures:
    """Every number of a benchmark's output by its place."""
    found: Figures = {}
    seen: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith(MACHINE):
            continue
        shape = " ".join(NUMBER.sub("#", line).split())
        for index, number in enumerate(NUMBER.findall(line)):
            found[shape, seen[shape], index] = float(number.replace(",", ""))
        seen[shape] += 1
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of both checkouts: medians, and the line that it stands in, with [#] in its place."""

    label: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Ours as a multiple of theirs; infinity where theirs is 0."""
        return self.ours / self.theirs if self.theirs else float("inf")


def compared(ours: list[Figures], theirs: list[Figures]) -> list[Row]:
    """The figures that every turn of both has; a number that never changes belongs to its line's text."""
    turns = [*ours, *theirs]
    common = [place for place in ours[0] if all(place in turn for turn in turns)]
    constant = {place: ours[0][place] for place in common if len({turn[place] for turn in turns}) == 1}
    return [
        Row(_label(place, constant), _median(ours, place), _median(theirs, place))
        for place in common
        if place not in constant
    ]


def _median(turns: list[Figures], place: Place) -> float:
    return statistics.median(turn[place] for turn in turns)


def _label(place: Place, constant: Figures) -> str:
    shape, which, index = place
    parts = shape.split("#")
    words = [parts[0]]
    for at, part in enumerate(parts[1:]):
        value = constant.get((shape, which, at))
        words += ["[#]" if at == index else "#" if value is None else f"{value:g}", part]
    return "".join(words)
